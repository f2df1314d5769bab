"""Whether a request that failed is to be sent again, and when."""

import email.utils
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.policy import Observation, Outcome, Refusal, Retry
from wirespeed.policy.classify import Classifier
from wirespeed.policy.retry import IDEMPOTENT_METHODS, RETRY_AFTER_STATUSES

from .conftest import FakeClock
from .simulated import Response

O = Outcome  # noqa: E741
AT = 50.0
WALL = 1_700_000_000.0
KEY = "http://a.example"

CONNECT = Observation(O.NOT_CONNECTED, 0.1, AT, error=OSError())
UNSENT = Observation(O.LOST_BEFORE_SENT, 0.1, AT, error=OSError())
LOST = Observation(O.LOST_AFTER_SENT, 0.1, AT, error=OSError())
LATE = Observation(O.TIMED_OUT, 0.1, AT, error=TimeoutError())


def answer(status: int, **headers: str) -> Observation:
    resp = Response(status, **headers)
    return Observation(Classifier().of_response(resp), 0.1, AT, status, resp)


def error(outcome: Outcome) -> Observation:
    return Observation(outcome, 0.1, AT, error=RuntimeError())


def retry(total: int | None = 3, *, random: float = 0.5, **options: Any) -> Retry:
    return Retry(total, random=lambda: random, wall=lambda: WALL, **options)


def refusal(retry: Retry, seen: Observation, method: str = "GET") -> Refusal | None:
    state = retry.begin()
    delay = state.next(method, seen)
    assert (delay is None) == (state.refusal is not None)
    return state.refusal


def retries(retry: Retry, kinds: str, method: str = "GET") -> int:
    """How often a request is sent again that fails as told: c(onnect), r(ead) or s(tatus)."""
    state = retry.begin()
    seen = {"c": CONNECT, "r": LATE, "s": answer(503)}
    for number, kind in enumerate(kinds):
        if state.next(method, seen[kind]) is None:
            assert state.refusal in (Refusal.EXHAUSTED, Refusal.METHOD)
            return number
        assert state.refusal is None
    return len(kinds)


# How often

KINDS = ("c" * 12, "r" * 12, "s" * 12, "crs" * 4, "ccrrccrrss", "sr" * 4, "scccc")
# What urllib3 2.8 makes of these, with its own exceptions and the same limits.
LIMITS: list[tuple[dict[str, int | None], tuple[int, ...]]] = [
    ({"total": 3}, (3, 3, 3, 3, 3, 3, 3)),
    ({"total": 0}, (0, 0, 0, 0, 0, 0, 0)),
    ({"total": 10, "connect": 1}, (1, 10, 10, 3, 1, 8, 2)),
    ({"total": 10, "read": 1}, (10, 1, 10, 4, 3, 3, 5)),
    ({"total": 10, "status": 1}, (10, 10, 1, 5, 9, 2, 5)),
    ({"total": 2, "connect": 5}, (2, 2, 2, 2, 2, 2, 2)),
    ({"total": None, "connect": 1, "read": 2, "status": 3}, (1, 2, 3, 3, 1, 5, 2)),
    ({"total": 10, "connect": 0, "read": 0}, (0, 0, 10, 0, 0, 1, 1)),
    ({"total": 10, "read": 0}, (10, 0, 10, 1, 2, 1, 5)),
    ({"total": 5, "connect": 2, "read": 1, "status": 0}, (2, 1, 0, 2, 3, 0, 0)),
]


@pytest.mark.parametrize(("limits", "expected"), LIMITS, ids=str)
def test_limits_hold_as_those_of_urllib3(limits: dict[str, int | None], expected: tuple[int, ...]) -> None:
    assert tuple(retries(retry(**limits), kinds) for kinds in KINDS) == expected


@pytest.mark.parametrize(("kinds", "expected"), [("ccc", 3), ("r", 0), ("s", 0), ("cr", 1)])
def test_methods_that_are_not_allowed_are_repeated_as_those_of_urllib3(kinds: str, expected: int) -> None:
    assert retries(retry(10), kinds, "POST") == expected


limits = st.none() | st.integers(0, 5)


