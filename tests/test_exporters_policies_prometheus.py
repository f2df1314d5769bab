"""Policies in the Prometheus collector: names, labels, what several have in common, and a real endpoint."""

import asyncio
import gc
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from support.governed import FakePolicies, FakePolicy, State
from support.local import LocalServer
from support.observed import FakeConnector, busy, origin, while_requests_run
from support.scraping import Scrape, endpoint, fetch, scrape

import wirespeed
from wirespeed.observe.growth import OTHER
from wirespeed.observe.prometheus import PoolCollector
from wirespeed.policy import (
    Bulkhead,
    CircuitBreaker,
    Hedge,
    Metric,
    Outcome,
    Policies,
    Policy,
    Retry,
    RetryBudget,
)

PREFIX = "wirespeed_policy_"


def registered(*policies: Any, **options: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(PoolCollector(policies=policies, **options))
    return registry


def shown(registry: CollectorRegistry) -> Scrape:
    return scrape(registry, PREFIX)


# Names, labels, values


def test_every_figure_has_its_metric() -> None:
    policy = FakePolicy()
    policy.set(origin("a"), passed=3, waited=0.5, in_use=2, delay_seconds=0.25, state=State.TENSE)
    found = shown(registered(policy))
    a = origin("a")
    assert found.get("fake_passed_total", origin=a) == 3
    assert found.get("fake_waited_seconds_total", origin=a) == 0.5
    assert found.get("fake_in_use", origin=a) == 2
    assert found.get("fake_delay_seconds", origin=a) == 0.25
    assert found.get("fake_state", origin=a, state="tense") == 1
    assert found.get("fake_state", origin=a, state="calm") == 0
    families = {
        name: family for name, family in found.families.items() if name.startswith(f"{PREFIX}fake_passed")
    }
    assert [(family.type, family.documentation) for family in families.values()] == [
        ("counter", "Attempts that passed.")
    ]


def test_what_is_unknown_now_is_left_out() -> None:
    policy = FakePolicy(a=1)
    assert shown(registered(policy)).get("fake_delay_seconds", origin="a") is None


def test_attempts_are_shown_by_outcome() -> None:
    policies = FakePolicies(FakePolicy(a=1))
    policies.attempts = {origin("a"): {Outcome.SUCCESS: 5, Outcome.LOST_AFTER_SENT: 2}}
    found = shown(registered(policies))
    assert found.get("attempts_total", origin=origin("a"), outcome="success") == 5
    assert found.get("attempts_total", origin=origin("a"), outcome="lost_after_sent") == 2
    assert found.labels("outcome") == {"success", "lost_after_sent"}
    assert found.get("fake_passed_total", origin="a") == 1


def test_keys_may_be_anything() -> None:
    policy = FakePolicy()
    policy.set(("a", 1), passed=1)
    policy.set(7, passed=2, in_use=1, delay_seconds=1.0)
    policy.set("7", passed=3, in_use=1, delay_seconds=2.0)
    found = shown(registered(policy))
    assert found.get("fake_passed_total", origin="('a', 1)") == 1
    assert found.get("fake_passed_total", origin="7") == 5
    assert found.get("fake_in_use", origin="7") == 2
    assert found.get("fake_delay_seconds", origin="7") == 2.0


def test_beside_a_connector() -> None:
    registry = CollectorRegistry()
    connector, policy = FakeConnector(a=busy(9)), FakePolicy(a=1)
    collector = PoolCollector(connector, namespace="shop")
    collector.add_policies(policy)
    registry.register(collector)
    found = scrape(registry, "shop_")
    assert found.get("pool_requests_total", origin=origin("a")) == 9
    assert found.get("policy_fake_passed_total", origin="a") == 1


def test_openmetrics_takes_it() -> None:
    policy = FakePolicy(a=1)
    policies = FakePolicies(policy)
    policies.attempts = {"a": {Outcome.SUCCESS: 1}}
    registry = registered(policies)
    text = generate_openmetrics(registry).decode()
    assert {family.name for family in parse_openmetrics(text)} == set(shown(registry).families)


def test_registering_reads_nothing_and_knows_the_names() -> None:
    policy = FakePolicy(a=1)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(PoolCollector(policies=[policy]))
    assert policy.reads == 0
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PoolCollector(policies=[FakePolicy()]))
    restricted = registry.restricted_registry([f"{PREFIX}fake_passed_total"])
    assert [family.name for family in restricted.collect()] == [f"{PREFIX}fake_passed"]


