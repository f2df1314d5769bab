"""Settings say which of them is wrong, and go to other processes."""

import pickle
from typing import Any

import pytest

from wirespeed.jobs.settings import Settings


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", 1.5),
        ("rate", 0),
        ("rate", -1.0),
        ("rate", float("nan")),
        ("rate", "fast"),
        ("retries", -1),
        ("timeout", -0.1),
        ("timeout", float("inf")),
        ("timeout", None),
        ("max_body", -1),
        ("per_host", -1),
        ("method", ""),
        ("method", "A B"),
        ("method", "GÉT"),
        ("headers", {"A B": "c"}),
        ("headers", {"A": "b\r\nC: d"}),
        ("headers", {"A": 1}),
    ],
)
def test_a_bad_value_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{option} must"):
        Settings(**{option: value})


def test_settings_are_the_same_in_another_process() -> None:
    settings = Settings(rate=2.5, headers={"A": "b"}, method="post", max_body=None)
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.method == "POST"
