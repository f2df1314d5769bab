"""Policies composed: what passes which gates in which order, what is sent again, and what is given back."""

import asyncio
import threading
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientOSError,
    ServerDisconnectedError,
)
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.policy import (
    QUEUED,
    Classifier,
    Gate,
    Hedge,
    Observation,
    Outcome,
    Policies,
    PolicyError,
    Retry,
    RetryBudget,
    overall,
)
from wirespeed.policy.bulkhead import Bulkhead
from wirespeed.policy.keyed import MAX_KEYS

from .simulated import (
    KEY,
    ORDER,
    Response,
    ScriptedGate,
    Server,
    Time,
    ends,
    full,
    gates,
    lost,
    outcomes,
    policies,
    refused,
    request,
    retry,
    settle,
)

O = Outcome  # noqa: E741


@pytest.fixture
def clock() -> Time:
    return Time()


# The gates


async def test_gates_are_asked_in_their_order_by_one_clock(clock: Time) -> None:
    log, composed = full(clock)
    server = Server(200)
    resp: Any = await composed(request(), server)
    granted = (KEY, 1.0, clock.now)
    assert log[:7] == [
        # Whether there is a chance; the first one is asked for leave at once.
        *((name, "look", (KEY, clock.now)) for name in ORDER[1:]),
        *((name, "acquire", granted) for name in ORDER),
    ]
    assert [(name, call) for name, call, _ in log[7:]] == [(name, "observe") for name in ORDER]
    clock.advance(5)
    assert all(gate.held for gate in gates(composed))
    resp.release()
    assert log[11:] == [(name, "release", clock.now) for name in ORDER]
    assert not any(gate.held for gate in gates(composed))


async def test_the_order_is_not_that_of_the_arguments(clock: Time) -> None:
    log: list[tuple[str, str, Any]] = []
    parts = {name: ScriptedGate(name, log) for name in reversed(ORDER)}
    await policies(clock, **parts)(request(), Server(200))
    assert [name for name, call, _ in log if call == "acquire"] == list(ORDER)


async def test_a_gate_that_cannot_know_is_not_asked_beforehand(clock: Time) -> None:
    class Blind(ScriptedGate):
        look = Gate.look  # type: ignore[assignment]

    log: list[tuple[str, str, Any]] = []
    composed = policies(clock, bulkhead=Blind("bulkhead", log), rate=Blind("rate", log))
    await composed(request(), Server(200))
    assert [call for _, call, _ in log] == ["acquire", "acquire", "observe", "observe"]


async def test_what_was_seen_is_the_attempt_without_its_waiting(clock: Time) -> None:
    _, composed = full(clock)
    gates(composed)[2].waits = 3.0
    resp = Response(503, Retry_After="7")

    def answer(_: Any) -> Response:
        clock.advance(0.25)
        return resp

    await clock.one(composed(request(), Server(answer)))
    (seen,) = gates(composed)[0].arguments("observe")
    assert isinstance(seen, Observation)
    assert (seen.outcome, seen.latency, seen.at) == (O.OVERLOADED, 0.25, clock.now)
    assert (seen.status, seen.error, seen.headers["Retry-After"]) == (503, None, "7")
    assert gates(composed)[3].arguments("observe") == [seen]
    assert clock.slept == [3.0]


async def test_an_attempt_that_failed_is_seen_and_gives_all_back(clock: Time) -> None:
    _, composed = full(clock)
    failure = lost()

    def fail(_: Any) -> BaseException:
        clock.advance(0.5)
        return failure

    with pytest.raises(ServerDisconnectedError):
        await composed(request(), Server(fail))
    for gate in gates(composed):
        (seen,) = gate.arguments("observe")
        assert (seen.outcome, seen.latency, seen.at) == (O.LOST_AFTER_SENT, 0.5, clock.now)
        assert (seen.status, seen.error) == (None, failure)
        assert gate.released_at == [clock.now]
        assert gate.held == []


async def test_a_response_that_was_read_already_gives_all_back_at_once(clock: Time) -> None:
    _, composed = full(clock)
    await composed(request(), Server(Response(is_read=True)))
    assert [gate.held for gate in gates(composed)] == [[], [], [], []]


