"""One attempt's way through the gates."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from wirespeed.policy import QUEUED, Observation, Outcome, Passage, PolicyError, overall, per_origin
from wirespeed.policy import passage as passages

from .simulated import ScriptedGate

SEEN = Observation(Outcome.SUCCESS, 0.1, 5.0, 200)


def asked(url: str, method: str = "GET") -> SimpleNamespace:
    return SimpleNamespace(url=URL(url), method=method, headers={"X-Tenant": "t"})


REQUEST = asked("http://a.example/path")


def chain(*names: str) -> tuple[list[tuple[str, str, object]], list[ScriptedGate]]:
    log: list[tuple[str, str, object]] = []
    return log, [ScriptedGate(name, log) for name in names]


# Keys


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://a.example/path?q=1#f", "http://a.example"),
        ("http://a.example:80/", "http://a.example"),
        ("https://a.example/", "https://a.example"),
        ("https://a.example:8443/x", "https://a.example:8443"),
        ("http://me:secret@a.example/", "http://a.example"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_requests_are_kept_apart_by_origin(url: str, key: str) -> None:
    for _ in range(2):
        assert per_origin(asked(url)) == key


def test_names_of_origins_are_bounded() -> None:
    for number in range(3 * passages._NAMES_MAX):
        assert per_origin(asked(f"http://{number}.example/")) == f"http://{number}.example"
        assert len(passages._names) <= passages._NAMES_MAX


def test_one_key_for_all() -> None:
    assert overall(REQUEST) == overall(asked("https://b.example/"))


# The gates


def test_gates_are_passed_in_order_with_one_time_and_one_key() -> None:
    log, gates = chain("bulkhead", "rate", "breaker")
    passage = Passage(gates, REQUEST, "key")
    assert passage.advance(7.0) is None
    assert log == [(name, "acquire", ("key", 1.0, 7.0)) for name in ("bulkhead", "rate", "breaker")]


def test_a_gate_may_have_a_key_and_a_weight_of_its_own() -> None:
    log, (first, second) = chain("bulkhead", "rate")
    first.key_of = lambda request: request.headers["X-Tenant"]
    second.weight_of = lambda request: 3.0
    passage = Passage((first, second), REQUEST, "key")
    passage.advance(7.0)
    passage.look(first, 8.0)
    passage.look(second, 9.0)
    assert log == [
        ("bulkhead", "acquire", ("t", 1.0, 7.0)),
        ("rate", "acquire", ("key", 3.0, 7.0)),
        ("bulkhead", "look", ("t", 8.0)),
        ("rate", "look", ("key", 9.0)),
    ]


def test_a_permit_that_is_to_be_waited_for_holds_up_the_gates_behind_it() -> None:
    log, gates = chain("bulkhead", "rate", "breaker")
    gates[1].waits = 2.0
    passage = Passage(gates, REQUEST, "key")
    permit = passage.advance(7.0)
    assert permit is gates[1].held[0]
    assert permit.ready_at == 9.0
    assert [name for name, _, _ in log] == ["bulkhead", "rate"]
    assert passage.advance(9.5) is None
    assert log[2:] == [("breaker", "acquire", ("key", 1.0, 9.5))]
    assert passage.advance(10.0) is None
    assert len(log) == 3


def test_a_permit_that_holds_now_is_not_waited_for() -> None:
    _, gates = chain("bulkhead", "rate")
    gates[0].waits = 0.0
    assert Passage(gates, REQUEST, "key").advance(7.0) is None


def test_gates_are_given_the_passage_to_wake() -> None:
    woken = []

    class Woken(Passage):
        def wake(self, permit: object) -> None:
            woken.append(permit)

    _, gates = chain("bulkhead")
    gates[0].waits = QUEUED
    permit = Woken(gates, REQUEST, "key").advance(7.0)
    gates[0].grant(0, 8.0)
    assert woken == [permit]
    _, gates = chain("bulkhead")
    gates[0].waits = QUEUED
    Passage(gates, REQUEST, "key").advance(7.0)
    gates[0].grant(0, 8.0)  # nobody waits: no harm


def test_what_was_granted_before_a_refusal_is_kept_until_released() -> None:
    log, gates = chain("bulkhead", "rate", "breaker")
    gates[1].failures["acquire"] = PolicyError()
    passage = Passage(gates, REQUEST, "key")
    with pytest.raises(PolicyError):
        passage.advance(7.0)
    assert [len(gate.held) for gate in gates] == [1, 0, 0]
    passage.release(8.0)
    assert [len(gate.held) for gate in gates] == [0, 0, 0]
    assert [(name, call) for name, call, _ in log] == [
        ("bulkhead", "acquire"),
        ("rate", "acquire"),
        ("bulkhead", "release"),
    ]


def test_what_was_seen_is_told_to_all_once() -> None:
    log, gates = chain("bulkhead", "rate")
    passage = Passage(gates, REQUEST, "key")
    assert passage.seen is None
    passage.advance(7.0)
    passage.observe(SEEN)
    assert passage.seen is SEEN
    assert log[2:] == [("bulkhead", "observe", SEEN), ("rate", "observe", SEEN)]


def test_released_is_released() -> None:
    log, gates = chain("bulkhead", "rate")
    passage = Passage(gates, REQUEST, "key")
    passage.advance(7.0)
    passage.release(8.0)
    passage.release(9.0)
    assert log[2:] == [("bulkhead", "release", 8.0), ("rate", "release", 8.0)]


@given(st.sets(st.integers(0, 3)))
def test_gates_that_raise_keep_nothing_of_the_others_occupied(raising: set[int]) -> None:
    """A bulkhead's release wakes others, and raises what their wakers raise."""
    log, gates = chain("a", "b", "c", "d")
    passage = Passage(gates, REQUEST, "key")
    passage.advance(7.0)
    for number in raising:
        gates[number].failures["release"] = RuntimeError(str(number))
    if raising:
        with pytest.raises(RuntimeError):
            passage.release(8.0)
    else:
        passage.release(8.0)
    assert [gate.held for gate in gates] == [[], [], [], []]
    assert [name for name, call, _ in log if call == "release"] == ["a", "b", "c", "d"]
    passage.release(9.0)
    assert len(log) == 8