@pytest.mark.parametrize("other", [object(), None, FakePolicies(object())], ids=["object", "none", "parts"])
def test_what_is_no_policy_is_refused(other: Any) -> None:
    with pytest.raises(TypeError, match="Expected policies of wirespeed's"):
        PoolCollector(policies=[other])


def test_what_cannot_be_held_weakly_is_refused_before_the_first_scrape() -> None:
    class Slotted:
        __slots__ = ()
        name, metrics = "slotted", ()

        def stats(self) -> None: ...

    with pytest.raises(TypeError, match="weak reference"):
        PoolCollector(policies=[FakePolicies(Slotted())])


# The bound of the labels


def test_the_busiest_keys_keep_their_label_and_others_are_summed() -> None:
    policy = FakePolicy()
    for number in range(5):
        policy.set(
            f"k{number}",
            passed=number,
            in_use=1,
            delay_seconds=1.0,
            state=State.TENSE if number == 1 else State.CALM,
        )
    found = shown(registered(policy, max_origins=2))
    assert found.labels() == {"k3", "k4", OTHER}
    assert found.get("fake_passed_total", origin=OTHER) == 3
    assert found.get("fake_in_use", origin=OTHER) == 3
    assert found.get("fake_state", origin=OTHER, state="tense") == 1
    assert found.get("fake_state", origin=OTHER, state="calm") == 2
    assert found.get("fake_delay_seconds", origin="k4") == 1.0
    assert found.get("fake_delay_seconds", origin=OTHER) is None


@pytest.mark.parametrize("name", ["delay_seconds", "failure_rate", "load_ratio", "rate"])
def test_what_does_not_add_up_is_not_summed(name: str) -> None:
    class Other(FakePolicy):
        metrics = (Metric("in_use", name, "gauge", "Does not add up."),)

    policy = Other(a=1)
    policy.set("a", in_use=0.5)
    assert shown(registered(policy, max_origins=0)).get(f"fake_{name}", origin=OTHER) is None
    assert shown(registered(policy)).get(f"fake_{name}", origin="a") == 0.5


def test_each_kind_of_policy_has_its_busiest() -> None:
    one, two = FakePolicy("one", a=2, b=1), FakePolicy("two", a=1, b=2)
    found = shown(registered(one, two, max_origins=1))
    assert found.get("one_passed_total", origin="a") == 2
    assert found.get("two_passed_total", origin="b") == 2
    assert found.get("one_passed_total", origin=OTHER) == found.get("two_passed_total", origin=OTHER) == 1


# Counters never fall


def test_a_key_that_was_forgotten_and_is_met_again_goes_on() -> None:
    policy = FakePolicy(a=100, b=1)
    registry = registered(policy)
    assert shown(registry).get("fake_passed_total", origin="a") == 100
    policy.forget("a")
    assert shown(registry).labels() == {"b"}
    policy.set("a", passed=3)
    assert shown(registry).get("fake_passed_total", origin="a") == 103


def test_what_was_counted_before_a_key_was_forgotten_is_not_lost() -> None:
    policy = FakePolicy(a=100, b=1)
    registry = registered(policy)
    shown(registry)
    policy.set("a", passed=150)
    policy.forget("a")
    policy.set("c", passed=7)  # never seen
    policy.forget("c")
    found = shown(registry)
    assert found.get("fake_passed_total", origin=OTHER) == 57
    assert found.get("fake_in_use", origin=OTHER) is None
    policy.set("a", passed=120)  # more than when it was seen last
    assert shown(registry).sum("fake_passed_total") == 150 + 1 + 7 + 120