async def test_a_permit_is_waited_for_until_it_holds_and_longer_when_it_moves(clock: Time) -> None:
    log, composed = full(clock)
    rate = gates(composed)[2]
    rate.waits = 2.0
    server = Server(200)
    began = clock.now

    async def move() -> None:
        await settle()
        rate.held[0].ready_at += 5.0

    await clock.run(composed(request(), server), move())
    assert clock.slept == [2.0, 5.0]
    assert log[-5][2] == (KEY, 1.0, began + 7.0)
    assert len(server.requests) == 1


async def test_a_sleep_that_ends_early_is_gone_on_with(clock: Time) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds if len(slept) > 1 else seconds - 0.0001)

    composed = Policies(rate=ScriptedGate("rate"), clock=clock, sleep=sleep)
    gates(composed)[0].waits = 2.0
    await composed(request(), Server(200))
    assert slept == [2.0, 0.001]  # as short as timers are


async def test_a_queued_permit_is_waited_for_until_it_is_granted(clock: Time) -> None:
    log, composed = full(clock)
    bulkhead, adaptive, *_ = gates(composed)
    bulkhead.waits = adaptive.waits = QUEUED
    server = Server(200)
    task = asyncio.create_task(composed(request(), server))
    await settle()
    assert [name for name, call, _ in log if call == "acquire"] == ["bulkhead"]
    clock.advance(1)
    bulkhead.grant(0, clock.now)
    await settle()
    assert log[-1] == ("adaptive", "acquire", (KEY, 1.0, clock.now))
    bulkhead.held[0].wake(bulkhead.held[0])  # once too often
    await settle()
    assert not server.requests
    clock.advance(1)
    adaptive.grant(0, clock.now)
    await task
    assert (await task).status == 200
    assert clock.slept == []


async def test_a_permit_may_be_granted_before_anybody_waits(clock: Time) -> None:
    class Hasty(ScriptedGate):
        def acquire(self, *arguments: Any, **options: Any) -> Any:
            permit = super().acquire(*arguments, **options)
            self.grant(-1, clock.now)
            return permit

    composed = policies(clock, bulkhead=Hasty("bulkhead"))
    assert (await composed(request(), Server(200))).status == 200


async def test_a_permit_may_be_granted_for_later(clock: Time) -> None:
    composed = policies(clock, bulkhead=ScriptedGate("bulkhead"))
    gates(composed)[0].waits = QUEUED

    async def grant() -> None:
        await settle(5)
        gates(composed)[0].grant(0, clock.now + 3)

    await clock.run(composed(request(), Server(200)), grant())
    assert clock.slept == [3.0]


@pytest.mark.parametrize("waits", [QUEUED, 5.0])
async def test_an_attempt_that_is_given_up_in_the_queue_was_none(clock: Time, waits: float) -> None:
    """What it had reserved can be given back only where the gates are not told that it was made."""
    log, composed = full(clock)
    gates(composed)[2].waits = waits
    server = Server(200)
    task = asyncio.create_task(composed(request(), server))
    await settle()
    task.cancel()
    assert isinstance(await ends(task), asyncio.CancelledError)
    assert [gate.held for gate in gates(composed)] == [[], [], [], []]
    assert not [call for _, call, _ in log if call == "observe"]
    assert not server.requests
    assert outcomes(composed) == {O.CANCELLED: 1}


@pytest.mark.parametrize("refuser", range(4))
async def test_an_attempt_that_a_gate_refuses_was_none_for_the_others(clock: Time, refuser: int) -> None:
    log, composed = full(clock, retry=retry())
    gates(composed)[refuser].failures["acquire"] = PolicyError("no")
    server = Server(200)
    with pytest.raises(PolicyError, match="no") as raised:
        await composed(request(), server)
    assert raised.value.retry_history == ()  # type: ignore[attr-defined]
    assert not server.requests
    assert not [call for _, call, _ in log if call == "observe"]
    assert [gate.held for gate in gates(composed)] == [[], [], [], []]
    assert outcomes(composed) == {O.LOCAL: 1}


async def test_an_attempt_without_a_chance_waits_for_nothing(clock: Time) -> None:
    log, composed = full(clock)
    gates(composed)[0].waits = QUEUED
    gates(composed)[3].failures["look"] = PolicyError("open")
    with pytest.raises(PolicyError, match="open"):
        await composed(request(), Server(200))
    assert not [call for _, call, _ in log if call == "acquire"]
    assert outcomes(composed) == {O.LOCAL: 1}


