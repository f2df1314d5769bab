"""Policies as OpenTelemetry metrics: names and attributes, what several have in common, and their end."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support.collected import Metrics
from support.governed import FakePolicies, FakePolicy, State
from support.local import LocalServer
from support.observed import origin, while_requests_run

import wirespeed
from wirespeed.observe import opentelemetry
from wirespeed.observe.opentelemetry import Instruments, attributes_of_key, instrument_policies
from wirespeed.policy import Bulkhead, CircuitBreaker, Hedge, Outcome, Policies, Retry

PASSED = "wirespeed.policy.fake.passed"
ATTEMPTS = "wirespeed.policy.attempts"
KEY = "wirespeed.policy.key"


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    metrics = Metrics()
    yield metrics
    metrics.provider.shutdown()


def test_every_figure_has_its_metric(metrics: Metrics) -> None:
    policy = FakePolicy()
    policy.set(origin("a"), passed=3, waited=0.5, in_use=2, delay_seconds=0.25, state=State.TENSE)
    instrument_policies(policy, metrics.provider)
    found = metrics.collect()
    assert {name: (type(metric.data).__name__, metric.unit) for name, metric in found.items()} == {
        PASSED: ("Sum", ""),
        "wirespeed.policy.fake.waited_seconds": ("Sum", "s"),
        "wirespeed.policy.fake.in_use": ("Gauge", ""),
        "wirespeed.policy.fake.delay_seconds": ("Gauge", "s"),
        "wirespeed.policy.fake.state": ("Gauge", ""),
    }
    assert found[PASSED].data.is_monotonic
    assert found[PASSED].description == "Attempts that passed."
    (labels,) = metrics.points(PASSED)
    assert dict(labels) == {"server.address": "a.example", "server.port": 443, "url.scheme": "https"}
    assert metrics.values(PASSED, "server.address") == {"a.example": 3}
    assert metrics.values("wirespeed.policy.fake.waited_seconds", "server.address") == {"a.example": 0.5}
    assert metrics.values("wirespeed.policy.fake.in_use", "server.address") == {"a.example": 2}
    assert metrics.values("wirespeed.policy.fake.state", "wirespeed.state") == {"calm": 0, "tense": 1}


def test_attempts_have_their_outcome(metrics: Metrics) -> None:
    policies = FakePolicies(FakePolicy(a=1))
    policies.attempts = {origin("a"): {Outcome.SUCCESS: 5, Outcome.TIMED_OUT: 2}, "b": {Outcome.LOCAL: 1}}
    instrument_policies(policies, metrics.provider)
    assert metrics.values(ATTEMPTS, "server.address", KEY, "wirespeed.outcome") == {
        ("a.example", None, "success"): 5,
        ("a.example", None, "timed_out"): 2,
        (None, "b", "local"): 1,
    }
    assert metrics.values(PASSED, KEY) == {"a": 1}


@pytest.mark.parametrize(
    ("key", "attributes"),
    [
        ("http://[::1]:8080", {"server.address": "::1", "server.port": 8080, "url.scheme": "http"}),
        ("wss://a.example", {"server.address": "a.example", "server.port": 443, "url.scheme": "wss"}),
        ("all", {KEY: "all"}),
        ("('https://a.example', 1)", {KEY: "('https://a.example', 1)"}),
        ("https://a.example/path", {KEY: "https://a.example/path"}),
        ("a.example:80", {KEY: "a.example:80"}),
    ],
)
def test_attributes_of_keys(key: str, attributes: dict[str, Any]) -> None:
    assert attributes_of_key(key) == attributes


def test_what_is_no_policy_is_refused(metrics: Metrics) -> None:
    with pytest.raises(TypeError, match="Expected policies of wirespeed's"):
        instrument_policies(object(), metrics.provider)  # type: ignore[arg-type]


def test_a_collection_reads_a_policy_once(metrics: Metrics) -> None:
    policy = FakePolicy(a=1)
    instrument_policies(policy, metrics.provider)
    for count in (1, 2, 3):
        policy.set("a", passed=count)
        assert metrics.values(PASSED, KEY) == {"a": count}
        assert policy.reads == count


def test_what_was_read_long_ago_is_not_reported(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opentelemetry, "COLLECTION_SECONDS", -1.0)
    policy = FakePolicy(a=1)
    instrument_policies(policy, metrics.provider)
    metrics.collect()
    assert policy.reads == len(FakePolicy.metrics)


def test_readers_do_not_share_what_was_read() -> None:
    one, two = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([one, two], shutdown_on_exit=False)
    policy = FakePolicy(a=1)
    instrument_policies(policy, provider)
    for count in (1, 2):
        policy.set("a", passed=count)
        assert [value_of(reader) for reader in (one, two)] == [count, count]
    provider.shutdown()


def value_of(reader: InMemoryMetricReader) -> int:
    (resource,) = reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    (value,) = (
        point.value for metric in scope.metrics if metric.name == PASSED for point in metric.data.data_points
    )
    return int(value)


def test_a_key_that_was_forgotten_and_is_met_again_goes_on(metrics: Metrics) -> None:
    policy = FakePolicy(a=100, b=1)
    instrument_policies(policy, metrics.provider)
    assert metrics.values(PASSED, KEY) == {"a": 100, "b": 1}
    policy.set("a", passed=130)
    policy.forget("a")
    assert metrics.values(PASSED, KEY) == {"b": 1, "other": 30}
    policy.set("a", passed=3)
    assert metrics.values(PASSED, KEY) == {"a": 103, "b": 1, "other": 30}


def test_policies_with_a_key_in_common_are_summed(metrics: Metrics) -> None:
    one, two = FakePolicy(a=1), FakePolicy(a=2)
    shared = FakePolicy("shared", a=5)
    both = FakePolicies(one, shared), FakePolicies(two, shared)
    for policies in both:
        instrument_policies(policies, metrics.provider)
    assert metrics.values(PASSED, KEY) == {"a": 3}
    assert metrics.values("wirespeed.policy.shared.passed", KEY) == {"a": 5}


def test_uninstrument_stops_it(metrics: Metrics) -> None:
    policy, other = FakePolicy(a=1), FakePolicy(b=1)
    handle = instrument_policies(policy, metrics.provider)
    instrument_policies(policy, metrics.provider)
    instrument_policies(other, metrics.provider)
    assert metrics.values(PASSED, KEY) == {"a": 1, "b": 1}
    handle.uninstrument()
    handle.uninstrument()
    assert metrics.values(PASSED, KEY) == {"b": 1}
    reads = policy.reads
    metrics.collect()
    assert policy.reads == reads
    policy.set("a", passed=4)
    instrument_policies(policy, metrics.provider)
    assert metrics.values(PASSED, KEY) == {"a": 4, "b": 1}


def test_a_part_is_reported_for_as_long_as_one_of_those_it_is_part_of(metrics: Metrics) -> None:
    shared = FakePolicy(a=5)
    one, two = FakePolicies(shared), FakePolicies(shared)
    handles = [instrument_policies(policies, metrics.provider) for policies in (one, two)]
    handles[0].uninstrument()
    assert metrics.values(PASSED, KEY) == {"a": 5}
    handles[1].uninstrument()
    assert metrics.values(PASSED, KEY) == {}


def test_policies_that_are_gone_are_not_reported(metrics: Metrics) -> None:
    policy = FakePolicy(a=1)
    handle = instrument_policies(policy, metrics.provider)
    assert metrics.values(PASSED, KEY) == {"a": 1}
    del policy
    gc.collect()
    assert metrics.values(PASSED, KEY) == {}
    handle.uninstrument()


def test_a_provider_that_is_gone_leaves_nothing() -> None:
    gc.collect()
    before = sum(type(thing) is Instruments for thing in gc.get_objects())
    another, policy = Metrics(), FakePolicy(a=1)
    handle = instrument_policies(policy, another.provider)
    another.collect()
    another.provider.shutdown()
    del another, handle
    gc.collect()
    assert sum(type(thing) is Instruments for thing in gc.get_objects()) == before


PROVIDER_SET_LATER = """
import sys

