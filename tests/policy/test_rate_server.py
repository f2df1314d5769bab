"""The rate limit when it listens to the server: pauses, quotas, and values that nobody should believe."""

import email.utils
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from wirespeed.policy.errors import RateExceeded
from wirespeed.policy.outcome import Observation, Outcome
from wirespeed.policy.rate import FixedWindow, LeakyBucket, RateLimit, RatePermit, SlidingWindow, TokenBucket

WALL = 1_750_000_000.0
OUTCOMES = {
    429: Outcome.THROTTLED,
    503: Outcome.OVERLOADED,
    500: Outcome.SERVER_FAULT,
    403: Outcome.CLIENT_FAULT,
}


def seen(at: float, status: int = 200, **fields: str) -> Observation:
    headers = CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()})
    return Observation(OUTCOMES.get(status, Outcome.SUCCESS), 0.01, at, status, headers)


def structured(remaining: float, reset: float) -> dict[str, str]:
    return {"RateLimit": f'"default";r={remaining:.0f};t={reset:.0f}'}


def following(limit=None, **kw) -> RateLimit:
    return RateLimit(limit, follow_server=True, wall=lambda: WALL, **kw)


def hear(gate: RateLimit, at: float, status: int = 200, **fields: str) -> None:
    """One attempt goes at once, and is answered at once."""
    permit = gate.acquire("k", now=at)
    permit.observe(seen(at, status, **fields))
    permit.release(at)


def ready_at(gate: RateLimit, now: float, weight: float = 1.0) -> float:
    return gate.acquire("k", weight=weight, now=now).ready_at


# Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_stops_the_key(status):
    gate = following()
    hear(gate, 100.0, status, retry_after="30")
    assert ready_at(gate, 100.5) == 130.0
    assert ready_at(gate, 130.5) == 130.5
    assert gate.acquire("other", now=100.5).ready_at == 100.5
    assert gate.stats().by_key["k"].server_pauses == 1


def test_retry_after_may_be_a_date():
    gate = following()
    hear(gate, 100.0, 429, retry_after=email.utils.formatdate(WALL + 20, usegmt=True))
    assert ready_at(gate, 100.5) == 120.0


@pytest.mark.parametrize("status", [200, 301, 403, 500])
def test_retry_after_of_other_responses_is_not_read(status):
    gate = following()
    hear(gate, 100.0, status, retry_after="30")
    assert ready_at(gate, 100.5) == 100.5


def test_server_is_not_listened_to_unless_told():
    gate = RateLimit(None)
    hear(gate, 100.0, 429, retry_after="30", **structured(0, 30))
    assert ready_at(gate, 100.5) == 100.5


def test_shorter_pause_does_not_end_a_longer_one():
    gate = following()
    first, second = gate.acquire("k", now=100.0), gate.acquire("k", now=100.0)
    first.observe(seen(100.0, 429, retry_after="30"))
    second.observe(seen(101.0, 429, retry_after="3"))
    assert ready_at(gate, 102.0) == 130.0
    assert gate.stats().by_key["k"].server_pauses == 1


@pytest.mark.parametrize("max_pause", [5.0, 300.0])
def test_long_pauses_are_capped(max_pause):
    gate = following(max_pause=max_pause)
    hear(gate, 100.0, 429, retry_after="9" * 15)
    assert ready_at(gate, 100.0) == 100.0 + max_pause


@pytest.mark.parametrize(
    "value", ["0", "-5", "nan", "1e3", "٣", "x" * 10_000, "9" * 5000, "Sun, 06 Nov 1994 08:49:37 GMT", ""]
)
def test_broken_pauses_are_ignored(value):
    gate = following()
    hear(gate, 100.0, 429, retry_after=value)
    assert ready_at(gate, 100.5) == 100.5
    assert gate.stats().by_key["k"].server_pauses == 0


def test_those_that_wait_are_held_back_in_order_and_at_the_rate():
    gate = following(10)
    first = gate.acquire("k", now=100.0)
    waiting = [gate.acquire("k", now=100.0) for _ in range(5)]
    first.observe(seen(100.05, 429, retry_after="30"))
    assert [permit.ready_at for permit in waiting] == pytest.approx([130.05, 130.15, 130.25, 130.35, 130.45])
    assert ready_at(gate, 100.06) == pytest.approx(130.55)
    assert gate.stats().by_key["k"].waited_seconds == pytest.approx(
        sum(n * 0.1 for n in range(1, 6)) + 5 * 29.95 + 30.49, abs=0.01
    )


def test_those_whose_instant_has_come_count_as_sent():
    gate = following(10)
    first, second = gate.acquire("k", now=100.0), gate.acquire("k", now=100.0)
    first.observe(seen(100.2, 429, retry_after="30"))
    assert second.ready_at == pytest.approx(100.1)