async def test_a_request_that_is_cancelled_under_way_is_seen_and_gives_all_back(clock: Time) -> None:
    _, composed = full(clock)
    waiter = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(composed(request(), Server(lambda _: waiter)))
    await settle()
    clock.advance(2)
    task.cancel()
    assert isinstance(await ends(task), asyncio.CancelledError)
    (seen,) = gates(composed)[1].arguments("observe")
    assert (seen.outcome, seen.latency) == (O.CANCELLED, 2.0)
    assert [gate.held for gate in gates(composed)] == [[], [], [], []]


class Passed:
    """A total time that is over, as aiohttp's timer and the core's say it."""

    def __init__(self, attribute: str, is_over: bool = True) -> None:
        setattr(self, attribute, is_over)


@pytest.mark.parametrize("attribute", ["has_passed", "_cancelled"])
@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_request_that_its_total_time_cancels_has_timed_out_if_it_was_sent(
    clock: Time, attribute: str, is_sent: bool
) -> None:
    composed = policies(clock, rate=ScriptedGate("rate"))
    gates(composed)[0].waits = 0.0 if is_sent else QUEUED
    asked = request()
    asked._timer = Passed(attribute)  # type: ignore[assignment]
    waiter = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(composed(asked, Server(lambda _: waiter)))
    await settle()
    task.cancel()
    assert isinstance(await ends(task), asyncio.CancelledError)
    assert outcomes(composed) == {O.TIMED_OUT if is_sent else O.CANCELLED: 1}


async def test_a_total_time_that_is_not_over_does_not_matter(clock: Time) -> None:
    composed = policies(clock, rate=ScriptedGate("rate"))
    asked = request()
    asked._timer = Passed("has_passed", is_over=False)  # type: ignore[assignment]
    with pytest.raises(ServerDisconnectedError):
        await composed(asked, Server(lost()))
    assert outcomes(composed) == {O.LOST_AFTER_SENT: 1}


# What raises that must not


@pytest.mark.parametrize("call", ["acquire", "look", "observe", "release"])
@pytest.mark.parametrize("raising", range(4))
@pytest.mark.parametrize("answer", [200, None])
async def test_a_gate_that_raises_is_heard_and_nothing_stays_occupied(
    clock: Time, call: str, raising: int, answer: int | None
) -> None:
    _, composed = full(clock, retry=retry(0))
    gates(composed)[raising].failures[call] = ZeroDivisionError()
    resp = Response(200, is_read=call == "release")
    server = Server(resp if answer else lost())
    if (call, raising) == ("look", 0):
        return  # the first one is not asked
    with pytest.raises(ZeroDivisionError):
        await composed(request(), server)
    assert [gate.held for gate in gates(composed)] == [[], [], [], []]
    if call == "observe" and answer:
        assert resp.ends == ["closed"]


@pytest.mark.parametrize("raising", ["of_response", "of_error", "both"])
async def test_a_classifier_that_raises_is_heard_and_nothing_stays_occupied(
    clock: Time, raising: str
) -> None:
    class Broken(Classifier):
        def of_response(self, resp: Any) -> Outcome:
            if raising != "of_error":
                raise ZeroDivisionError("response")
            return super().of_response(resp)

        def of_error(self, exc: BaseException) -> Outcome:
            if raising != "of_response":
                raise ZeroDivisionError("error")
            return super().of_error(exc)

    for parts in ({}, {"retry": retry()}, {"retry": retry(), "hedge": Hedge(delay=10)}):
        _, composed = full(clock, classifier=Broken(), **parts)
        resp = Response()
        answer = lost() if raising == "of_error" else resp
        with pytest.raises(ZeroDivisionError, match="response" if raising == "of_response" else "error"):
            await composed(request(), Server(answer))
        assert resp.ends == ([] if raising == "of_error" else ["closed"])
        assert [gate.held for gate in gates(composed)] == [[], [], [], []]


