"""Every field of `ClientTimeout`, with aiohttp's exceptions and messages."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import math
from typing import Any

import aiohttp
import pytest
from support.checks import (
    assert_express,
    eventually,
    express_session,
    live_timers,
    nothing_left,
)
from support.local import Exchange, LocalServer, port_that_never_accepts

import wirespeed

Timeout = aiohttp.ClientTimeout
SHORT = 0.1
LATE = 1.0  # how much later than due an error may come on a busy machine


async def _read(session: wirespeed.ClientSession, url: str, **kwargs: Any) -> bytes:
    async with session.get(url, **kwargs) as resp:
        return await resp.read()


async def _raises_in_time(
    error: type[BaseException], message: str | None, due: float, request: Any
) -> BaseException:
    """The request raises exactly `error` with exactly `message` (None: no argument) when due."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(error) as caught:
        await asyncio.wait_for(request, 10)
    assert due - 0.01 <= loop.time() - start < due + LATE
    assert type(caught.value) is error
    # PoolTimeout has more to say behind aiohttp's message.
    first = caught.value.args[:1] if error is wirespeed.PoolTimeout else caught.value.args
    assert first == (() if message is None else (message,))
    return caught.value


@pytest.mark.parametrize("path", ["/hold", "/half"])
async def test_total_of_the_request(path: str) -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session() as session:
            request = _read(session, server.url(path), timeout=Timeout(total=SHORT))
            await _raises_in_time(asyncio.TimeoutError, None, SHORT, request)
            await eventually(lambda: not server.open, "connection closed")


@pytest.mark.parametrize("path", ["/hold", "/half"])
async def test_total_of_the_session(path: str) -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session(timeout=Timeout(total=SHORT)) as session:
            request = _read(session, server.url(path))
            await _raises_in_time(asyncio.TimeoutError, None, SHORT, request)


async def test_number_given_to_a_request_is_its_total() -> None:
    async with LocalServer() as server, express_session() as session:
        request = _read(session, server.url("/hold"), timeout=SHORT)
        await _raises_in_time(asyncio.TimeoutError, None, SHORT, request)


async def test_number_given_to_a_session_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout parameter cannot be of <class 'float'> type"):
        wirespeed.ClientSession(timeout=0.5)


@pytest.mark.parametrize(
    "timeout",
    [None, 0, Timeout(), Timeout(total=0), Timeout(total=0, connect=0, sock_connect=0, sock_read=0)],
    ids=["none", "zero", "empty", "total_zero", "all_zero"],
)
async def test_none_and_zero_mean_no_timeout(timeout: Any) -> None:
    async with LocalServer() as server, express_session(timeout=Timeout(total=SHORT)) as session:
        task = asyncio.ensure_future(_read(session, server.url("/hold"), timeout=timeout))
        await asyncio.sleep(3 * SHORT)
        assert not task.done()
        server.held[0].respond(200, b"at last")
        assert await task == b"at last"


async def test_defaults_are_aiohttps() -> None:
    async with wirespeed.ClientSession() as session, wirespeed.ClientSession(timeout=None) as other:
        assert session.timeout == other.timeout == Timeout(total=300, sock_connect=30)


async def test_total_covers_every_hop_of_redirects() -> None:
    loop = asyncio.get_running_loop()

    def hop(exchange: Exchange) -> None:
        loop.call_later(0.03, exchange.respond, 302, b"", [("Location", "/hop")])

    async with LocalServer() as server, wirespeed.ClientSession() as session:
        server.routes["/hop"] = hop
        request = _read(session, server.url("/hop"), timeout=Timeout(total=0.2), max_redirects=1000)
        await _raises_in_time(asyncio.TimeoutError, None, 0.2, request)
        assert 2 <= len(server.exchanges) <= 7
        assert_express(session)
        await asyncio.sleep(0.05)  # the server's own timer


async def test_total_covers_a_body_that_nobody_reads_yet() -> None:
    async with LocalServer() as server, express_session() as session:
        async with session.get(server.url("/half"), timeout=Timeout(total=SHORT)) as resp:
            await asyncio.sleep(2 * SHORT)
            with pytest.raises(asyncio.TimeoutError):
                await resp.read()
        await eventually(lambda: not server.open, "connection closed")


async def test_total_ends_with_the_body() -> None:
    async with LocalServer() as server, express_session(at_least=2) as session:
        async with session.get(server.url("/ok"), timeout=Timeout(total=SHORT)) as resp:
            assert await resp.read() == b"ok"
            await asyncio.sleep(2 * SHORT)
            assert await resp.read() == b"ok"
        assert await _read(session, server.url("/ok")) == b"ok"
        assert len(server.connections) == 1