def test_those_given_up_leave_their_place_when_the_others_are_moved():
    gate = following(10)
    first = gate.acquire("k", now=100.0)
    waiting = [gate.acquire("k", now=100.0) for _ in range(4)]
    waiting[1].release(100.0)
    first.observe(seen(100.0, 429, retry_after="30", **structured(9, 60)))
    gate.clock = lambda: 100.0
    assert gate.stats().by_key["k"].server_remaining == 6.0
    assert [waiting[n].ready_at for n in (0, 2, 3)] == pytest.approx([130.0, 130.1, 130.2])
    waiting[3].release(101.0)
    assert ready_at(gate, 101.0) == pytest.approx(130.2)


def test_longer_pause_moves_those_that_wait_again_and_gives_way_a_little():
    gate = following(10)
    under_way = [gate.acquire("k", now=100.0 - n) for n in range(9, -1, -1)]
    waiting = gate.acquire("k", now=100.0)
    moves = set()
    for n, permit in enumerate(under_way):
        permit.observe(seen(100.01 + n * 0.01, 429, retry_after="30"))
        moves.add(waiting.ready_at)
        assert waiting.ready_at >= 130.01 + n * 0.01
    assert len(moves) == 2
    assert max(moves) <= 130.6


def test_pause_longer_than_max_delay_refuses():
    gate = following(10, max_delay=5)
    hear(gate, 100.0, 429, retry_after="30")
    with pytest.raises(RateExceeded, match=r"would wait 29\.500 s"):
        gate.acquire("k", now=100.5)
    with pytest.raises(RateExceeded):
        gate.look("k", 100.5)
    assert ready_at(gate, 126.0) == 130.0


# Quotas


def test_nothing_goes_before_the_reset_where_nothing_remains():
    gate = following()
    hear(gate, 100.0, **structured(0, 30))
    assert ready_at(gate, 100.5) == 130.0
    assert ready_at(gate, 130.5) == 130.5
    assert gate.stats().by_key["k"].server_pauses == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"RateLimit_Remaining": "2", "RateLimit_Reset": "30"},
        {"X_RateLimit_Remaining": "2", "X_RateLimit_Reset": f"{WALL + 30:.0f}"},
        {"RateLimit": "limit=100, remaining=2, reset=30"},
        structured(2, 30),
    ],
)
def test_no_more_go_before_the_reset_than_remain(fields):
    gate = following()
    hear(gate, 100.0, **fields)
    assert [ready_at(gate, 101.0) for _ in range(4)] == [101.0, 101.0, 130.0, 130.0]


def test_weights_count_against_the_quota_and_nobody_overtakes():
    gate = following()
    hear(gate, 100.0, **structured(5, 30))
    assert [ready_at(gate, 101.0, weight) for weight in (3.0, 4.0, 1.0)] == [101.0, 130.0, 130.0]


def test_those_that_wait_are_held_back_where_too_few_remain():
    gate = following(10)
    first = gate.acquire("k", now=100.0)
    waiting = [gate.acquire("k", now=100.0) for _ in range(5)]
    first.observe(seen(100.0, **structured(2, 30)))
    assert [permit.ready_at for permit in waiting] == pytest.approx([100.1, 100.2, 130.0, 130.1, 130.2])
    assert ready_at(gate, 100.0) == pytest.approx(130.3)


def test_those_given_up_take_nothing_of_what_remains():
    gate = following(10)
    first = gate.acquire("k", now=100.0)
    waiting = [gate.acquire("k", now=100.0) for _ in range(4)]
    waiting[2].release(100.0)
    first.observe(seen(100.0, **structured(1, 30)))
    assert [waiting[n].ready_at for n in (0, 1, 3)] == pytest.approx([100.1, 130.0, 130.1])


def test_those_given_up_behind_the_reset_are_not_counted():
    gate = following(1, clock=lambda: 100.0)
    permits = [gate.acquire("k", now=100.0) for _ in range(4)]
    permits[2].release(100.0)
    permits[0].observe(seen(100.0, **structured(1, 1)))
    assert gate.stats().by_key["k"].server_remaining == 1.0


def test_what_is_under_way_counts_until_it_is_answered():
    gate = following()
    permits = [gate.acquire("k", now=100.0) for _ in range(4)]
    permits[0].observe(seen(100.0, **structured(4, 30)))
    later = [gate.acquire("k", now=100.1) for _ in range(2)]
    assert [permit.ready_at for permit in later] == [100.1, 130.0]