@given(st.integers(0, 6), limits, limits, limits, st.text("crs", max_size=12))
def test_no_limit_is_ever_passed_and_none_ends_early(
    total: int, connect: int | None, read: int | None, status: int | None, kinds: str
) -> None:
    made = retries(retry(total, connect=connect, read=read, status=status), kinds)
    bounds = {"c": connect, "r": read, "s": status}

    def is_within(kinds: str) -> bool:
        return len(kinds) <= total and all(
            bound is None or kinds.count(kind) <= bound for kind, bound in bounds.items()
        )

    assert is_within(kinds[:made])
    assert made == len(kinds) or not is_within(kinds[: made + 1])


def test_each_request_has_attempts_of_its_own() -> None:
    policy = retry(1)
    first, second = policy.begin(), policy.begin()
    assert first.next("GET", CONNECT) is not None
    assert first.next("GET", CONNECT) is None
    assert second.next("GET", CONNECT) is not None
    assert (first.number, second.number) == (1, 1)


# What

FINAL = {O.SUCCESS, O.CLIENT_FAULT, O.CANCELLED, O.LOCAL}
UNSENT_OUTCOMES = {O.NOT_CONNECTED, O.LOST_BEFORE_SENT}


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_errors_of_every_outcome(outcome: Outcome, method: str) -> None:
    expected = None
    if outcome in FINAL:
        expected = Refusal.FINAL
    elif outcome not in UNSENT_OUTCOMES and method == "POST":
        expected = Refusal.METHOD
    assert refusal(retry(), error(outcome), method) is expected


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - FINAL))
def test_errors_count_as_connect_where_nothing_was_sent_and_as_read_else(outcome: Outcome) -> None:
    is_unsent = outcome in UNSENT_OUTCOMES
    assert refusal(retry(connect=0), error(outcome)) is (Refusal.EXHAUSTED if is_unsent else None)
    assert refusal(retry(read=0), error(outcome)) is (None if is_unsent else Refusal.EXHAUSTED)
    assert refusal(retry(status=0), error(outcome)) is None


def test_answers_that_are_repeated_unless_told_otherwise() -> None:
    policy = retry(connect=0, read=0)
    repeated = {status for status in range(100, 600) if refusal(policy, answer(status)) is None}
    assert repeated == {429, 502, 503, 504}


@pytest.mark.parametrize("outcome", Outcome)
def test_answers_of_every_outcome(outcome: Outcome) -> None:
    """What a classifier takes for throttled or overloaded is repeated, whatever its status."""
    seen = Observation(outcome, 0.1, AT, 299, Response(299))
    is_repeated = outcome in (O.THROTTLED, O.OVERLOADED, O.TIMED_OUT)
    assert refusal(retry(), seen) is (None if is_repeated else Refusal.FINAL)
    assert refusal(retry(status_forcelist=[299]), seen) is None
    assert refusal(retry(status_forcelist=[298]), seen) is Refusal.FINAL


def test_a_list_of_statuses_is_all_that_is_repeated() -> None:
    policy = retry(status_forcelist=[500, 404])
    repeated = {status for status in range(100, 600) if refusal(policy, answer(status)) is None}
    assert repeated == {404, 500}


def test_answers_that_say_when_to_come_again_are_repeated_whatever_the_list() -> None:
    for policy in (retry(), retry(status_forcelist=[])):
        repeated = {
            status
            for status in range(100, 600)
            if refusal(policy, answer(status, Retry_After="1")) is None and status not in (502, 504)
        }
        assert repeated == RETRY_AFTER_STATUSES == {413, 429, 503}
    deaf = retry(status_forcelist=[], respect_retry_after_header=False)
    assert refusal(deaf, answer(503, Retry_After="1")) is Refusal.FINAL
    assert refusal(retry(status_forcelist=[]), answer(503, Retry_After="soon")) is Refusal.FINAL
    assert refusal(retry(status_forcelist=[]), answer(503)) is Refusal.FINAL


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
def test_idempotent_methods_are_repeated(method: str) -> None:
    assert refusal(retry(), LOST, method) is None
    assert refusal(retry(), answer(503), method) is None


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "PURGE", "get"])
def test_other_methods_are_not(method: str) -> None:
    assert refusal(retry(), LOST, method) is Refusal.METHOD
    assert refusal(retry(), LATE, method) is Refusal.METHOD
    assert refusal(retry(), answer(503), method) is Refusal.METHOD
    assert refusal(retry(), answer(429, Retry_After="1"), method) is Refusal.METHOD


def test_an_answer_that_is_final_is_so_whatever_the_method() -> None:
    assert refusal(retry(), answer(404), "POST") is Refusal.FINAL


