"""Retries over real sockets: what is sent again after what, how often, when, and what the caller is told."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import contextlib
import email.utils
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError
from support.checks import eventually
from support.local import LocalServer

import wirespeed
from wirespeed.policy import Outcome, Policies, Retry, RetryBudget
from wirespeed.policy.bulkhead import Bulkhead

from .sockets import (
    Action,
    Acts,
    Sessions,
    Time,
    acting,
    bytes_then,
    clean,
    close_now,
    get,
    in_use,
    not_http,
    ok,
    reset_now,
    stall,
    status,
    statuses,
)

WALL = 1_700_000_000.0
HALF_A_HEAD = b"HTTP/1.1 200 OK\r\nContent-Len"
SHORT = aiohttp.ClientTimeout(total=10, sock_read=0.3)

# What a server does, and what the attempt comes to.
FAILURES: dict[str, tuple[Action, Outcome]] = {
    "429": (status(429), Outcome.THROTTLED),
    "502": (status(502), Outcome.SERVER_FAULT),
    "503": (status(503), Outcome.OVERLOADED),
    "504": (status(504), Outcome.SERVER_FAULT),
    "reset": (reset_now, Outcome.LOST_AFTER_SENT),
    "closed": (close_now, Outcome.LOST_AFTER_SENT),
    "half a head, reset": (bytes_then(HALF_A_HEAD, reset_now), Outcome.LOST_AFTER_SENT),
    "half a head, closed": (bytes_then(HALF_A_HEAD, close_now), Outcome.LOST_AFTER_SENT),
    "not HTTP": (not_http, Outcome.SERVER_FAULT),
    "stall": (stall, Outcome.TIMED_OUT),
}
every_failure = pytest.mark.parametrize(("failure", "outcome"), FAILURES.values(), ids=FAILURES)


def retrying(time: Time, total: int = 2, **options: object) -> Policies:
    """A retry policy whose delays are the longest that there are, and that nobody waits for."""
    retry = Retry(total, random=lambda: 1 - 1e-9, wall=lambda: WALL, **options)  # type: ignore[arg-type]
    return Policies(retry=retry, clock=time, sleep=time.sleep)


# How often


@every_failure
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_request_is_sent_once_and_total_times_again(
    kind: Sessions, failure: Action, outcome: Outcome, method: str
) -> None:
    time = Time()
    async with acting(then=failure) as server, clean(kind, policies=retrying(time), timeout=SHORT) as session:
        data = b"body" if method == "PUT" else None
        if outcome in (Outcome.THROTTLED, Outcome.OVERLOADED) or failure in (
            FAILURES["502"][0],
            FAILURES["504"][0],
        ):
            async with session.request(method, server.url(), data=data) as resp:
                assert await resp.read() == b"no"
                history = resp.retry_history
        else:
            with pytest.raises((aiohttp.ClientError, asyncio.TimeoutError)) as caught:
                await session.request(method, server.url(), data=data)
            history = caught.value.retry_history
        assert len(server.exchanges) == 3
        assert [record.outcome for record in history] == [outcome] * 2
        assert {record.method for record in history} == {method}
        assert {record.url for record in history} == {server.url()}
        assert [record.delay for record in history if record.delay] == time.slept
        assert all(exchange.complete for exchange in server.exchanges)


@every_failure
async def test_a_request_is_answered_by_the_attempt_that_succeeds(
    kind: Sessions, failure: Action, outcome: Outcome
) -> None:
    time = Time()
    async with acting(failure) as server, clean(kind, policies=retrying(time), timeout=SHORT) as session:
        async with session.get(server.url()) as resp:
            assert (resp.status, await resp.read()) == (200, b"ok")
            (record,) = resp.retry_history
        assert record.outcome is outcome
        assert (record.error is None) == (record.status is not None)
        assert record.error is None or record.error.__traceback__ is None
        assert len(server.exchanges) == 2


@every_failure
async def test_what_may_have_been_acted_on_is_not_sent_again(
    kind: Sessions, failure: Action, outcome: Outcome
) -> None:
    policies = retrying(Time())
    async with acting(failure) as server, clean(kind, policies=policies, timeout=SHORT) as session:
        try:
            async with session.post(server.url(), data=b"order") as resp:
                history = resp.retry_history
        except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
            history = exc.retry_history
        assert history == ()
        assert len(server.exchanges) == 1
        (figures,) = policies.stats().retry.by_key.values()  # type: ignore[union-attr]
        assert (figures.retries, figures.method) == (0, 1)


@every_failure
async def test_nothing_is_sent_again_without_retries_to_make(
    kind: Sessions, failure: Action, outcome: Outcome
) -> None:
    async with (
        acting(then=failure) as server,
        clean(kind, policies=retrying(Time(), 0), timeout=SHORT) as session,
    ):
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
            await get(session, server.url())
        assert len(server.exchanges) == 1


async def test_post_is_sent_again_where_it_is_allowed(kind: Sessions) -> None:
    policies = retrying(Time(), allowed_methods=["POST"])
    async with acting(status(503), reset_now) as server, clean(kind, policies=policies) as session:
        async with session.post(server.url(), json={"a": 1}) as resp:
            assert resp.status == 200
        assert [bytes(exchange.body) for exchange in server.exchanges] == [b'{"a": 1}'] * 3


@pytest.mark.parametrize("number", [200, 301, 400, 404, 410, 500, 501, 505])
async def test_other_answers_are_not_asked_for_again(kind: Sessions, number: int) -> None:
    async with acting(then=status(number)) as server, clean(kind, policies=retrying(Time())) as session:
        async with session.get(server.url()) as resp:
            assert (resp.status, resp.retry_history) == (number, ())
        assert len(server.exchanges) == 1


async def test_limits_of_a_kind_hold_beside_the_total(kind: Sessions) -> None:
    policies = retrying(Time(), 9, read=1, status=2)
    acts = [status(503), reset_now, status(503)]
    async with acting(*acts, then=reset_now) as server, clean(kind, policies=policies) as session:
        with pytest.raises(aiohttp.ClientError) as caught:
            await session.get(server.url())
        assert statuses(caught.value) == [503, None, 503]
        assert len(server.exchanges) == 4


# Connections that cannot be made


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_refused_connections_are_tried_again_whatever_the_method(kind: Sessions, method: str) -> None:
    time = Time()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        async with clean(kind, policies=retrying(time)) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.request(method, url, data=b"body" if method == "POST" else None)
    assert [record.outcome for record in caught.value.retry_history] == [Outcome.NOT_CONNECTED] * 2
    assert time.slept == pytest.approx([0.2, 0.4])  # with backoff: nobody is there yet


async def test_a_server_that_comes_up_meanwhile_gets_the_whole_body(kind: Sessions) -> None:
    async def body() -> object:
        yield b"first "
        yield b"second"

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        time = Time(lambda _: nobody.listen())
        async with clean(kind, policies=retrying(time)) as session:
            sending = asyncio.ensure_future(session.post(f"http://127.0.0.1:{port}/", data=body()))
            await eventually(lambda: time.slept, "retry")
            nobody.setblocking(False)
            accepted, _ = await asyncio.get_running_loop().sock_accept(nobody)
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                received += await asyncio.get_running_loop().sock_recv(accepted, 65536)
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            resp = await sending
            assert len(resp.retry_history) == 1
            resp.release()
            accepted.close()
    assert received.endswith(b"\r\n\r\n6\r\nfirst \r\n6\r\nsecond\r\n0\r\n\r\n")


# When


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (email.utils.formatdate(WALL + 30, usegmt=True), 30.0),
        (email.utils.formatdate(WALL - 3600, usegmt=True), 0.0),
        ("100000", 120.0),
        (email.utils.formatdate(WALL + 10**8, usegmt=True), 120.0),
        ("9" * 15, 120.0),
        ("9" * 400, 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("", 0.0),
        ("nan", 0.0),
        ("\u00b2", 0.0),
        ("Wed, 99 Foo 2031 99:99:99 GMT", 0.0),
    ],
)
async def test_retry_after_is_kept_to_and_never_beyond_its_bound(
    kind: Sessions, field: str, asked: float
) -> None:
    time = Time()
    async with acting() as server:
        server.routes["/"] = Acts(
            lambda x: (
                x.send(f"HTTP/1.1 429 Slow\r\nRetry-After: {field}\r\nContent-Length: 0\r\n\r\n".encode())
                or x.finish()
            )
        )
        async with clean(kind, policies=retrying(time)) as session:
            assert await get(session, server.url()) == b"ok"
    # As long as was asked for at least, and the jitter on top, so that not all clients come back at once.
    assert time.slept == pytest.approx([asked + 0.2])


async def test_retry_after_of_other_answers_is_none_of_ours(kind: Sessions) -> None:
    time = Time()
    acts = [status(502, ("Retry-After", "50"))]
    async with acting(*acts) as server, clean(kind, policies=retrying(time)) as session:
        assert await get(session, server.url()) == b"ok"
    assert time.slept == pytest.approx([0.2])


async def test_413_is_asked_for_again_when_it_says_when(kind: Sessions) -> None:
    time = Time()
    acts = [status(413, ("Retry-After", "3")), status(413)]
    async with acting(*acts) as server, clean(kind, policies=retrying(time)) as session:
        async with session.get(server.url()) as resp:
            assert (resp.status, statuses(resp)) == (413, [413])
    assert time.slept == pytest.approx([3.2])


async def test_retries_end_with_the_total_time(kind: Sessions) -> None:
    time = Time()
    policies = retrying(time, 10)
    async with acting(then=status(503, ("Retry-After", "2"))) as server:
        timeout = aiohttp.ClientTimeout(total=1.5)
        async with clean(kind, policies=policies, timeout=timeout) as session:
            begun = asyncio.get_running_loop().time()
            try:
                async with session.get(server.url()) as resp:
                    assert resp.status == 503
            except asyncio.TimeoutError:
                pass
            assert asyncio.get_running_loop().time() - begun < 1.9


async def test_total_time_passes_while_a_retry_waits(kind: Sessions) -> None:
    policies = Policies(retry=Retry(5, backoff_factor=0.0))
    timeout = aiohttp.ClientTimeout(total=0.2)
    async with acting(then=status(503, ("Retry-After", "1"))) as server:
        async with clean(kind, policies=policies, timeout=timeout) as session:
            begun = asyncio.get_running_loop().time()
            try:
                async with session.get(server.url()) as resp:
                    # Where the end of the time is known, nobody sleeps in vain.
                    assert resp.status == 503
            except asyncio.TimeoutError:
                pass
            assert asyncio.get_running_loop().time() - begun < 0.9
            task = asyncio.current_task()
            assert task is not None
            assert getattr(task, "cancelling", lambda: 0)() == 0
        assert len(server.exchanges) == 1


# What is let go


async def test_a_failed_response_is_let_go_before_the_sleep(kind: Sessions) -> None:
    seen: list[tuple[int, int]] = []

    def during(_: float) -> None:
        seen.append((in_use(session), len(server.connections)))

    time = Time(during)
    acts = [status(503), status(429), bytes_then(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nhalf", ok)]
    async with acting(*acts) as server, clean(kind, policies=retrying(time, 5)) as session:
        assert await get(session, server.url()) == b"ok"
        # Of a body that was there already the connection is used again, of half a body it is not.
        assert seen == [(0, 1), (0, 1), (0, 1)]
        assert [exchange.connection.number for exchange in server.exchanges] == [0, 0, 0, 1]


async def test_responses_of_attempts_before_are_closed(kind: Sessions) -> None:
    given: list[aiohttp.ClientResponse] = []

    async def note(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        given.append(await handler(req))
        return given[-1]

    policies = retrying(Time())
    async with acting(status(503), status(503)) as server:
        async with clean(kind, policies, note) as session:
            assert await get(session, server.url()) == b"ok"
        assert [resp.closed for resp in given] == [True] * 3
        assert [resp.status for resp in given] == [503, 503, 200]


# The session's own second try


@pytest.mark.parametrize("failure", [reset_now, close_now])
async def test_the_session_tries_a_second_time_where_no_policy_says_otherwise(
    kind: Sessions, failure: Action
) -> None:
    policies = Policies()
    async with acting(then=failure) as server, clean(kind, policies=policies) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(server.url())
        assert len(server.exchanges) == 2


@pytest.mark.parametrize("failure", [reset_now, close_now])
async def test_the_budget_pays_for_the_second_try_of_the_session(kind: Sessions, failure: Action) -> None:
    time = Time()
    budget = RetryBudget(0.0, min_per_second=1e-6, clock=time)
    policies = Policies(budget=budget, clock=time, sleep=time.sleep)
    async with acting(then=failure) as server, clean(kind, policies=policies) as session:
        for expected in (2, 3, 4):  # the floor is one retry, and that was it
            with pytest.raises(aiohttp.ClientError):
                await session.get(server.url())
            assert len(server.exchanges) == expected
        (figures,) = budget.stats().by_key.values()
        # Every request is one: the second try of the session is no request of the caller's.
        assert (figures.requests, figures.spent, figures.denied) == (3, 1, 2)


@pytest.mark.parametrize("failure", [reset_now, close_now])
async def test_a_connection_that_was_idle_and_dead_is_replaced_at_once(
    kind: Sessions, failure: Action
) -> None:
    time = Time()
    policies = retrying(time)
    async with acting(ok, failure) as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"ok"
        async with session.get(server.url()) as resp:
            assert await resp.read() == b"ok"
            (record,) = resp.retry_history
        assert record.delay == 0.0
        assert not time.slept
        assert [exchange.connection.number for exchange in server.exchanges] == [0, 0, 1]
        assert policies.budget is not None
        (figures,) = policies.budget.stats().by_key.values()
        assert (figures.requests, figures.spent) == (2, 1)


async def test_a_connection_that_was_closed_while_idle_costs_no_retry(kind: Sessions) -> None:
    policies = retrying(Time())
    async with acting() as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"ok"
        server.connections[0].transport.close()
        await asyncio.sleep(0.02)
        async with session.get(server.url()) as resp:
            assert resp.retry_history == ()
        assert policies.budget is not None
        (figures,) = policies.budget.stats().by_key.values()
        assert figures.spent == 0


async def test_requests_after_a_lost_one_are_not_taken_for_its_second_try(kind: Sessions) -> None:
    """All in one task: what is remembered of a request must not speak of the next."""
    time = Time()
    budget = RetryBudget(0.0, min_per_second=0.0, clock=time)
    policies = Policies(budget=budget, clock=time, sleep=time.sleep)
    async with acting(reset_now, ok, reset_now, ok) as server, clean(kind, policies=policies) as session:
        for is_lost in (True, False, True, False):
            if is_lost:
                with pytest.raises(aiohttp.ClientOSError):
                    await get(session, server.url())
            else:
                assert await get(session, server.url()) == b"ok"
        # POST is never tried again; what comes after it is a request of its own.
        with pytest.raises(aiohttp.ClientError):
            async with LocalServer() as other:
                await session.post(other.url("/drop"))
        assert await get(session, server.url()) == b"ok"
        assert len(server.exchanges) == 5


@pytest.mark.parametrize("total", [None, 30.0])
@pytest.mark.parametrize("failure", [reset_now, close_now])
async def test_a_request_that_was_lost_says_nothing_of_the_next_one_of_the_task(
    kind: Sessions, failure: Action, total: float | None
) -> None:
    policies = retrying(Time(), 0)
    timeout = aiohttp.ClientTimeout(total=total)
    async with acting(failure, ok, failure, failure, ok) as server:
        async with clean(kind, policies=policies, timeout=timeout) as session:
            for method, is_lost in (("POST", 1), ("GET", 0), ("PUT", 1), ("GET", 1), ("GET", 0)):
                if is_lost:
                    with pytest.raises(aiohttp.ClientError):
                        await session.request(method, server.url())
                else:
                    assert await get(session, server.url()) == b"ok"
        assert [exchange.method for exchange in server.exchanges] == ["POST", "GET", "PUT", "GET", "GET"]


@pytest.mark.parametrize("failure", [reset_now, close_now])
@pytest.mark.parametrize("is_inside", [True, False])
async def test_retries_beside_other_policies_are_not_doubled_by_the_session(
    kind: Sessions, failure: Action, is_inside: bool
) -> None:
    """Each policy a middleware of its own: the one that retries has the last word, wherever it stands."""
    time = Time()
    retry = retrying(time)
    others = [Bulkhead(5), Policies(budget=RetryBudget(clock=time), clock=time)]
    chain = (*others, retry) if is_inside else (retry, *others)
    async with acting(then=failure) as server, clean(kind, *chain) as session:
        for expected in (3, 6):
            with pytest.raises(aiohttp.ClientError):
                await session.get(server.url())
            assert len(server.exchanges) == expected


async def test_one_retry_around_another_is_not_doubled_by_the_session(kind: Sessions) -> None:
    inner, outer = retrying(Time(), 1), retrying(Time(), 2)
    async with acting(then=reset_now) as server, clean(kind, outer, inner) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(server.url())
        assert len(server.exchanges) == 6


async def test_a_middleware_around_may_send_again_as_it_likes(kind: Sessions) -> None:
    async def stubborn(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        for _ in range(3):
            try:
                return await handler(req)
            except aiohttp.ClientError:
                pass
        return await handler(req)

    async with acting(*[reset_now] * 6) as server, clean(kind, stubborn, retrying(Time(), 1)) as session:
        assert await get(session, server.url()) == b"ok"
        assert len(server.exchanges) == 7


async def test_no_server_at_a_unix_socket_is_told_as_it_is(kind: Sessions, tmp_path: Path) -> None:
    connector = (aiohttp if kind is aiohttp.ClientSession else wirespeed).UnixConnector(
        str(tmp_path / "none")
    )
    policies = retrying(Time())
    async with clean(kind, policies=policies, connector=connector) as session:
        with pytest.raises(UnixClientConnectorError) as caught:
            await session.get("http://nowhere/")
    assert len(caught.value.retry_history) == 2