def test_answers_out_of_order_do_not_raise_the_quota():
    gate = following()
    permits = [gate.acquire("k", now=100.0) for _ in range(2)]
    permits[0].observe(seen(100.0, **structured(1, 30)))
    permits[1].observe(seen(100.3, **structured(9, 29)))
    assert [ready_at(gate, 101.0) for _ in range(2)] == [101.0, 130.0]


def test_another_window_brings_another_quota():
    gate = following()
    hear(gate, 100.0, **structured(0, 10))
    hear(gate, 110.0, **structured(2, 10))
    assert [ready_at(gate, 111.0) for _ in range(3)] == [111.0, 111.0, 120.0]


def test_quota_whose_window_slides_is_followed_upwards():
    gate = following()
    hear(gate, 100.0, **structured(1, 60))
    hear(gate, 110.0, **structured(20, 60))
    assert {ready_at(gate, 111.0) for _ in range(20)} == {111.0}
    assert ready_at(gate, 111.0) == 170.0


def test_quota_nearer_to_its_end_takes_the_place_of_one_of_a_longer_window():
    gate = following()
    hear(gate, 100.0, **structured(50, 250))
    hear(gate, 101.0, **structured(0, 10))
    assert ready_at(gate, 102.0) == 111.0


def test_windows_to_come_are_planned_by_the_policy():
    gate = following()
    hear(gate, 100.0, RateLimit='"a";r=1;t=10', RateLimit_Policy='"a";q=2;w=20')
    assert [ready_at(gate, 101.0) for _ in range(6)] == [101.0, 110.0, 110.0, 130.0, 130.0, 150.0]


def test_windows_to_come_are_forgotten_when_the_server_says_no_more():
    gate = following(max_pause=50)
    hear(gate, 100.0, RateLimit='"a";r=1;t=10', RateLimit_Policy='"a";q=1;w=20')
    assert [ready_at(gate, 200.0) for _ in range(3)] == [200.0] * 3


def test_reset_beyond_max_pause_is_asked_for_again():
    gate = following(max_pause=60)
    hear(gate, 100.0, **structured(0, 3600))
    assert [ready_at(gate, 101.0) for _ in range(2)] == [160.0, 220.0]


def test_planned_window_is_given_back_with_its_attempt():
    gate = following()
    hear(gate, 100.0, RateLimit='"a";r=0;t=10', RateLimit_Policy='"a";q=1;w=20')
    gate.acquire("k", now=101.0).release(101.0)
    assert [ready_at(gate, 101.0) for _ in range(2)] == [110.0, 130.0]


def planned(remaining: float, reset: float) -> dict[str, str]:
    return structured(remaining, reset) | {"RateLimit_Policy": '"default";q=1;w=20'}


def test_windows_that_have_passed_are_not_made_up_for():
    gate = following()
    hear(gate, 100.0, **planned(0, 10))
    assert [ready_at(gate, 195.0) for _ in range(3)] == [195.0, 210.0, 230.0]


def test_those_that_are_moved_are_planned_anew():
    gate = following()
    under_way = gate.acquire("k", now=100.0)
    hear(gate, 100.0, **planned(0, 10))
    waiting = [gate.acquire("k", now=100.0) for _ in range(3)]
    assert [permit.ready_at for permit in waiting] == [110.0, 130.0, 150.0]
    under_way.observe(seen(101.0, 429, retry_after="15"))
    assert [permit.ready_at for permit in waiting] == [116.0, 130.0, 150.0]


@pytest.mark.parametrize(("count", "expected"), [(2, 142.0), (3, 162.0)])
def test_those_that_stay_have_their_part_of_windows_that_are_planned_anew(count, expected):
    gate = following()
    under_way = gate.acquire("k", now=100.0)
    hear(gate, 100.0, **planned(0, 10))
    waiting = [gate.acquire("k", now=100.0) for _ in range(count)]
    under_way.observe(seen(102.0, **planned(1, 20)))
    assert [permit.ready_at for permit in waiting] == [110.0, 130.0, 150.0][:count]
    assert ready_at(gate, 103.0) == expected


def test_own_rate_holds_after_the_reset():
    gate = following(10)
    hear(gate, 100.0, **structured(0, 30))
    assert [ready_at(gate, 100.5) for _ in range(3)] == pytest.approx([130.0, 130.1, 130.2])