def test_all_methods_may_be_allowed_or_some() -> None:
    assert refusal(retry(allowed_methods=None), LOST, "POST") is None
    assert refusal(retry(allowed_methods=["post"]), LOST, "POST") is None
    assert refusal(retry(allowed_methods=["post"]), LOST, "GET") is Refusal.METHOD
    assert refusal(retry(allowed_methods=[]), LOST, "GET") is Refusal.METHOD
    assert refusal(retry(allowed_methods=[]), UNSENT, "POST") is None
    assert retry().allowed_methods == IDEMPOTENT_METHODS


# When


def delays(retry: Retry, seen: Observation, number: int) -> list[float]:
    return [retry.delay(n, seen) for n in range(1, number + 1)]


def test_delays_double_up_to_their_bound() -> None:
    policy = retry(random=1.0, backoff_factor=0.5, backoff_max=3)
    assert delays(policy, CONNECT, 5) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_delays_are_jittered_in_full() -> None:
    assert delays(retry(random=0.0, backoff_factor=0.5), CONNECT, 3) == [0.0, 0.0, 0.0]
    assert delays(retry(random=0.25, backoff_factor=0.5), CONNECT, 3) == [0.125, 0.25, 0.5]


def test_jitter_is_drawn_for_itself_and_under_the_bound() -> None:
    drawn = iter([0.5, 0.1])
    policy = Retry(random=lambda: next(drawn), backoff_factor=2, backoff_jitter=10)
    assert policy.delay(1, CONNECT) == pytest.approx(2 * 0.5 + 10 * 0.1)
    assert retry(random=0.9, backoff_jitter=100, backoff_max=5).delay(1, CONNECT) == 5


def test_no_factor_is_no_delay() -> None:
    assert delays(retry(random=0.9, backoff_factor=0), CONNECT, 2000)[-1] == 0


@pytest.mark.parametrize("number", [1000, 1024, 1025, 5000])
def test_numbers_beyond_floats_are_no_error(number: int) -> None:
    assert retry(random=1.0, backoff_max=30).delay(number, CONNECT) == 30


@pytest.mark.parametrize("seen", [LOST, UNSENT], ids=repr)
def test_the_first_retry_after_a_lost_connection_is_made_at_once(seen: Observation) -> None:
    policy = retry(random=1.0, backoff_factor=1, backoff_jitter=1)
    assert delays(policy, seen, 2) == [0.0, 3.0]


@pytest.mark.parametrize("seen", [CONNECT, LATE, answer(503), answer(502)], ids=repr)
def test_the_first_retry_after_anything_else_is_not(seen: Observation) -> None:
    assert retry(random=1.0, backoff_factor=1).delay(1, seen) == 1


DATE = email.utils.formatdate(WALL + 7, usegmt=True)
PAST = email.utils.formatdate(WALL - 7, usegmt=True)


@pytest.mark.parametrize(("field", "seconds"), [("7", 7.0), (DATE, 7.0), (PAST, 0.0), ("0", 0.0), ("?", 0.0)])
@pytest.mark.parametrize("status", sorted(RETRY_AFTER_STATUSES))
def test_what_the_server_asks_for_comes_on_top(status: int, field: str, seconds: float) -> None:
    policy = retry(random=1.0, backoff_factor=0.5, backoff_max=1)
    assert policy.delay(1, answer(status, Retry_After=field)) == pytest.approx(0.5 + seconds)


def test_what_the_server_asks_for_is_bounded() -> None:
    policy = retry(random=0.0, retry_after_max=120)
    assert policy.delay(1, answer(503, Retry_After="86400")) == 120
    assert retry(random=0.0, retry_after_max=0).delay(1, answer(503, Retry_After="5")) == 0


def test_what_the_server_asks_for_may_be_ignored() -> None:
    policy = retry(random=0.0, respect_retry_after_header=False)
    assert policy.delay(1, answer(503, Retry_After="5")) == 0


def test_other_answers_do_not_say_when() -> None:
    assert retry(random=0.0).delay(1, answer(502, Retry_After="5")) == 0


retry_afters = st.none() | st.integers(0, 10**6).map(str) | st.just(DATE) | st.text(max_size=5)