async def test_total_covers_waiting_for_a_slot_and_an_upload() -> None:
    async def body() -> Any:
        yield b"begin"
        await asyncio.sleep(10)

    async with LocalServer() as server, nothing_left():
        async with express_session(connector=wirespeed.TCPConnector(limit=1)) as session:
            upload = session.post(server.url("/ok"), data=body(), timeout=Timeout(total=2 * SHORT))
            task = asyncio.ensure_future(_raises_in_time(asyncio.TimeoutError, None, 2 * SHORT, upload))
            await eventually(lambda: server.exchanges, "upload begun")
            waiter = _read(session, server.url("/ok"), timeout=Timeout(total=SHORT))
            await _raises_in_time(asyncio.TimeoutError, None, SHORT, waiter)
            await task
            assert await _read(session, server.url("/ok")) == b"ok"


@pytest.mark.parametrize("field", ["connect", "sock_connect"])
async def test_connecting_takes_too_long(field: str) -> None:
    with port_that_never_accepts() as port:
        async with nothing_left(), wirespeed.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/path?a=b"
            request = _read(session, url, timeout=Timeout(**{field: SHORT}))
            message = f"Connection timeout to host {url}"
            error = await _raises_in_time(aiohttp.ConnectionTimeoutError, message, SHORT, request)
            assert isinstance(error, (aiohttp.ServerTimeoutError, aiohttp.ClientConnectionError))
            assert isinstance(error.__cause__, asyncio.TimeoutError)


async def test_total_while_connecting_is_a_plain_timeout_error() -> None:
    with port_that_never_accepts() as port:
        async with nothing_left(), wirespeed.ClientSession() as session:
            timeout = Timeout(total=SHORT, connect=5, sock_connect=5)
            request = _read(session, f"http://127.0.0.1:{port}/", timeout=timeout)
            await _raises_in_time(asyncio.TimeoutError, None, SHORT, request)


@pytest.mark.parametrize("field", ["connect", "sock_connect"])
async def test_tls_handshake_takes_too_long(field: str) -> None:
    async with LocalServer(raw=True) as silent, nothing_left():
        async with wirespeed.ClientSession() as session:
            url = silent.url("/", scheme="https")
            request = _read(session, url, timeout=Timeout(**{field: SHORT}))
            message = f"Connection timeout to host {url}"
            await _raises_in_time(aiohttp.ConnectionTimeoutError, message, SHORT, request)
            await eventually(lambda: not silent.open, "connection closed")


async def test_connect_covers_waiting_for_a_slot() -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session(connector=wirespeed.TCPConnector(limit=1)) as session:
            holder = asyncio.ensure_future(_read(session, server.url("/hold")))
            await eventually(lambda: server.held, "slot taken")
            url = server.url("/ok")
            message = f"Connection timeout to host {url}"
            for _ in range(3):
                request = _read(session, url, timeout=Timeout(connect=SHORT))
                # Without the core only where the connector has a pool_timeout.
                error = wirespeed.PoolTimeout if wirespeed.NATIVE else aiohttp.ConnectionTimeoutError
                exc = await _raises_in_time(error, message, SHORT, request)
                assert isinstance(exc, aiohttp.ConnectionTimeoutError)
            server.held[0].respond(200, b"done")
            assert await holder == b"done"
            assert await _read(session, url, timeout=Timeout(connect=SHORT)) == b"ok"
            assert len(server.exchanges) == 2


async def test_sock_connect_does_not_cover_waiting_for_a_slot() -> None:
    async with LocalServer() as server:
        async with express_session(connector=wirespeed.TCPConnector(limit=1), at_least=2) as session:
            holder = asyncio.ensure_future(_read(session, server.url("/hold")))
            await eventually(lambda: server.held, "slot taken")
            timeout = Timeout(sock_connect=SHORT)
            waiter = asyncio.ensure_future(_read(session, server.url("/ok"), timeout=timeout))
            await asyncio.sleep(2 * SHORT)
            assert not waiter.done()
            server.held[0].respond(200, b"done")
            assert (await holder, await waiter) == (b"done", b"ok")


@pytest.mark.parametrize("path", ["/hold", "/half"])
@pytest.mark.parametrize("warm", [False, True], ids=["new", "reused"])
async def test_sock_read(path: str, warm: bool) -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session() as session:
            if warm:
                await _read(session, server.url("/ok"))
            request = _read(session, server.url(path), timeout=Timeout(sock_read=SHORT))
            message = "Timeout on reading data from socket"
            error = await _raises_in_time(aiohttp.SocketTimeoutError, message, SHORT, request)
            assert isinstance(error, (aiohttp.ServerTimeoutError, asyncio.TimeoutError))
            await eventually(lambda: not server.open, "connection closed")