@pytest.mark.parametrize("what", ["is_retryable", "next", "withdraw", "note"])
async def test_a_policy_that_raises_leaves_no_response_open(clock: Time, what: str) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError

    part, budget = retry(), RetryBudget(clock=clock)
    if what == "next":
        part.delay = broken  # type: ignore[method-assign]
    else:
        setattr(budget if what == "withdraw" else part, what, broken)
    composed = policies(clock, retry=part, budget=budget, rate=ScriptedGate("rate"))
    server = Server(503)
    with pytest.raises(ZeroDivisionError):
        await composed(request(), server)
    assert server.responses[0].ends == ["closed"]
    assert gates(composed)[0].held == []


# Keys


async def test_requests_are_apart_by_origin_or_by_the_key_that_is_given(clock: Time) -> None:
    for key, expected in (({}, {KEY, "http://b.example"}), ({"key": overall}, {"all"})):
        composed = policies(clock, retry=retry(), rate=ScriptedGate("rate"), **key)
        for host in "ab":
            await clock.one(composed(request(url=f"http://{host}.example/x"), Server(503, 200)))
        stats = composed.stats()
        assert set(stats.attempts) == expected
        assert stats.budget is not None
        assert set(stats.budget.by_key) == expected
        assert stats.retry is not None
        assert set(stats.retry.by_key) == expected
        assert {key for key, _, _ in gates(composed)[0].arguments("acquire")} == expected


async def test_keys_are_bounded(clock: Time) -> None:
    numbers = iter(range(MAX_KEYS + 100))
    composed = policies(clock, key=lambda request: next(numbers))
    asked, server = request(), Server(Response())
    for _ in range(MAX_KEYS + 100):
        await composed(asked, server)
    assert len(composed.stats().attempts) <= MAX_KEYS


async def test_a_key_function_that_raises_is_heard_before_anything_is_done(clock: Time) -> None:
    composed = policies(clock, retry=retry(), key=lambda request: request.headers["X-Tenant"])
    server = Server(200)
    with pytest.raises(KeyError):
        await composed(request(), server)
    assert not server.requests
    assert composed.stats().attempts == {}


# Composition


class TestComposition:
    def test_a_policy_at_anothers_place_is_refused(self) -> None:
        for parts in ({"retry": RetryBudget()}, {"bulkhead": ScriptedGate("rate")}, {"rate": 7}):
            (place,) = parts
            with pytest.raises(TypeError, match=f"{place}: expected a policy of that kind, got"):
                Policies(**parts)  # type: ignore[arg-type]

    def test_a_budget_is_made_where_something_is_sent_again(self, clock: Time) -> None:
        assert Policies().budget is None
        assert Policies(breaker=ScriptedGate("breaker")).budget is None
        for parts in ({"retry": Retry()}, {"hedge": Hedge()}):
            budget = Policies(**parts, clock=clock).budget  # type: ignore[arg-type]
            assert budget is not None
            assert budget.clock is clock
        given = RetryBudget()
        assert Policies(retry=Retry(), budget=given).budget is given

    def test_one_snapshot_of_all(self) -> None:
        parts: dict[str, Any] = {name: ScriptedGate(name) for name in ORDER}
        stats = Policies(**parts, retry=Retry(), hedge=Hedge()).stats()
        assert [getattr(stats, name) for name in ORDER] == [f"of {name}" for name in ORDER]
        assert stats.retry is not None
        assert stats.hedge is not None
        assert stats.budget is not None
        assert stats.attempts == {}
        stats = Policies().stats()
        assert [getattr(stats, name) for name in (*ORDER, "retry", "hedge", "budget")] == [None] * 7


async def test_no_policies_are_no_harm(clock: Time) -> None:
    composed = policies(clock)
    assert (await composed(request(), Server(404))).status == 404
    with pytest.raises(ClientOSError):
        await composed(request(), Server(ClientOSError(104, "reset")))
    assert outcomes(composed) == {O.CLIENT_FAULT: 1, O.LOST_AFTER_SENT: 1}


async def test_a_single_policy_is_composed_once_and_by_its_own_clock(clock: Time) -> None:
    gate = ScriptedGate("rate")
    gate.clock = clock
    assert gate.may_send_again(request())
    for _ in range(2):
        assert (await gate(request(), Server(200))).status == 200
    assert [argument[2] for argument in gate.arguments("acquire")] == [clock.now] * 2
    alone = gate._alone
    assert isinstance(alone, Policies)
    assert alone.parts == (gate,)
    assert alone.stats().attempts[KEY] == {O.SUCCESS: 2}
    assert gate.may_send_again(request())