@given(
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0, 100),
    st.floats(0, 1000),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 3000),
    retry_afters,
)
def test_no_delay_leaves_its_bounds(
    factor: float,
    jitter: float,
    most: float,
    asked_most: float,
    random: float,
    number: int,
    asked: str | None,
) -> None:
    policy = retry(
        random=random,
        backoff_factor=factor,
        backoff_jitter=jitter,
        backoff_max=most,
        retry_after_max=asked_most,
    )
    seen = answer(503) if asked is None else answer(503, Retry_After=asked)
    bound = min(most, factor * 2.0 ** min(number - 1, 1000))
    # The bound is of the backoff and the jitter, together.
    bound = min(most, bound + jitter)
    delay = policy.delay(number, seen)
    assert 0 <= delay <= bound + (asked_most if asked is not None else 0)


@pytest.mark.parametrize(
    ("left", "expected"), [(0.49, None), (0.5, None), (0.51, 0.5), (-1.0, None), (math.inf, 0.5)]
)
def test_a_retry_that_would_begin_after_the_deadline_is_not_made(left: float, expected: float | None) -> None:
    state = retry(random=1.0, backoff_factor=0.5).begin()
    assert state.next("GET", CONNECT, AT + left) == expected
    assert state.refusal is (Refusal.DEADLINE if expected is None else None)


def test_the_deadline_is_asked_last() -> None:
    state = retry(0).begin()
    assert state.next("GET", CONNECT, AT) is None
    assert state.refusal is Refusal.EXHAUSTED


# Figures


def test_what_was_decided_is_counted_by_reason(clock: FakeClock) -> None:
    policy = Retry(clock=clock)
    for count, reason in enumerate([None, *Refusal]):
        for _ in range(count + 1):
            policy.note(KEY, reason)
    policy.note("http://b.example", Refusal.FINAL)
    figures = policy.stats().by_key
    assert set(figures) == {KEY}
    assert vars(figures[KEY]) == {
        "retries": 1, "method": 3, "exhausted": 4, "deadline": 5, "body": 6, "budget": 7
    }  # fmt: skip
    assert {metric.attribute for metric in policy.metrics} == set(vars(figures[KEY]))
    with pytest.raises(TypeError):
        figures[KEY] = figures[KEY]  # type: ignore[index]


def test_figures_are_bounded_and_not_lost() -> None:
    policy = Retry(clock=lambda: pytest.fail("asked"), max_keys=2)
    for number in range(10):
        policy.note(number, None, now=1.0)
    assert len(policy.stats().by_key) <= 2
    kept = sum(figures.retries for figures in policy.stats().by_key.values())
    assert kept + policy._tallies.forgotten["retries"] == 10


# Parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total": -1}, "total must not be negative, got -1"),
        ({"connect": -1}, "connect must not be negative, got -1"),
        ({"read": -1}, "read must not be negative, got -1"),
        ({"status": -1}, "status must not be negative, got -1"),
        ({"backoff_factor": -0.1}, "backoff_factor must not be negative, got -0.1"),
        ({"backoff_factor": math.nan}, "backoff_factor must not be negative, got nan"),
        ({"backoff_jitter": -0.1}, "backoff_jitter must not be negative, got -0.1"),
        ({"backoff_max": -0.1}, "backoff_max must not be negative, got -0.1"),
        ({"retry_after_max": math.nan}, "retry_after_max must not be negative, got nan"),
        ({"max_keys": 0}, "max_keys must be positive, got 0"),
        ({"total": None}, "Without total, each of connect, read and status must be a number"),
        ({"total": None, "connect": 1, "read": 1}, "Without total"),
        ({"total": None, "connect": 1, "status": 1}, "Without total"),
        ({"total": None, "read": 1, "status": 1}, "Without total"),
        ({"allowed_methods": "GET"}, "allowed_methods must be a collection of methods, got 'GET'"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retry(**options)


def test_parameters_may_be_read_again() -> None:
    policy = Retry(
        5, connect=1, read=2, status=3, allowed_methods=["get"], status_forcelist=[500], backoff_factor=0.1,
        backoff_jitter=0.2, backoff_max=9, respect_retry_after_header=False, retry_after_max=8,
    )  # fmt: skip
    assert (policy.total, policy.connect, policy.read, policy.status) == (5, 1, 2, 3)
    assert (policy.allowed_methods, policy.status_forcelist) == ({"GET"}, {500})
    assert (policy.backoff_factor, policy.backoff_jitter, policy.backoff_max) == (0.1, 0.2, 9)
    assert (policy.respect_retry_after_header, policy.retry_after_max) == (False, 8)
