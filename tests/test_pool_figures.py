"""What the pool tells of itself: exact figures for known sequences, per origin and altogether.

What responses tell is in test_pool_timings.py.
"""

import asyncio
import dataclasses
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.checks import assert_express, eventually, express_session, nothing_left
from support.local import BLOCK, Exchange, LocalServer, client_tls, server_tls
from support.pools import end, figures, held, hold, needs_pool, read, start
from support.scripted import Close, Expect, Reset, ScriptedServer, Send, reset

import wirespeed
from wirespeed.observe import CloseReason, Histogram, PoolStats, Spread
from wirespeed.observe.stats import WAIT_BOUNDS

pytestmark = needs_pool

Timeout = aiohttp.ClientTimeout
NEVER = 30.0  # more than anything here takes
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"


def _counts(stats: PoolStats) -> dict[str, Any]:
    """All that is counted and is not zero, exactly; of times and the like, how many there were."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(stats):
        value = getattr(stats, item.name)
        if isinstance(value, Spread):
            value = value.count
        if value:
            found[item.name] = dict(value) if item.name == "closed" else value
    for name in ("bytes_in", "bytes_out"):
        found.pop(name, None)  # see below
    return found


def _check_sums(connector: wirespeed.TCPConnector) -> None:
    """The figures of the origins are those of the whole, and every one of them makes sense."""
    total, origins = connector.stats(), connector.stats_by_origin().values()
    for item in dataclasses.fields(total):
        whole = getattr(total, item.name)
        parts = [getattr(origin, item.name) for origin in origins]
        if item.name == "learned_keepalive":
            assert whole is None
        elif item.name == "closed":
            for reason in CloseReason:
                assert whole.get(reason, 0) == sum(part.get(reason, 0) for part in parts), reason
            assert 0 not in whole.values()
        elif isinstance(whole, Spread):
            assert whole.count == sum(part.count for part in parts), item.name
            assert whole.total == pytest.approx(sum(part.total for part in parts)), item.name
            assert whole.max == max((part.max for part in parts), default=0), item.name
            assert whole.max <= whole.total <= whole.max * whole.count + 1e-9
            if isinstance(whole, Histogram):
                assert whole.bounds == WAIT_BOUNDS
                assert whole.counts == tuple(map(sum, zip(*(part.counts for part in parts), strict=True)))
                assert sum(whole.counts) == whole.count
        else:
            assert whole == sum(parts), item.name
    assert total.open == total.in_use + total.idle
    assert total.created - sum(total.closed.values()) == total.open
    assert total.requests_per_connection.count == sum(total.closed.values())
    assert total.dials.count == total.created


# Known sequences


async def test_new_connector_has_nothing_to_tell() -> None:
    async with wirespeed.TCPConnector() as connector:
        assert connector.stats() == PoolStats()
        assert connector.stats_by_origin() == {}


async def test_every_figure_of_a_known_sequence() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, max_waiters=1)
        origin = server.url("")

        def check(**expected: Any) -> None:
            assert _counts(connector.stats()) == expected
            assert _counts(connector.stats(origin)) == expected
            assert {key: _counts(of) for key, of in connector.stats_by_origin().items()} == {origin: expected}
            _check_sums(connector)

        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            check(in_use=1, created=1, requests=1, dials=1)
            waiter = start(read(session, server.url("/ok")))
            await figures(connector, waiting=1)
            check(in_use=1, created=1, requests=1, dials=1, waiting=1)
            with pytest.raises(wirespeed.PoolFull):
                await read(session, server.url("/ok"))
            check(in_use=1, created=1, requests=1, dials=1, waiting=1, refused=1)
            await end(waiter)
            check(in_use=1, created=1, requests=1, dials=1, refused=1)
            with pytest.raises(wirespeed.PoolTimeout):
                await read(session, server.url("/ok"), timeout=Timeout(connect=0.02))
            known = {"created": 1, "dials": 1, "refused": 1, "wait_timeouts": 1}
            check(in_use=1, requests=1, **known)
            waiter = start(read(session, server.url("/ok")))
            await figures(connector, waiting=1)
            server.held[0].respond()
            await asyncio.gather(holder, waiter)
            check(idle=1, requests=2, reused=1, waits=1, **known)
            await read(session, server.url("/ok"))
            check(idle=1, requests=3, reused=2, waits=1, **known)
            resp = await session.get(server.url("/half"))
            check(in_use=1, requests=4, reused=3, waits=1, **known)
            resp.close()
            ended = {CloseReason.ABANDONED: 1}
            check(requests=4, reused=3, waits=1, closed=ended, requests_per_connection=1, **known)
            await read(session, server.url("/ok"))
            known |= {"created": 2, "dials": 2, "requests": 5, "reused": 3, "waits": 1}
            check(idle=1, closed=ended, requests_per_connection=1, **known)
            lives = connector.stats().requests_per_connection
            assert (lives.count, lives.total, lives.max, lives.mean) == (1, 4, 4, 4)
        ended[CloseReason.POOL_CLOSED] = 1
        check(closed=ended, requests_per_connection=2, **known)
        lives = connector.stats().requests_per_connection
        assert (lives.count, lives.total, lives.max, lives.mean) == (2, 5, 4, 2.5)


async def test_waits_are_measured() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            began = time.perf_counter()
            waiters = [start(read(session, server.url("/ok"))) for _ in range(3)]
            await figures(connector, waiting=3)
            await asyncio.sleep(0.12)
            # Those who wait are not counted yet, nor will the one be that goes without a slot.
            assert connector.stats().waits == Histogram()
            await end(waiters.pop())
            server.held[0].respond()
            await asyncio.gather(holder, *waiters)
            passed = time.perf_counter() - began
            waits = connector.stats().waits
            assert waits.count == 2
            assert 0.11 <= waits.mean <= waits.max <= passed
            assert waits.total <= 2 * waits.max
            # Each is in its bucket: at most the bound, and above the one before.
            buckets = [n for n, count in enumerate(waits.counts) for _ in range(count)]
            assert len(buckets) == 2
            bounds = (0.0, *WAIT_BOUNDS, float("inf"))
            assert bounds[buckets[1]] < waits.max <= bounds[buckets[1] + 1]
            assert buckets[0] >= WAIT_BOUNDS.index(0.2)


async def test_dials_and_handshakes_are_measured() -> None:
    async with LocalServer() as server, LocalServer(ssl_context=server_tls()) as tls, nothing_left():
        connector = wirespeed.TCPConnector(ssl=client_tls())
        async with express_session(connector=connector) as session:
            await read(session, server.url("/ok"))
            assert connector.stats().tls_handshakes == Spread()
            for _ in range(2):
                await read(session, tls.url("/ok"))
            await session.prewarm(tls.url(), 3)
            assert connector.stats(server.url("")).tls_handshakes == Spread()
            dials, handshakes = (
                connector.stats(tls.url("")).dials,
                connector.stats(tls.url("")).tls_handshakes,
            )
            assert (dials.count, handshakes.count) == (3, 3)
            assert 0 < handshakes.max <= dials.max < NEVER
            assert handshakes.total < dials.total
            _check_sums(connector)


async def test_failed_dials_are_counted_and_not_measured() -> None:
    async with LocalServer(raw=True) as silent, nothing_left():
        connector = wirespeed.TCPConnector()
        async with wirespeed.ClientSession(connector=connector) as session:
            url = silent.url("/", scheme="https")
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await read(session, url, timeout=Timeout(sock_connect=0.1))
            silent.on_data = lambda connection, data: connection.transport.abort()
            with pytest.raises(aiohttp.ClientConnectorError):
                await read(session, url)
            await figures(connector, dial_failures=2, dialling=0)
            assert _counts(connector.stats()) == {"dial_failures": 2}
            _check_sums(connector)


async def test_retries_on_stale_connections_are_counted() -> None:
    script = [(Expect(), Send(ANSWER), Expect(), how) for how in (Close(), Reset())]
    server = ScriptedServer(script)
    await server.start()
    try:
        async with nothing_left():
            connector = wirespeed.TCPConnector()
            async with express_session(connector=connector) as session:
                for n, body in enumerate((b"first", b"first", b"plain")):
                    assert await read(session, f"{server.base}/{n}") == body
                assert len(server.peers) == 3
                stats = connector.stats()
                # /0; /1 twice; /2 twice.
                assert (stats.stale_retries, stats.requests, stats.created, stats.reused) == (2, 5, 3, 2)
                assert stats.closed == {CloseReason.LOST: 2}
                _check_sums(connector)
    finally:
        await server.stop()


async def test_what_is_not_sent_again_is_no_retry() -> None:
    server = ScriptedServer([(Expect(), Send(ANSWER), Expect(), Close())])
    await server.start()
    try:
        async with nothing_left():
            connector = wirespeed.TCPConnector()
            async with express_session(connector=connector) as session:
                await read(session, server.base)
                with pytest.raises(aiohttp.ServerDisconnectedError):
                    await session.post(server.base, data=b"x")
                assert connector.stats().stale_retries == 0
                # Nor is it stale when it is the connection's first request.
                await figures(connector, created=1, requests=2, closed={CloseReason.LOST: 1})
    finally:
        await server.stop()


# Bytes


async def _stream() -> AsyncIterator[bytes]:
    for n in range(5):
        yield b"part %d" % n * 1000
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
async def test_bytes_are_those_that_the_server_saw(is_tls: bool) -> None:
    async with LocalServer(ssl_context=server_tls() if is_tls else None) as server, nothing_left():
        connector = wirespeed.TCPConnector(ssl=client_tls() if is_tls else True)

        def check() -> None:
            stats = connector.stats()
            assert stats.bytes_out == sum(connection.total_received for connection in server.connections)
            assert stats.bytes_in == sum(connection.total_sent for connection in server.connections)

        async with express_session(connector=connector, at_least=9) as session:
            await read(session, server.url("/ok"))
            assert connector.stats().bytes_out > 0
            check()
            for path in ("/bytes?n=3000000", "/chunked?n=1000000", "/redirect?to=/ok", "/bytes?n=0"):
                await read(session, server.url(path))
                check()
            for data in (b"small", io.BytesIO(BLOCK * 30), _stream(), {"a": "form"}):
                async with session.post(server.url("/ok"), data=data) as resp:
                    await resp.read()
                check()
            async with session.head(server.url("/ok")) as resp:
                await resp.read()
            check()
            tasks = [start(read(session, server.url(f"/bytes?n={n}00000"))) for n in range(10)]
            await asyncio.gather(*tasks)
            check()
            _check_sums(connector)


async def test_bytes_of_a_response_that_is_not_read_to_its_end() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector()
        async with express_session(connector=connector) as session:
            resp = await session.get(server.url("/half"))
            assert await resp.content.readexactly(5) == b"half-"
            (connection,) = server.connections
            assert connector.stats().bytes_in == connection.total_sent
            resp.close()
            # Nor does the end of the connection take them back.
            assert connector.stats().bytes_in == connection.total_sent


async def test_loans_to_the_full_lane_are_requests_without_bytes() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector()
        async with wirespeed.ClientSession(connector=connector) as session:
            for _ in range(2):
                await read(session, server.url("/ok"), proxy=server.url())
            stats = connector.stats()
            assert (stats.requests, stats.created, stats.reused, stats.idle) == (2, 1, 1, 1)
            assert (stats.bytes_in, stats.bytes_out) == (0, 0)
            _check_sums(connector)


# Reasons


def _headers(*fields: tuple[str, str]) -> Callable[[Exchange], None]:
    return lambda x: x.respond(200, b"ok", list(fields))


async def _abandon(session: wirespeed.ClientSession, server: LocalServer) -> None:
    (await session.get(server.url("/half"))).close()


async def _cancel(session: wirespeed.ClientSession, server: LocalServer) -> None:
    task = start(read(session, server.url("/hold")))
    await held(server, 1)
    await end(task)


async def _time_out(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await read(session, server.url("/hold"), timeout=Timeout(total=0.05))


async def _time_out_reading(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(aiohttp.SocketTimeoutError):
        await read(session, server.url("/half"), timeout=Timeout(sock_read=0.05))


async def _drop(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await session.post(server.url("/drop"))


async def _cut(session: wirespeed.ClientSession, server: LocalServer) -> None:
    server.routes["/cut"] = lambda x: (
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-"),
        x.connection.transport.close(),
    )
    with pytest.raises(aiohttp.ClientPayloadError):
        await read(session, server.url("/cut"))


async def _closing(session: wirespeed.ClientSession, server: LocalServer) -> None:
    server.routes["/closing"] = _headers(("Connection", "close"))
    await read(session, server.url("/closing"))


async def _until_end(session: wirespeed.ClientSession, server: LocalServer) -> None:
    server.routes["/end"] = lambda x: (
        x.send(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nall"),
        x.connection.transport.close(),
    )
    assert await read(session, server.url("/end")) == b"all"


async def _surplus(session: wirespeed.ClientSession, server: LocalServer) -> None:
    server.routes["/more"] = lambda x: x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + ANSWER)
    assert await read(session, server.url("/more")) == b"ok"


async def _malformed(session: wirespeed.ClientSession, server: LocalServer) -> None:
    server.routes["/bad"] = lambda x: x.send(b"nonsense\r\n\r\n")
    with pytest.raises(aiohttp.ClientResponseError):
        await read(session, server.url("/bad"))


async def _early_answer(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.sleep(NEVER)

    server.early_routes["/early"] = lambda x: x.respond(403, b"no")
    async with session.post(server.url("/early"), data=body()) as resp:
        assert await resp.read() == b"no"


async def _switch_protocols(session: wirespeed.ClientSession, server: LocalServer) -> None:
    server.routes["/up"] = lambda x: x.send(
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
    )
    resp = await session.get(server.url("/up"))
    resp.close()


async def _full_lane_in_doubt(session: wirespeed.ClientSession, server: LocalServer) -> None:
    resp = await session.get(server.url("/half"), proxy=server.url())
    resp.close()


async def _idle(session: wirespeed.ClientSession, server: LocalServer, then: Callable[[Any], object]) -> None:
    await read(session, server.url("/ok"))
    await figures(session.connector, idle=1)
    then(server.connections[0].transport)


REASONS: list[tuple[CloseReason, dict[str, Any], Callable[..., Awaitable[None]]]] = [
    (CloseReason.FORCE_CLOSE, {"force_close": True}, lambda s, x: read(s, x.url("/ok"))),
    (CloseReason.SERVER_CLOSES, {}, _closing),
    (CloseReason.SERVER_CLOSES, {}, _until_end),
    (CloseReason.SURPLUS_BYTES, {}, _surplus),
    (CloseReason.IDLE_BYTES, {}, lambda s, x: _idle(s, x, lambda transport: transport.write(b"x"))),
    (CloseReason.IDLE_EOF, {}, lambda s, x: _idle(s, x, lambda transport: transport.close())),
    (CloseReason.IDLE_RESET, {}, lambda s, x: _idle(s, x, reset)),
    (CloseReason.IDLE_TIMEOUT, {"keepalive_timeout": 0.05}, lambda s, x: read(s, x.url("/ok"))),
    (CloseReason.MALFORMED, {}, _malformed),
    (CloseReason.LOST, {}, _drop),
    (CloseReason.LOST, {}, _cut),
    (CloseReason.ABANDONED, {}, _abandon),
    (CloseReason.ABANDONED, {}, _cancel),
    (CloseReason.TIMED_OUT, {}, _time_out),
    (CloseReason.TIMED_OUT, {}, _time_out_reading),
    (CloseReason.UPLOAD_UNFINISHED, {}, _early_answer),
    (CloseReason.UPGRADED, {}, _switch_protocols),
    (CloseReason.LENT_UNCLEAN, {}, _full_lane_in_doubt),
]


@pytest.mark.parametrize(
    ("reason", "arguments", "do"), REASONS, ids=[f"{row[0].name}-{n}" for n, row in enumerate(REASONS)]
)
async def test_connection_is_counted_under_why_it_ended(
    reason: CloseReason, arguments: dict[str, Any], do: Callable[..., Awaitable[None]]
) -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(**arguments)
        async with wirespeed.ClientSession(connector=connector) as session:
            await do(session, server)
            await figures(connector, closed={reason: 1}, in_use=0, idle=0, created=1)
            assert len(server.connections) == 1
            _check_sums(connector)
        # The end of the connector has nothing to add.
        assert connector.stats().closed == {reason: 1}


# Origins


async def test_origins_add_up_to_the_whole_over_a_mix_of_everything() -> None:
    async with (
        LocalServer() as server,
        LocalServer() as other,
        LocalServer(ssl_context=server_tls()) as tls,
        nothing_left(),
    ):
        connector = wirespeed.TCPConnector(ssl=client_tls(), limit=4, max_waiters=12, keepalive_timeout=0.3)
        async with wirespeed.ClientSession(connector=connector) as session:
            origins = {at.url("") for at in (server, other, tls)}
            for _ in range(3):
                requests = []
                for at in (server, other, tls):
                    for path in ("/ok", "/drop", "/bytes?n=100000", "/half", "/redirect?to=/ok"):
                        requests.append(read(session, at.url(path), timeout=Timeout(total=0.3)))
                    requests.append(session.prewarm(at.url(), 2))
                results = await asyncio.gather(*requests, return_exceptions=True)
                assert b"ok" in results
                assert connector.stats_by_origin().keys() == origins
                _check_sums(connector)
            await figures(connector, idle=0, in_use=0, dialling=0)
            assert connector.stats_by_origin().keys() == origins
            _check_sums(connector)
            stats = connector.stats()
            # That it was a mix.
            assert {CloseReason.LOST, CloseReason.IDLE_TIMEOUT, CloseReason.TIMED_OUT} <= stats.closed.keys()
            assert stats.tls_handshakes.count
            assert stats.waits.count
        _check_sums(connector)


async def test_unknown_origin_has_nothing_to_tell() -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector()
        async with express_session(connector=connector) as session:
            await read(session, server.url("/ok"))
            assert connector.stats("http://unknown.test") == PoolStats()
            assert list(connector.stats_by_origin()) == [server.url("")]


async def test_default_ports_are_not_part_of_an_origins_name() -> None:
    class Down(aiohttp.abc.AbstractResolver):
        async def resolve(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError("the test's network is down")

        async def close(self) -> None:
            pass

    connector = wirespeed.TCPConnector(resolver=Down())
    async with wirespeed.ClientSession(connector=connector) as session:
        for url in ("http://a.test/x", "http://a.test:80/y", "https://a.test/", "http://a.test:81/"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await read(session, url)
        counted = {origin: of.dial_failures for origin, of in connector.stats_by_origin().items()}
        assert counted == {"http://a.test": 2, "https://a.test": 1, "http://a.test:81": 1}


async def test_figures_of_origins_without_connections_are_remembered() -> None:
    async with LocalServer() as server, LocalServer() as other, nothing_left():
        connector = wirespeed.TCPConnector(force_close=True)
        async with express_session(connector=connector) as session:
            for _ in range(3):
                await read(session, server.url("/ok"))
            await read(session, other.url("/ok"))
            assert connector.stats(server.url("")).requests == 3
            assert connector.stats(other.url("")).closed == {CloseReason.FORCE_CLOSE: 1}
            await read(session, server.url("/ok"))
            assert connector.stats(server.url("")).requests == 4
            _check_sums(connector)


# Snapshots


async def test_snapshot_does_not_change() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with express_session(connector=connector) as session:
            resp = await session.get(server.url("/half"))
            first, origins = connector.stats(), connector.stats_by_origin()
            as_it_was = first.as_dict(), {key: of.as_dict() for key, of in origins.items()}
            waiter = start(read(session, server.url("/ok")))
            await figures(connector, waiting=1)
            resp.close()
            await waiter
            assert (first.as_dict(), {key: of.as_dict() for key, of in origins.items()}) == as_it_was
            assert first != connector.stats()
            with pytest.raises(dataclasses.FrozenInstanceError):
                first.idle = 5  # type: ignore[misc]
            with pytest.raises(TypeError):
                connector.stats().closed[CloseReason.LOST] = 5  # type: ignore[index]
            origins.clear()
            assert connector.stats_by_origin()


async def test_figures_can_be_read_from_another_thread() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector()
        async with express_session(connector=connector) as session:
            reading = asyncio.get_running_loop().run_in_executor(None, _read_often, connector)
            while not reading.done():
                await asyncio.gather(*(read(session, server.url("/ok")) for _ in range(20)))
            await reading
            # Dials whose callers took a freed connection go on for a moment.
            await eventually(lambda: not connector.stats().dialling, "dials ended")
            assert connector.stats() == await asyncio.to_thread(connector.stats)


def _read_often(connector: wirespeed.TCPConnector) -> None:
    before = 0
    for _ in range(300):
        stats = connector.stats()
        assert before <= stats.requests
        before = stats.requests
        assert min(stats.idle, stats.in_use, stats.dialling, stats.waiting) >= 0
        assert len(connector.stats_by_origin()) <= 1
        repr(connector)


async def test_repr_is_one_readable_line() -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector(limit=7, limit_per_host=3)
        async with express_session(connector=connector) as session:
            for _ in range(2):
                line = repr(connector)
                assert line.startswith("<")
                assert line.endswith(">")
                assert "\n" not in line
                assert "TCPConnector" in line
                assert "7" in line
                assert len(line) < 200
                holder = start(read(session, server.url("/hold")))
                await eventually(lambda: server.active == 1, "at the server")
                busy = repr(connector)
                assert busy != line
                server.held[-1].respond()
                await holder
            assert_express(session, 2)
        closed = repr(connector)
        assert "\n" not in closed
        assert "closed" in closed