async def test_each_policy_is_a_middleware_by_itself() -> None:
    for policy in (Retry(backoff_factor=0), Bulkhead(1), RetryBudget(), Hedge(delay=50.0)):
        server = Server(503, 200)
        resp: Any = await policy(request(), server)
        assert resp.status == (200 if isinstance(policy, Retry) else 503)
        resp.release()
        assert policy in policy._alone.parts


async def test_a_retry_alone_does_not_let_a_session_try_a_second_time() -> None:
    policy = Retry(0)
    with pytest.raises(ClientConnectionError):
        await policy(request(), Server(lost()))
    assert not policy.may_send_again(request())


async def test_a_budget_alone_pays_for_the_second_try_of_a_session(clock: Time) -> None:
    budget = RetryBudget(0.0, min_per_second=1, clock=clock)
    await budget(request(), Server(200))
    assert budget.may_send_again(request())
    assert not budget.may_send_again(request())
    assert budget.stats().by_key[KEY].spent == 1


# Many requests


codes = st.sampled_from([200, 404, 429, 500, 503, "lost", "refused"])


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(codes, min_size=1, max_size=5)), max_size=12))
def test_whatever_servers_do_the_books_are_balanced(requests: list[tuple[int, list[Any]]]) -> None:
    failures = {"lost": lost, "refused": refused}

    async def run() -> None:
        clock = Time()
        bulkhead = Bulkhead(2, clock=clock)
        budget = RetryBudget(0.2, min_per_second=2, clock=clock)
        composed = policies(clock, retry=retry(2), budget=budget, bulkhead=bulkhead)
        servers = []

        async def ask(host: int, answers: list[Any]) -> None:
            server = Server(*[failures[code]() if code in failures else code for code in answers])
            servers.append(server)
            resp: Any = await composed(request(url=f"http://{host}.example/"), server)
            await clock.sleep(0.1)
            resp.release()

        await clock.run(*[ask(*one) for one in requests])
        stats = composed.stats()
        sent = sum(len(server.requests) for server in servers)
        assert sent == sum(sum(counts.values()) for counts in stats.attempts.values())
        assert stats.budget is not None
        assert stats.retry is not None
        spent = sum(figures.spent for figures in stats.budget.by_key.values())
        assert spent == sum(figures.retries for figures in stats.retry.by_key.values())
        assert sum(figures.requests for figures in stats.budget.by_key.values()) == len(requests)
        assert sent == len(requests) + spent
        assert all(resp.ends == ["released"] for server in servers for resp in server.responses)
        assert all(figures.in_use == figures.waiting == 0 for figures in stats.bulkhead.by_key.values())

    asyncio.run(run())


async def test_figures_may_be_read_by_another_thread_meanwhile() -> None:
    composed = Policies(
        retry=Retry(backoff_factor=0), bulkhead=Bulkhead(3), hedge=Hedge(delay=50.0), key=lambda r: r.url
    )
    ended = threading.Event()
    failures: list[BaseException] = []
    read = 0

    def look() -> None:
        nonlocal read
        try:
            while not ended.is_set():
                total = sum(sum(counts.values()) for counts in composed.stats().attempts.values())
                assert 0 <= total <= 600
                read += 1
        except BaseException as exc:
            failures.append(exc)

    async def ask(number: int) -> None:
        resp: Any = await composed(request(url=f"http://a.example/{number}"), Server(503, 200))
        resp.release()

    thread = threading.Thread(target=look)
    thread.start()
    for start in range(0, 300, 10):
        await asyncio.gather(*[ask(number) for number in range(start, start + 10)])
    ended.set()
    thread.join()
    assert failures == []
    assert read
    assert sum(sum(counts.values()) for counts in composed.stats().attempts.values()) == 600


async def test_attempts_of_forgotten_keys_stay_counted(clock: Time) -> None:
    composed = policies(clock)
    for number in range(MAX_KEYS + 100):
        await composed(request(url=f"http://h{number}.example/"), Server(Response(200, is_read=True)))
    stats = composed.stats()
    assert len(stats.attempts) <= MAX_KEYS
    kept = sum(counts[Outcome.SUCCESS] for counts in stats.attempts.values())
    assert kept + stats.forgotten[Outcome.SUCCESS] == MAX_KEYS + 100