@pytest.mark.parametrize(
    "fields",
    [
        structured(0, 0),
        structured(0, 0) | {"RateLimit_Policy": '"default";q=1;w=20'},
        {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": f"{WALL - 5:.0f}"},
        {"RateLimit": "x" * 10_000},
        {"RateLimit": '"a";r=0;t=nan'},
        {"RateLimit_Remaining": "0", "RateLimit_Reset": "-3"},
        {"RateLimit_Remaining": "0"},
    ],
)
def test_broken_quotas_are_ignored(fields):
    gate = following()
    hear(gate, 100.0, **fields)
    assert [ready_at(gate, 100.5) for _ in range(2)] == [100.5, 100.5]


def test_key_is_not_forgotten_while_the_server_stops_it():
    gate = following(max_keys=1)
    hear(gate, 100.0, 429, retry_after="30")
    gate.acquire("other", now=101.0)
    assert ready_at(gate, 101.0) == 130.0


@pytest.mark.parametrize("later", [101.0, 131.0])
def test_key_is_not_forgotten_while_its_quota_counts(later):
    gate = following(max_keys=1)
    hear(gate, 100.0, **planned(0, 30))
    gate.acquire("other", now=later)
    assert gate._keyed.find("k") is not None
    gate.acquire("one more", now=500.0)
    assert gate._keyed.find("k") is None


def test_key_is_not_forgotten_while_an_attempt_is_under_way():
    gate = following(max_keys=1)
    permit = gate.acquire("k", now=100.0)
    gate.acquire("other", now=101.0)
    permit.observe(seen(102.0, **structured(0, 30)))
    assert ready_at(gate, 103.0) == 132.0


def test_figures_of_the_server():
    gate = following(clock=lambda: 100.0)
    hear(gate, 100.0, 429, retry_after="30", **structured(7, 20))
    figures = gate.stats().by_key["k"]
    assert (figures.server_pauses, figures.paused_seconds, figures.server_remaining) == (1, 30.0, 7.0)


# Whatever the server says

fields = st.fixed_dictionaries(
    {},
    optional={
        "retry_after": st.one_of(st.text(max_size=8), st.integers(-5, 500).map(str)),
        "RateLimit": st.builds(
            lambda r, t: structured(r, t)["RateLimit"], st.integers(0, 30), st.integers(0, 400)
        ),
        "RateLimit_Policy": st.builds(
            lambda q, w: f'"default";q={q};w={w}', st.integers(0, 9), st.integers(0, 400)
        ),
        "X_RateLimit_Remaining": st.integers(-1, 9).map(str),
        "X_RateLimit_Reset": st.integers(-9, 99).map(lambda n: str(int(WALL) + n)),
    },
)
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.05, 1.0, 40.0]),
        st.sampled_from(["ask", "ask", "ask", "hear", "give up"]),
        fields,
    ),
    max_size=60,
)


@pytest.mark.parametrize(
    "limit", [None, TokenBucket(10, 3), LeakyBucket(10), FixedWindow(5, 0.5), SlidingWindow(5, 0.5)], ids=repr
)
@given(steps=steps, data=st.data())
def test_order_rate_and_accounts_hold_whatever_the_server_says(limit, steps, data):
    gate = following(limit)
    now = 1000.0
    open_: list[RatePermit] = []
    sent: list[float] = []
    stopped = -math.inf
    for gap, what, said in steps:
        now += gap
        if what == "ask":
            weight = data.draw(st.sampled_from([1.0, 0.5, 2.0]))
            open_.append(gate.acquire("k", weight=weight, now=now))
            assert open_[-1].ready_at >= max(now, min(stopped, now + 300))
        elif open_:
            permit = data.draw(st.sampled_from(open_))
            if what == "hear" and permit.ready_at <= now:
                open_.remove(permit)
                sent.append(permit.ready_at)
                permit.observe(seen(now, 429, **said))
                permit.release(now)
                stopped = max(stopped, gate._keyed.find("k").server.paused_until)
                assert all(other.ready_at <= now or other.ready_at >= stopped for other in open_)
            elif what == "give up":
                open_.remove(permit)
                permit.release(now)
        instants = [permit.ready_at for permit in open_]
        assert instants == sorted(instants)
        server = gate._keyed.find("k").server if gate.stats().by_key else None
        if server is not None:
            assert server.out == pytest.approx(sum(permit.weight for permit in open_))
            assert -1e-9 <= server.late <= server.out + 1e-9
    if isinstance(limit, SlidingWindow):
        instants = sorted([permit.ready_at for permit in open_] + sent)
        for first, last in zip(instants, instants[10:], strict=False):  # weights are 0.5 at least
            assert last - first >= 0.5 - 1e-6
    if isinstance(limit, LeakyBucket):
        instants = sorted([permit.ready_at for permit in open_] + sent)
        for first, last in itertools.pairwise(instants):
            assert last - first >= 0.05 - 1e-6
    for permit in open_:
        permit.release(now)
    if steps and gate.stats().by_key:
        assert gate._keyed.find("k").server.out == 0