def test_a_key_told_twice_while_it_is_forgotten_counts_once() -> None:
    policy = FakePolicy(a=100, b=1)
    registry = registered(policy, max_origins=0)
    shown(registry)
    policy.forgotten["passed"] += 100
    assert shown(registry).get("fake_passed_total", origin=OTHER) == 201
    del policy.by_key["a"]
    policy.set("b", passed=51)
    assert shown(registry).get("fake_passed_total", origin=OTHER) >= 201
    policy.set("c", passed=100)
    policy.forget("c")
    assert shown(registry).get("fake_passed_total", origin=OTHER) == 251


def test_policies_that_are_gone_take_nothing_away() -> None:
    one, two = FakePolicy(a=1, b=1), FakePolicy(a=2)
    one.set("a", in_use=4)
    registry = registered(one, two)
    assert shown(registry).get("fake_passed_total", origin="a") == 3
    assert shown(registry).get("fake_in_use", origin="a") == 4
    del one
    gc.collect()
    found = shown(registry)
    assert found.labels() == {"a"}
    assert found.get("fake_passed_total", origin="a") == 3
    assert found.get("fake_in_use", origin="a") == 0
    del two
    gc.collect()
    assert shown(registry).samples == {}


def test_policies_that_come_after_others_go_on_where_these_were() -> None:
    policy = FakePolicy(a=5)
    collector = PoolCollector(policies=[policy])
    registry = CollectorRegistry()
    registry.register(collector)
    assert shown(registry).get("fake_passed_total", origin="a") == 5
    del policy
    gc.collect()
    assert shown(registry).samples == {}
    policy = FakePolicy(a=1)
    collector.add_policies(policy)
    assert shown(registry).get("fake_passed_total", origin="a") == 6


# What several have in common


def test_policies_with_a_key_in_common_are_summed() -> None:
    one, two = FakePolicy(a=1), FakePolicy(a=2)
    one.set("a", in_use=1, delay_seconds=0.5, state=State.TENSE)
    two.set("a", in_use=2, delay_seconds=0.25)
    found = shown(registered(one, two))
    assert found.get("fake_passed_total", origin="a") == 3
    assert found.get("fake_in_use", origin="a") == 3
    assert found.get("fake_delay_seconds", origin="a") == 0.5
    assert found.get("fake_state", origin="a", state="tense") == 1
    assert found.get("fake_state", origin="a", state="calm") == 1


def test_a_part_of_several_counts_once() -> None:
    shared = FakePolicy(a=5)
    one, two = FakePolicies(shared), FakePolicies(shared, FakePolicy("own", a=1))
    one.attempts, two.attempts = {"a": {Outcome.SUCCESS: 1}}, {"a": {Outcome.SUCCESS: 2}}
    collector = PoolCollector(policies=[one, two, shared])
    collector.add_policies(one)
    registry = CollectorRegistry()
    registry.register(collector)
    for _ in range(2):
        found = shown(registry)
        assert found.get("fake_passed_total", origin="a") == 5
        assert found.get("own_passed_total", origin="a") == 1
        assert found.get("attempts_total", origin="a", outcome="success") == 3
    del one
    gc.collect()
    assert shown(registry).get("fake_passed_total", origin="a") == 5


# Real policies


def every_policy() -> Policies:
    return Policies(
        retry=Retry(total=2, backoff_factor=0.0),
        budget=RetryBudget(),
        hedge=Hedge(delay=30.0),
        bulkhead=Bulkhead(4),
        breaker=CircuitBreaker(minimum_calls=50),
    )


def assert_shows(found: Scrape, part: Policy, key: str) -> None:
    """What was scraped of a policy is what it says."""
    figures = part.stats().by_key[key]
    assert part.metrics
    for metric in part.metrics:
        value = getattr(figures, metric.attribute)
        if metric.name == "state":
            assert found.get(f"{part.name}_state", origin=key, state=value.name.lower()) == 1
        elif metric.kind == "counter":
            assert found.get(f"{part.name}_{metric.name}_total", origin=key) == value, metric
        elif metric.name == "balance":  # grows with time
            assert found.get("budget_balance", origin=key) == pytest.approx(value, abs=0.5)
        else:
            assert found.get(f"{part.name}_{metric.name}", origin=key) == value, metric


