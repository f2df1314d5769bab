"""Requests that Policies send again, after another attempt or beside it."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientConnectorError, ClientOSError, FormData, ServerDisconnectedError
from aiohttp.helpers import TimerNoop
from support.checks import eventually

from wirespeed.policy import QUEUED, Hedge, Outcome, RetryBudget
from wirespeed.policy.bulkhead import Bulkhead

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


# Retries


async def test_a_request_that_succeeds_is_sent_once(clock: Time) -> None:
    composed = policies(clock, retry=retry())
    resp: Any = await composed(request(), Server(200))
    assert (resp.status, resp.retry_history, resp.ends) == (200, (), [])
    assert clock.slept == []


async def test_a_request_that_fails_is_sent_again_and_says_so(clock: Time) -> None:
    composed = policies(clock, retry=retry())
    failure = refused()
    server = Server(failure, 503, 200)
    asked = request()
    resp = await clock.one(composed(asked, server))
    assert server.requests == [asked] * 3
    assert clock.slept == [1.0, 2.0]
    assert resp.status == 200
    first, second = resp.retry_history
    assert first == ("GET", "http://a.example/", O.NOT_CONNECTED, None, failure, 0.0, 1.0)
    assert second == ("GET", "http://a.example/", O.OVERLOADED, 503, None, 0.0, 2.0)
    assert failure.__traceback__ is None
    assert outcomes(composed) == {O.NOT_CONNECTED: 1, O.OVERLOADED: 1, O.SUCCESS: 1}
    figures = composed.stats().retry
    assert figures is not None
    assert figures.by_key[KEY].retries == 2


async def test_the_last_answer_or_error_is_told_as_it_is(clock: Time) -> None:
    composed = policies(clock, retry=retry(1))
    server = Server(503)
    resp = await clock.one(composed(request(), server))
    assert (resp.status, resp.ends, len(resp.retry_history)) == (503, [], 1)
    assert server.responses[0].ends == ["released"]
    last = lost()
    with pytest.raises(ServerDisconnectedError) as raised:
        await clock.one(composed(request(), Server(lost(), last)))
    assert raised.value is last
    assert len(raised.value.retry_history) == 1  # type: ignore[attr-defined]


async def test_an_error_does_not_tell_of_other_requests(clock: Time) -> None:
    composed = policies(clock, retry=retry(1))
    same = refused()
    for expected in (1, 1):
        with pytest.raises(ClientConnectorError):
            await clock.one(composed(request(), Server(same)))
        assert len(same.retry_history) == expected  # type: ignore[attr-defined]


async def test_nothing_is_held_while_a_retry_waits(clock: Time) -> None:
    log, composed = full(clock, retry=retry())
    server = Server(503, 200)
    task = asyncio.create_task(clock.one(composed(request(), server)))
    held: list[bool] = []

    async def look(seconds: float) -> None:
        held.extend(bool(gate.held) for gate in gates(composed))
        held.append(server.responses[0].ends != ["released"])
        await clock.sleep(seconds)

    composed._sleep = look
    await task
    assert held == [False] * 5
    assert [name for name, call, _ in log if call == "acquire"] == list(ORDER) * 2


async def test_other_requests_pass_while_a_retry_waits(clock: Time) -> None:
    composed = policies(clock, retry=retry(), bulkhead=Bulkhead(1, clock=clock))
    order: list[str] = []

    async def ask(name: str, server: Server) -> None:
        resp: Any = await composed(request(), server)
        order.append(name)
        resp.release()

    await clock.run(ask("failing", Server(503, 200)), ask("other", Server(200)))
    assert order == ["other", "failing"]


async def test_a_request_that_is_cancelled_while_a_retry_waits_is_not_sent_again(clock: Time) -> None:
    _, composed = full(clock, retry=retry())
    server = Server(503, 200)
    task = asyncio.create_task(composed(request(), server))
    await settle()
    assert clock.slept == [1.0]
    task.cancel()
    assert isinstance(await ends(task), asyncio.CancelledError)
    assert len(server.requests) == 1
    assert [gate.held for gate in gates(composed)] == [[], [], [], []]


async def test_a_body_is_sent_again_after_it_was_closed(clock: Time) -> None:
    composed = policies(clock, retry=retry(allowed_methods=None))
    asked = request("POST", data=b"body")
    closed: list[int] = []
    server = Server(503, 503, 200)

    async def close() -> None:
        closed.append(len(server.requests))

    asked.close = close  # type: ignore[method-assign]
    assert (await clock.one(composed(asked, server))).status == 200
    assert closed == [1, 2]


@pytest.mark.parametrize("failure", [503, refused()], ids=repr)
async def test_a_body_that_was_read_is_not_sent_again(clock: Time, failure: Any) -> None:
    async def generated() -> Any:
        yield b"part"

    budget = RetryBudget(clock=clock)
    composed = policies(clock, retry=retry(allowed_methods=None), budget=budget)
    asked = request("POST", data=generated())

    def answer(asked: Any) -> Any:
        asked.body._consumed = True
        return failure

    server = Server(answer)
    (came,) = await clock.run(composed(asked, server))
    assert came is failure or came.status == 503
    assert len(server.requests) == 1
    figures = composed.stats().retry
    assert figures is not None
    assert figures.by_key[KEY].body == 1
    assert budget.stats().by_key[KEY].spent == 0
    if isinstance(came, Response):
        assert came.ends == []


async def test_a_body_that_was_not_read_is_sent_again(clock: Time) -> None:
    async def generated() -> Any:
        yield b"part"

    composed = policies(clock, retry=retry())
    asked = request("POST", data=generated())
    assert (await clock.one(composed(asked, Server(refused(), 200)))).status == 200


async def test_the_budget_is_asked_for_each_retry_and_earned_once(clock: Time) -> None:
    budget = RetryBudget(0.0, min_per_second=2, clock=clock)
    composed = policies(clock, retry=retry(backoff_factor=0), budget=budget)
    server = Server(503)
    resp: Any = await clock.one(composed(request(), server))
    assert (resp.status, len(resp.retry_history), len(server.requests)) == (503, 2, 3)
    figures = budget.stats().by_key[KEY]
    assert (figures.requests, figures.spent, figures.denied) == (1, 2, 1)
    stats = composed.stats()
    assert stats.retry is not None
    assert stats.retry.by_key[KEY].budget == 1
    assert resp.ends == []


async def test_a_method_that_is_not_repeated_pays_nothing(clock: Time) -> None:
    composed = policies(clock, retry=retry())
    with pytest.raises(ServerDisconnectedError):
        await composed(request("POST"), Server(lost()))
    stats = composed.stats()
    assert stats.budget is not None
    assert stats.budget.by_key[KEY].spent == 0
    assert stats.retry is not None
    assert stats.retry.by_key[KEY].method == 1


@pytest.mark.parametrize(("left", "sent"), [(0.5, 1), (2.0, 2), (10.0, 3), (None, 4)])
async def test_no_retry_begins_after_the_total_time(clock: Time, left: float | None, sent: int) -> None:
    composed = policies(clock, retry=retry())
    asked = request()
    loop = asyncio.get_running_loop()
    began = clock.now
    if left is not None:

        class Timer(TimerNoop):
            @property
            def deadline(self) -> float:
                # The loop's clock does not move here.
                return loop.time() + left - (clock.now - began)

        asked._timer = Timer()
    server = Server(503)
    resp = await clock.one(composed(asked, server))
    if left == 10.0:
        sent = 4  # 1 + 2 + 4 seconds
    assert len(server.requests) == sent
    assert len(resp.retry_history) == sent - 1
    figures = composed.stats().retry
    assert figures is not None
    assert figures.by_key[KEY].deadline == (1 if sent < 4 else 0)


async def test_without_a_retry_policy_answers_are_told_as_they_are(clock: Time) -> None:
    composed = policies(clock, rate=ScriptedGate("rate"))
    resp: Any = await composed(request(), Server(503))
    assert (resp.status, resp.ends) == (503, [])
    assert clock.slept == []
    assert composed.budget is None


# Hedging. Its delay passes in the handler, so that nobody waits.


def slow(clock: Time, resp: Any, seconds: float = 1.0) -> Any:
    """An answer that takes so long, and does not come before it is let."""
    waiter = asyncio.get_running_loop().create_future()

    async def answer(_: Any) -> Any:
        clock.advance(seconds)
        await waiter
        return resp

    answer.waiter = waiter  # type: ignore[attr-defined]
    return answer


async def test_a_second_attempt_wins_and_the_first_is_let_go(clock: Time) -> None:
    log, composed = full(clock, hedge=Hedge(delay=0.0, clock=clock))
    resp = Response()
    server = Server(slow(clock, Response()), resp)
    assert await composed(request(), server) is resp
    first, second = server.requests
    assert first is not second
    assert first.headers == second.headers
    assert first.headers is not second.headers
    assert (first.method, first.url) == (second.method, second.url)
    assert outcomes(composed) == {O.SUCCESS: 1, O.CANCELLED: 1}
    assert [len(gate.held) for gate in gates(composed)] == [1, 1, 1, 1]
    stats = composed.stats()
    assert stats.hedge is not None
    assert stats.budget is not None
    figures = stats.hedge.by_key[KEY]
    assert (figures.eligible, figures.launched, figures.won, figures.denied) == (1, 1, 1, 0)
    assert (stats.budget.by_key[KEY].requests, stats.budget.by_key[KEY].spent) == (1, 1)
    resp.release()
    assert [len(gate.held) for gate in gates(composed)] == [0, 0, 0, 0]
    assert [name for name, call, _ in log if call == "acquire"] == list(ORDER) * 2


async def test_a_second_attempt_that_loses_is_closed(clock: Time) -> None:
    composed = policies(clock, hedge=Hedge(delay=0.0, clock=clock), bulkhead=ScriptedGate("bulkhead"))
    resp = Response()
    first = slow(clock, resp)
    server = Server(first, Response(503))
    task = asyncio.create_task(composed(request(), server))
    await eventually(lambda: server.responses)
    await settle()
    assert server.responses[0].ends == ["closed"]
    first.waiter.set_result(None)
    assert await task is resp
    assert len(gates(composed)[0].held) == 1
    stats = composed.stats().hedge
    assert stats is not None
    assert (stats.by_key[KEY].launched, stats.by_key[KEY].won) == (1, 0)


async def test_the_budget_refuses_hedging(clock: Time) -> None:
    budget = RetryBudget(0.0, min_per_second=0, clock=clock)
    composed = policies(clock, hedge=Hedge(delay=0.0, clock=clock), budget=budget)
    resp = Response()
    first = slow(clock, resp)
    server = Server(first)
    task = asyncio.create_task(composed(request(), server))
    await eventually(lambda: any(figures.denied for figures in budget.stats().by_key.values()))
    first.waiter.set_result(None)
    assert await task is resp
    assert len(server.requests) == 1
    assert budget.stats().by_key[KEY].denied == 1
    stats = composed.stats().hedge
    assert stats is not None
    assert stats.by_key[KEY].denied == 1


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("POST", {}),
        ("GET", {"headers": {"Upgrade": "websocket"}}),
        ("GET", {"data": FormData({"a": "b"}, default_to_multipart=True)}),
    ],
    ids=repr,
)
async def test_what_cannot_be_sent_twice_is_not_hedged(
    clock: Time, method: str, options: dict[str, Any]
) -> None:
    composed = policies(clock, hedge=Hedge(delay=0.0, clock=clock))
    resp = Response()
    first = slow(clock, resp)
    server = Server(first)
    task = asyncio.create_task(composed(request(method, **options), server))
    await asyncio.sleep(0.01)
    first.waiter.set_result(None)
    assert await task is resp
    assert len(server.requests) == 1
    stats = composed.stats().hedge
    assert stats is not None
    assert not any(figures.launched for figures in stats.by_key.values())


async def test_bytes_may_be_sent_twice_but_not_when_somebody_follows_the_upload(clock: Time) -> None:
    for tracker, sent in ((None, 2), (object(), 1)):
        composed = policies(clock, hedge=Hedge(delay=0.0, clock=clock))
        first = slow(clock, Response())
        server = Server(first, 200)
        asked = request("GET", data=b"body")
        asked._upload_tracker = tracker  # type: ignore[assignment]
        task = asyncio.create_task(composed(asked, server))
        await asyncio.sleep(0.01)
        if sent == 1:
            first.waiter.set_result(None)
        await task
        assert len(server.requests) == sent


async def test_a_second_attempt_has_an_upload_of_its_own(clock: Time) -> None:
    composed = policies(clock, hedge=Hedge(delay=0.0, clock=clock))
    asked = request("GET", data=b"body")
    read = asyncio.Event()
    upload = asyncio.create_task(read.wait())
    asked._writer = upload  # type: ignore[assignment]
    server = Server(slow(clock, Response()), 200)
    await composed(asked, server)
    first, second = server.requests
    assert first._writer is upload
    assert second._writer is None
    read.set()
    await upload


async def test_a_request_that_waits_for_its_gates_is_not_hedged(clock: Time) -> None:
    """Another attempt would wait there, too."""
    composed = policies(clock, hedge=Hedge(delay=0.0, clock=clock), bulkhead=ScriptedGate("bulkhead"))
    bulkhead = gates(composed)[0]
    bulkhead.waits = QUEUED
    task = asyncio.create_task(composed(request(), Server(200)))
    await asyncio.sleep(0.01)
    assert len(bulkhead.held) == 1
    bulkhead.grant(0, clock.now)
    assert (await task).status == 200


async def test_delays_are_learned_of_first_attempts_that_were_answered_well(clock: Time) -> None:
    hedge = Hedge(min_samples=1, clock=clock)
    composed = policies(clock, hedge=hedge)

    def after(seconds: float, answer: Any) -> Any:
        def handler(_: Any) -> Any:
            clock.advance(seconds)
            return answer

        return Server(handler)

    for answer in (429, 503, 500):
        await composed(request(), after(50.0, answer))
    with pytest.raises(ServerDisconnectedError):
        await composed(request(), after(50.0, lost()))
    assert hedge.delay(KEY, "GET") is None
    await composed(request(), after(0.25, 200))
    assert hedge.delay(KEY, "GET") == pytest.approx(0.25, rel=0.06)


async def test_a_hedged_request_that_fails_is_sent_again(clock: Time) -> None:
    composed = policies(clock, retry=retry(), hedge=Hedge(delay=50.0, clock=clock))
    resp = await clock.one(composed(request(), Server(503, 200)))
    assert resp.status == 200
    assert [record.outcome for record in resp.retry_history] == [O.OVERLOADED]


async def test_a_hedged_request_that_is_cancelled_leaves_nothing(clock: Time) -> None:
    _, composed = full(clock, hedge=Hedge(delay=0.0, clock=clock))
    server = Server(slow(clock, 200), slow(clock, 200))
    task = asyncio.create_task(composed(request(), server))
    await eventually(lambda: len(server.requests) == 2)
    task.cancel()
    assert isinstance(await ends(task), asyncio.CancelledError)
    await settle()
    assert [gate.held for gate in gates(composed)] == [[], [], [], []]
    assert outcomes(composed) == {O.CANCELLED: 2}


class Uncopiable(ClientOSError):
    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host}: {why}")


async def test_an_error_that_cannot_be_copied_is_raised_as_it_is(clock: Time) -> None:
    composed = policies(clock, retry=retry(0))
    with pytest.raises(Uncopiable):
        await composed(request(), Server(Uncopiable("a.example", "gone")))


async def test_a_request_that_waited_is_hedged_once(clock: Time) -> None:
    hedge = Hedge(delay=5.0, clock=clock)
    composed = policies(clock, hedge=hedge, bulkhead=Bulkhead(1, clock=clock))
    server = Server(lambda request: Response(200, is_read=True))
    await clock.run(*(composed(request(), server) for _ in range(3)))
    first = slow(clock, Response(200, is_read=True))
    tasks = [asyncio.create_task(composed(request(), Server(first))) for _ in range(2)]
    await settle()
    first.waiter.set_result(None)
    await asyncio.gather(*tasks)
    assert hedge.stats().by_key[KEY].eligible == 5
