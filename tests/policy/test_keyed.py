"""The states of a policy's keys: bounded, and no figure is lost with them."""

import threading
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.policy.gates import Metric
from wirespeed.policy.keyed import Keyed

METRICS = (
    Metric("made", "made", "counter", "Made."),
    Metric("lost", "lost", "counter", "Lost."),
    Metric("level", "level", "gauge", "Level."),
)
LOOKS = 16


class State:
    def __init__(self, key: Hashable, now: float) -> None:
        self.key, self.made_at = key, now
        self.made = self.lost = 0
        self.level = 7
        self.idle_at = 0.0

    def is_idle(self, now: float) -> bool:
        return now >= self.idle_at


def keyed(max_keys: int) -> Keyed[State]:
    return Keyed(State, METRICS, max_keys)


def test_a_state_is_made_once_with_its_key_and_the_time() -> None:
    states = keyed(2)
    state = states.get("a", 5.0)
    assert (state.key, state.made_at) == ("a", 5.0)
    assert states.get("a", 6.0) is state
    assert states.find("a") is state
    assert len(states) == 1


def test_looking_makes_nothing() -> None:
    states = keyed(2)
    assert states.find("a") is None
    assert len(states) == 0


def test_items_are_a_copy() -> None:
    states = keyed(2)
    state = states.get("a", 0.0)
    items = states.items()
    states.get("b", 0.0)
    assert items == [("a", state)]


def test_the_oldest_are_forgotten_first_and_not_all_at_once() -> None:
    states = keyed(LOOKS + 4)
    for key in range(LOOKS + 4):
        states.get(key, 0.0)
    states.get("new", 0.0)
    assert [key for key, _ in states.items()] == [16, 17, 18, 19, "new"]


def test_nothing_is_forgotten_up_to_the_bound() -> None:
    states = keyed(3)
    for key in "abc":
        states.get(key, 0.0)
    states.get("a", 0.0)
    assert [key for key, _ in states.items()] == ["a", "b", "c"]
    assert states.forgotten == {"made": 0.0, "lost": 0.0}


def test_busy_states_are_kept_whatever_their_number_and_the_next_look_is_at_others() -> None:
    states = keyed(LOOKS + 2)
    busy = [states.get(key, 0.0) for key in range(LOOKS)]
    for state in busy:
        state.idle_at = 100.0
    states.get("idle", 0.0)
    states.get("idle too", 0.0)
    states.get("first", 0.0)
    assert len(states) == LOOKS + 3  # looked at the busy ones alone
    states.get("second", 0.0)
    assert [states.find(key) for key in range(LOOKS)] == busy
    assert [key for key, _ in states.items()][-1] == "second"
    assert (states.find("idle"), states.find("idle too")) == (None, None)
    assert len(states) == LOOKS + 2


def test_busy_states_that_come_to_rest_are_forgotten() -> None:
    states = keyed(2)
    for key in range(200):
        states.get(key, 0.0).idle_at = 50.0
    assert len(states) == 200
    for key in range(200, 220):
        states.get(key, 50.0)
    assert len(states) <= 2


def test_counters_of_what_is_forgotten_are_summed_and_gauges_are_not() -> None:
    states = keyed(1)
    for key, (made, lost) in enumerate([(3, 1), (4, 0), (5, 2)]):
        state = states.get(key, 0.0)
        state.made, state.lost = made, lost
    assert states.forgotten == {"made": 7.0, "lost": 1.0}


@pytest.mark.parametrize("max_keys", [0, -1])
def test_a_bound_that_is_none_is_refused(max_keys: int) -> None:
    with pytest.raises(ValueError, match=f"max_keys must be positive, got {max_keys}"):
        keyed(max_keys)


steps = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), st.integers(0, 40)), max_size=200)


@given(st.integers(1, 20), steps)
def test_no_total_falls_and_no_busy_state_is_lost(max_keys: int, steps: list[tuple[int, int, int]]) -> None:
    states = keyed(max_keys)
    total = 0
    busy: dict[int, State] = {}
    for now, (key, made, busy_for) in enumerate(steps):
        state = states.get(key, now)
        state.made += made
        total += made
        state.idle_at = max(state.idle_at, float(now + busy_for))
        busy[key] = state
        busy = {key: state for key, state in busy.items() if state.idle_at > now}
        assert all(states.find(key) is state for key, state in busy.items())
        assert states.forgotten["made"] + sum(state.made for _, state in states.items()) == total


@given(st.integers(1, 40), st.lists(st.integers(0, 1000), max_size=300))
def test_states_at_rest_never_pass_the_bound(max_keys: int, keys: list[int]) -> None:
    states = keyed(max_keys)
    for key in keys:
        states.get(key, 0.0)
        assert len(states) <= max_keys


@given(st.integers(1, 30), st.integers(0, 100))
def test_states_at_rest_make_way_beside_any_number_of_busy_ones(max_keys: int, busy: int) -> None:
    states = keyed(max_keys)
    for key in range(busy):
        states.get(key, 0.0).idle_at = 1e9
    for key in range(1000, 2000):
        states.get(key, 0.0)
        # Those that came while the looks went once around the busy ones.
        assert len(states) <= max(max_keys, busy) + busy // (LOOKS - 1) + 2


def test_items_may_be_asked_for_by_another_thread_meanwhile() -> None:
    states = keyed(50)
    ended = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while not ended.is_set():
                assert len(states.items()) <= 51
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(20_000):
        states.get(number, 0.0)
    ended.set()
    thread.join()
    assert failures == []


def test_a_state_that_is_kept_is_in_every_snapshot() -> None:
    """Other threads take theirs while old states are looked at."""
    states = keyed(3)
    missed = []

    class Watching(State):
        def is_idle(self, now: float) -> bool:
            missed.extend({"a", "b", "c"} - {key for key, _ in states.items()})
            return False

    states._make = Watching
    for key in "abcd":
        states.get(key, 0.0)
    assert missed == []
    assert len(states) == 4