def _trickle(exchange: Exchange) -> None:
    """Ten bytes, one every 40 ms."""
    loop = asyncio.get_running_loop()
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    for n in range(1, 11):
        loop.call_later(0.04 * n, exchange.send, b"x")


async def test_sock_read_does_not_fire_on_a_trickle() -> None:
    async with LocalServer() as server, express_session() as session:
        server.routes["/trickle"] = _trickle
        timeout = Timeout(sock_read=0.3)
        assert await _read(session, server.url("/trickle"), timeout=timeout) == b"x" * 10
        await asyncio.sleep(0.35)  # nor does it fire once the body is there
        assert await _read(session, server.url("/ok"), timeout=timeout) == b"ok"
        assert len(server.connections) == 1


async def test_sock_read_does_not_fire_while_the_reader_pauses() -> None:
    size = 8_000_000
    async with LocalServer() as server, express_session() as session:
        async with session.get(server.url(f"/bytes?n={size}"), timeout=Timeout(sock_read=SHORT)) as resp:
            first = await resp.content.readexactly(1000)
            await asyncio.sleep(3 * SHORT)
            assert len(first + await resp.read()) == size


@pytest.mark.parametrize("rounded", [True, False], ids=["at_threshold", "below_threshold"])
async def test_long_totals_end_at_whole_seconds_of_the_loops_clock(rounded: bool) -> None:
    loop = asyncio.get_running_loop()
    async with LocalServer() as server, express_session() as session:
        await _read(session, server.url("/ok"))
        await asyncio.sleep(math.ceil(loop.time()) - loop.time() + 0.3)
        start = loop.time()
        timeout = Timeout(total=0.25, ceil_threshold=0.1 if rounded else 5)
        with pytest.raises(asyncio.TimeoutError):
            await _read(session, server.url("/hold"), timeout=timeout)
        due = math.ceil(start + 0.25) if rounded else start + 0.25
        assert due - 0.01 <= loop.time() < due + 0.3


async def test_slots_of_timed_out_requests_are_free_and_their_connections_are_not_reused() -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session(connector=wirespeed.TCPConnector(limit=2)) as session:
            for kind in (Timeout(total=0.05), Timeout(sock_read=0.05)):
                for path in ("/hold", "/half"):
                    requests = [_read(session, server.url(path), timeout=kind) for _ in range(4)]
                    results = await asyncio.gather(*requests, return_exceptions=True)
                    assert {isinstance(result, asyncio.TimeoutError) for result in results} == {True}
                    for exchange in server.held[-4:]:
                        exchange.send(b"late!" * 20)
                    used = {exchange.connection for exchange in server.exchanges}
                    assert await _read(session, server.url("/ok")) == b"ok"
                    assert server.exchanges[-1].connection not in used
                    # One that a request in time-out had dialled may be idle besides.
                    for connection in server.open:
                        connection.transport.abort()
                    await eventually(lambda: not server.open, "connections closed")


async def test_a_thousand_timeouts_at_once() -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session(connector=wirespeed.TCPConnector(limit=100), at_least=1000) as session:
            timeouts = [
                Timeout(total=0.3),
                Timeout(sock_read=0.2, total=0.4),
                Timeout(connect=0.3, total=0.3),
            ]
            requests = [
                _read(session, server.url("/hold"), timeout=timeouts[n % len(timeouts)]) for n in range(1000)
            ]
            results = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), 20)
            assert {isinstance(result, asyncio.TimeoutError) for result in results} == {True}
            assert await _read(session, server.url("/ok")) == b"ok"


async def test_finished_requests_leave_no_timers_of_their_own() -> None:
    loop = asyncio.get_running_loop()
    timeout = Timeout(total=300, connect=60, sock_connect=50, sock_read=40)
    async with LocalServer() as server, nothing_left():
        async with express_session(timeout=timeout, at_least=150) as session:
            await asyncio.gather(*(_read(session, server.url("/ok")) for _ in range(50)))
            await asyncio.gather(*(_read(session, server.url("/bytes?n=100000")) for _ in range(50)))
            resp = await session.get(server.url("/half"))
            resp.close()
            for _ in range(50):
                await _read(session, server.url("/ok"))
            # One for keep-alive, at most one for the deadlines, the one of this moment's callers.
            assert len(live_timers(loop)) <= 3