sys.path.insert(0, sys.argv[1])
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support.governed import FakePolicy
from wirespeed.observe.opentelemetry import instrument_policies

early, late, new = FakePolicy(a=1), FakePolicy(b=1), FakePolicy("new", c=1)
instrument_policies(early)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
instrument_policies(late)
instrument_policies(new)
(resource,) = reader.get_metrics_data().resource_metrics
(scope,) = resource.scope_metrics
for metric in scope.metrics:
    if metric.name.endswith("passed"):
        points = metric.data.data_points
        print(metric.name, sorted(point.attributes["wirespeed.policy.key"] for point in points))
"""


def test_the_provider_of_the_process_may_be_set_later() -> None:
    command = [sys.executable, "-c", PROVIDER_SET_LATER, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    expected = [f"{PASSED} ['a', 'b']", "wirespeed.policy.new.passed ['c']"]
    assert sorted(done.stdout.splitlines()) == expected, done
    assert done.stderr == ""


# Real policies


def every_policy() -> Policies:
    return Policies(
        retry=Retry(total=2, backoff_factor=0.0),
        hedge=Hedge(delay=30.0),
        bulkhead=Bulkhead(4),
        breaker=CircuitBreaker(minimum_calls=50),
    )


async def test_policies_of_a_session(metrics: Metrics) -> None:
    policies = every_policy()
    instrument_policies(policies, metrics.provider)
    async with LocalServer() as server, wirespeed.ClientSession(middlewares=(policies,)) as session:
        for path in ("/ok", "/status?n=404", "/status?n=503"):
            async with session.get(server.url(path)) as resp:
                await resp.read()
        assert metrics.values(ATTEMPTS, "server.port", "wirespeed.outcome") == {
            (server.port, "success"): 1,
            (server.port, "client_fault"): 1,
            (server.port, "overloaded"): 3,
        }
        key = server.url("").rstrip("/")
        found = metrics.collect()
        for part in policies.parts:
            figures = part.stats().by_key[key]
            for metric in part.metrics:
                if metric.kind == "counter":
                    (point,) = found[f"wirespeed.policy.{part.name}.{metric.name}"].data.data_points
                    assert point.value == getattr(figures, metric.attribute), metric
                    assert point.attributes["server.address"] == "127.0.0.1"
        states = metrics.values("wirespeed.policy.breaker.state", "wirespeed.state")
        assert states == {"closed": 1, "half_open": 0, "open": 0}


async def test_a_reader_may_collect_while_requests_run(metrics: Metrics) -> None:
    policies = every_policy()
    instrument_policies(policies, metrics.provider)
    async with LocalServer() as server, wirespeed.ClientSession(middlewares=(policies,)) as session:
        requests, _ = await while_requests_run(session, server.url("/ok"), metrics.collect)
        assert metrics.values(ATTEMPTS, "wirespeed.outcome") == {"success": requests}


async def test_policies_may_be_instrumented_while_a_reader_collects(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    collecting = loop.run_in_executor(None, lambda: [metrics.collect() for _ in range(50)])
    policies = [FakePolicy(f"p{number}", a=1) for number in range(50)]
    while not collecting.done():
        for policy in policies:
            instrument_policies(policy, metrics.provider)
            await asyncio.sleep(0)
    await collecting
    for policy in policies:
        assert metrics.values(f"wirespeed.policy.{policy.name}.passed", KEY) == {"a": 1}