@pytest.mark.parametrize("module", [wirespeed, aiohttp], ids=["wirespeed", "aiohttp"])
async def test_a_scraped_endpoint_shows_what_the_policies_say(module: Any) -> None:
    policies = every_policy()
    with endpoint(registered(policies)) as url:
        async with LocalServer() as server, module.ClientSession(middlewares=(policies,)) as session:
            for path in ("/ok", "/ok", "/status?n=404", "/status?n=503"):
                async with session.get(server.url(path)) as resp:
                    await resp.read()
            found = Scrape(await asyncio.to_thread(fetch, url), PREFIX)
            key = server.url("").rstrip("/")
            assert found.labels() == {key}
            for outcome, count in policies.stats().attempts[key].items():
                assert found.get("attempts_total", origin=key, outcome=outcome.name.lower()) == count
            assert found.get("attempts_total", origin=key, outcome="overloaded") == 3
            assert found.get("retry_retries_total", origin=key) == 2
            assert found.get("bulkhead_passed_total", origin=key) == 6
            assert found.get("breaker_state", origin=key, state="closed") == 1
            assert {part.name for part in policies.parts} == {
                "retry", "budget", "hedge", "bulkhead", "breaker"
            }  # fmt: skip
            for part in policies.parts:
                assert_shows(found, part, key)
            text = await asyncio.to_thread(fetch, url, "application/openmetrics-text")
            assert f"{PREFIX}attempts" in {family.name for family in parse_openmetrics(text)}


async def test_a_policy_that_is_used_alone_is_shown() -> None:
    retry = Retry(total=1, backoff_factor=0.0)
    registry = registered(retry)
    async with LocalServer() as server, wirespeed.ClientSession(middlewares=(retry,)) as session:
        async with session.get(server.url("/status?n=503")) as resp:
            await resp.read()
        found = shown(registry)
        assert_shows(found, retry, server.url("").rstrip("/"))
        assert found.sum("retry_retries_total") == 1


async def test_scrapes_on_a_thread_while_requests_run() -> None:
    policies = every_policy()
    registry = registered(policies)
    async with LocalServer() as server, wirespeed.ClientSession(middlewares=(policies,)) as session:
        requests, seen = await while_requests_run(
            session, server.url("/ok"), lambda: shown(registry).sum("attempts_total")
        )
        assert seen == sorted(seen)
        assert shown(registry).sum("attempts_total") == requests


def test_scrapes_on_threads_while_keys_come_and_go() -> None:
    """Nothing fails, no counter falls, and what keys had counted that are forgotten meanwhile is not lost."""
    hedge, budget = Hedge(delay=1.0, max_keys=40), RetryBudget(max_keys=40)
    registries = [registered(hedge, budget, max_origins=bound) for bound in (10, 0)]
    done = threading.Event()

    def scraping(registry: CollectorRegistry, found: list[Scrape]) -> None:
        while not done.is_set():
            found.append(shown(registry))

    total = 0

    def meet_origins() -> None:
        nonlocal total
        for _ in range(500):
            total += 1
            key, now = f"https://{total // 3}.example", float(total)
            hedge.delay(key, "GET", now)
            budget.deposit(key, now)

    scrapes: list[list[Scrape]] = [[], []]
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(scraping, *each) for each in zip(registries, scrapes, strict=True)]
        try:
            while min(map(len, scrapes)) < 20 or total < 10_000:
                meet_origins()
                assert not any(thread.done() for thread in running)
        finally:
            done.set()
        for thread in running:
            thread.result()
    for found in scrapes:
        for before, after in itertools.pairwise(found):
            for (name, labels), value in before.samples.items():
                if name.endswith("_total"):
                    assert after.samples.get((name, labels), value) >= value, (name, labels)
    meet_origins()
    assert hedge.stats().forgotten["eligible"] > 0
    assert shown(registries[1]).get("hedge_eligible_total", origin=OTHER) == total
