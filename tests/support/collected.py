"""What a reader of the OpenTelemetry SDK collects, by name and attributes."""

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


class Metrics:
    """A provider of its own, and what it has collected."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def collect(self) -> dict[str, Any]:
        """Collect now; the metrics by name."""
        data = self.reader.get_metrics_data()
        scopes = (
            [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        )
        assert {scope.scope.name for scope in scopes} <= {"wirespeed"}
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """The data points of a metric by attributes."""
        metric = self.collect().get(name)
        return (
            {tuple(sorted(point.attributes.items())): point for point in metric.data.data_points}
            if metric
            else {}
        )

    def values(self, name: str, *attributes: str) -> dict[Any, int]:
        """The numbers of a metric (of a histogram, how many values) by some attributes."""
        found = {}
        for labels, point in self.points(name).items():
            key = tuple(dict(labels).get(attribute) for attribute in attributes)
            assert key not in found, f"{attributes} do not tell {name} apart"
            found[key if len(key) > 1 else key[0]] = getattr(point, "count", getattr(point, "value", None))
        return found
