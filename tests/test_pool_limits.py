"""Limits, waiting, refusing and evicting: who gets a connection, who does not, and what they are told.

What dials do while somebody waits is in test_pool_dials.py.
"""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from support.checks import eventually, express_session, nothing_left
from support.local import Connection, LocalServer
from support.pools import WAYS, Way, end, every_way, figures, held, hold, needs_pool, read, start

import wirespeed

pytestmark = needs_pool

Timeout = aiohttp.ClientTimeout
SHORT = 0.1
NEVER = 30.0  # a timeout that is not to pass

# The ways whose connections have the key that plain requests have: a proxied one has another.
SAME_HOST = [way for way in WAYS if "proxy" not in way.name]


def _session(way: Way, connector: wirespeed.TCPConnector, **kwargs: Any) -> wirespeed.ClientSession:
    return wirespeed.ClientSession(connector=connector, **way.options(), **kwargs)


def _pool_error(result: BaseException | None) -> Any:
    """An error of the pool's; Any, since its attributes are those of a Pressure."""
    assert isinstance(result, (wirespeed.PoolTimeout, wirespeed.PoolFull)), result
    return result


# Limits, over both lanes


@pytest.mark.parametrize("limits", [{"limit": 3}, {"limit": 0, "limit_per_host": 3}], ids=["total", "host"])
async def test_limit_holds_over_every_way_into_the_pool_together(limits: dict[str, int]) -> None:
    ways = SAME_HOST if "limit_per_host" in limits else WAYS
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(**limits)
        async with AsyncExitStack() as stack:
            tasks = []
            for way in ways:
                session = await stack.enter_async_context(_session(way, connector, connector_owner=False))
                tasks.append(start(way.send(session, server, "/hold")))
                await figures(connector, in_use=min(3, len(tasks)), waiting=max(0, len(tasks) - 3))
                stats = session.native_stats()
                assert (stats["express"], sum(stats["full"].values())) == (way.is_express, not way.is_express)
            await held(server, 3)
            await figures(connector, in_use=3, waiting=len(ways) - 3, dialling=0, idle=0)
            assert len(server.held) == 3
            for n in range(len(ways)):
                server.held[n].respond()
                await held(server, min(n + 4, len(ways)))
            await asyncio.gather(*tasks)
            assert server.max_active == 3
            await figures(connector, in_use=0, waiting=0, requests=len(ways))
        await connector.close()


async def test_limit_of_one_host_leaves_room_for_others() -> None:
    async with LocalServer() as server, LocalServer() as other, nothing_left():
        connector = wirespeed.TCPConnector(limit=3, limit_per_host=2)
        async with express_session(connector=connector) as session:
            tasks = [start(read(session, server.url("/hold"))) for _ in range(4)]
            await held(server, 2)
            await figures(connector, in_use=2, waiting=2)
            assert await asyncio.wait_for(read(session, other.url("/ok")), NEVER) == b"ok"
            assert len(server.held) == 2
            for n in range(4):
                await held(server, n + 1)
                server.held[n].respond()
            await asyncio.gather(*tasks)
            assert (server.max_active, len(server.connections)) == (2, 2)


async def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with AsyncExitStack() as stack:
            blocker = wirespeed.ClientSession(connector=connector, connector_owner=False)
            await stack.enter_async_context(blocker)
            tasks = [start(read(blocker, server.url("/hold")))]
            await held(server, 1)
            for way in SAME_HOST * 2:
                session = _session(way, connector, connector_owner=False)
                await stack.enter_async_context(session)
                tasks.append(start(way.send(session, server, f"/ok?n={len(tasks)}")))
                await figures(connector, waiting=len(tasks) - 1)
            server.held[0].respond()
            await asyncio.gather(*tasks)
            served = [int(exchange.query["n"]) for exchange in server.exchanges[1:]]
            assert served == list(range(1, len(tasks)))
        await connector.close()


async def test_waiters_that_give_up_do_not_hold_up_the_others() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            tasks = [start(read(session, server.url(f"/ok?{n}"))) for n in range(6)]
            await figures(connector, waiting=6)
            for n in (0, 1, 4):
                assert isinstance(await end(tasks[n]), asyncio.CancelledError)
            await figures(connector, waiting=3, in_use=1)
            server.held[0].respond()
            await asyncio.gather(holder, tasks[2], tasks[3], tasks[5])
            assert [exchange.target for exchange in server.exchanges[1:]] == ["/ok?2", "/ok?3", "/ok?5"]


async def test_hosts_take_turns() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(LocalServer()) for _ in range(3)]
        await stack.enter_async_context(nothing_left())
        connector = wirespeed.TCPConnector(limit=1)
        session = await stack.enter_async_context(express_session(connector=connector))
        seen: list[int] = []
        for number, server in enumerate(servers):
            server.routes["/seen"] = lambda x, number=number: (seen.append(number), x.respond())
        holder = start(read(session, servers[0].url("/hold")))
        await held(servers[0], 1)
        # The first host has ten before anybody else asks.
        tasks = [start(read(session, servers[0].url("/seen"))) for _ in range(10)]
        await figures(connector, waiting=10)
        tasks += [start(read(session, servers[n].url("/seen"))) for n in (1, 1, 1, 2, 2, 2)]
        await figures(connector, waiting=16)
        servers[0].held[0].respond()
        await asyncio.gather(holder, *tasks)
        rounds = [set(seen[n : n + 3]) for n in (0, 3, 6)]
        assert rounds == [{0, 1, 2}] * 3, seen
        assert seen[9:] == [0] * 7


# Refusing


@every_way
async def test_refused_at_once_when_nobody_may_wait(way: Way) -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, max_waiters=0)
        async with _session(way, connector) as session:
            holder = await hold(session, server)
            for refused in (1, 2, 3):
                with pytest.raises(wirespeed.PoolFull) as caught:
                    # Bounded by less than what the holder takes, which is for ever.
                    await asyncio.wait_for(way.send(session, server, "/ok"), NEVER)
                error = _pool_error(caught.value)
                assert isinstance(error, aiohttp.ClientConnectionError)
                assert not isinstance(error, asyncio.TimeoutError)
                assert (error.limit_name, error.limit) == ("limit", 1)
                assert (error.in_use, error.idle, error.dialling, error.waiting) == (1, 0, 0, 0)
                assert "limit=1 reached: 1 in use, 0 dialling, 0 idle, 0 waiting" in str(error)
                await figures(connector, refused=refused, waiting=0, in_use=1)
            # Nothing was sent, and not a connection was made.
            assert (len(server.connections), len(server.exchanges)) == (1, 1)
            server.held[0].respond()
            await holder
            await way.send(session, server, "/ok")
            await figures(connector, in_use=0, waiting=0, refused=3)


async def test_nobody_waits_and_nobody_is_refused_while_there_is_room() -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector(limit=2, max_waiters=0)
        async with express_session(connector=connector) as session:
            for _ in range(3):
                tasks = [start(read(session, server.url("/hold"))) for _ in range(2)]
                await figures(connector, in_use=2)
                await eventually(lambda: server.active == 2, "both at the server")
                for exchange in server.held[-2:]:
                    exchange.respond()
                await asyncio.gather(*tasks)
            assert connector.stats().refused == 0
            assert len(server.connections) == 2


async def test_hosts_of_those_refused_are_forgotten() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, max_waiters=0)
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            for n in range(1200):
                with pytest.raises(wirespeed.PoolFull):
                    await read(session, f"http://host-{n}.test/")
            # A crawler meets millions; 1,024 are remembered.
            assert connector.stats().refused == 1200
            assert len(connector.stats_by_origin()) <= 1025
            server.held[0].respond()
            await holder


async def test_as_many_wait_as_may() -> None:
    async with LocalServer() as server, LocalServer() as other, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, max_waiters=2)
        async with express_session(connector=connector) as session:
            holder = start(read(session, server.url("/hold")), "the holder")
            await held(server, 1)
            # Of whatever host: they are counted together.
            waiting = [start(read(session, at.url("/ok"))) for at in (server, other)]
            await figures(connector, waiting=2)
            for at in (server, other):
                with pytest.raises(wirespeed.PoolFull) as caught:
                    await asyncio.wait_for(read(session, at.url("/ok")), NEVER)
                error = _pool_error(caught.value)
                assert (error.in_use, error.waiting) == (1, 2)
                assert [holder.task for holder in error.holders] == ["the holder"]
            assert isinstance(await end(waiting[0]), asyncio.CancelledError)
            await figures(connector, waiting=1)
            waiting[0] = start(read(session, server.url("/ok")))
            await figures(connector, waiting=2, refused=2)
            server.held[0].respond()
            await asyncio.gather(holder, *waiting)


async def test_refused_by_the_limit_of_the_host() -> None:
    async with LocalServer() as server, LocalServer() as other, nothing_left():
        connector = wirespeed.TCPConnector(limit=10, limit_per_host=1, max_waiters=0)
        async with express_session(connector=connector) as session:
            holders = [
                start(read(session, at.url("/hold")), name) for at, name in ((other, "B"), (server, "A"))
            ]
            await held(server, 1)
            await held(other, 1)
            with pytest.raises(wirespeed.PoolFull) as caught:
                await asyncio.wait_for(read(session, server.url("/ok")), NEVER)
            error = _pool_error(caught.value)
            assert (error.limit_name, error.limit) == ("limit_per_host", 1)
            # The figures are those of the host, and so are the holders.
            assert (error.in_use, error.idle, error.dialling, error.waiting) == (1, 0, 0, 0)
            assert [holder.task for holder in error.holders] == ["A"]
            for at in (server, other):
                at.held[0].respond()
            await asyncio.gather(*holders)


async def test_body_of_a_refused_upload_is_closed() -> None:
    closed = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"never sent"
        finally:
            closed.append(True)

    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, max_waiters=0)
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            generator = body()
            with pytest.raises(wirespeed.PoolFull):
                await session.post(server.url("/ok"), data=generator)
            # Not begun, so it has nothing to close; it is the caller's again.
            assert not closed
            await generator.aclose()
            server.held[0].respond()
            await holder


# Waiting, and its end


@every_way
async def test_pool_timeout_says_what_blocked_and_who_holds(way: Way) -> None:
    async with LocalServer() as server, LocalServer() as other, nothing_left():
        connector = wirespeed.TCPConnector(limit=2, pool_timeout=SHORT)
        async with _session(way, connector) as session:
            holders = []
            for name, at in (("oldest", server), ("younger", other)):
                holders.append(start(read(session, at.url("/hold")), name))
                await held(at, 1)
            began = time.perf_counter()
            with pytest.raises(wirespeed.PoolTimeout) as caught:
                await asyncio.wait_for(way.send(session, server, "/ok"), NEVER)
            passed = time.perf_counter() - began
            error = _pool_error(caught.value)
            assert isinstance(error, aiohttp.ConnectionTimeoutError)
            assert (error.limit_name, error.limit) == ("limit", 2)
            assert (error.in_use, error.idle, error.dialling) == (2, 0, 0)
            assert SHORT - 0.01 <= error.waited <= passed
            assert [(holder.task, holder.origin) for holder in error.holders] == [
                ("oldest", server.url("")),
                ("younger", other.url("")),
            ]
            oldest, younger = error.holders
            # Both had their connections before the wait began.
            assert error.waited <= younger.age <= oldest.age
            text = str(error)
            assert "limit=2 reached: 2 in use, 0 dialling, 0 idle" in text
            assert f"{oldest}, {younger}" in text
            assert f"{server.url('')} for {oldest.age:.1f} s by oldest" in text
            assert "\n" not in text
            await figures(connector, wait_timeouts=1, waiting=0, in_use=2)
            assert len(server.exchanges) == len(other.exchanges) == 1
            for at in (server, other):
                at.held[0].respond()
            await asyncio.gather(*holders)
            await way.send(session, server, "/ok")
            await figures(connector, in_use=0, waiting=0, wait_timeouts=1)


async def test_pool_timeout_counts_those_who_wait_besides() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            others = [start(read(session, server.url("/ok"))) for _ in range(3)]
            await figures(connector, waiting=3)
            with pytest.raises(wirespeed.PoolTimeout) as caught:
                await read(session, server.url("/ok"), timeout=Timeout(connect=SHORT))
            assert _pool_error(caught.value).waiting == 3
            server.held[0].respond()
            await asyncio.gather(holder, *others)


async def test_blocking_limit_is_the_one_that_is_named() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(LocalServer()) for _ in range(3)]
        await stack.enter_async_context(nothing_left())
        connector = wirespeed.TCPConnector(limit=2, limit_per_host=1, pool_timeout=SHORT)
        session = await stack.enter_async_context(express_session(connector=connector))
        holders = [start(read(session, servers[0].url("/hold")), "first")]
        await held(servers[0], 1)
        with pytest.raises(wirespeed.PoolTimeout, match="limit_per_host=1 reached: 1 in use") as caught:
            await read(session, servers[0].url("/ok"))
        error = _pool_error(caught.value)
        assert (error.limit_name, error.limit, error.in_use) == ("limit_per_host", 1, 1)
        assert [holder.task for holder in error.holders] == ["first"]
        holders.append(start(read(session, servers[1].url("/hold")), "second"))
        await held(servers[1], 1)
        with pytest.raises(wirespeed.PoolTimeout, match="limit=2 reached: 2 in use") as caught:
            await read(session, servers[2].url("/ok"))
        error = _pool_error(caught.value)
        assert (error.limit_name, error.limit, error.in_use) == ("limit", 2, 2)
        assert [holder.task for holder in error.holders] == ["first", "second"]
        for server in servers[:2]:
            server.held[0].respond()
        await asyncio.gather(*holders)


async def test_holder_whose_task_has_ended_is_named_so() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, pool_timeout=SHORT)
        async with express_session(connector=connector) as session:
            resp = await start(session.get(server.url("/half")), "gone")
            # What the loop still knows of the task is dropped in its next steps.
            await asyncio.sleep(0.01)
            gc.collect()
            with pytest.raises(wirespeed.PoolTimeout, match="by a task that has ended") as caught:
                await read(session, server.url("/ok"))
            (holder,) = _pool_error(caught.value).holders
            assert (holder.origin, holder.task) == (server.url(""), None)
            resp.close()


@every_way
async def test_time_to_connect_that_passes_in_the_queue_is_a_pool_timeout(way: Way) -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with _session(way, connector, timeout=Timeout(connect=SHORT)) as session:
            holder = await hold(session, server)
            with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
                await asyncio.wait_for(way.send(session, server, "/ok"), NEVER)
            error = _pool_error(caught.value)
            assert isinstance(error, wirespeed.PoolTimeout)
            # What handlers of aiohttp's error look for.
            assert re.match(
                r"Connection timeout to host https?://(127\.0\.0\.1|localhost):\d+/ok", str(error)
            )
            assert (error.limit_name, error.in_use) == ("limit", 1)
            assert error.waited >= SHORT - 0.01
            await figures(connector, wait_timeouts=1, waiting=0)
            server.held[0].respond()
            await holder
            await way.send(session, server, "/ok")
            assert len(server.exchanges) == 2


@pytest.mark.parametrize(("pool_timeout", "connect"), [(SHORT, NEVER), (NEVER, SHORT)])
async def test_whichever_passes_first_ends_the_wait(pool_timeout: float, connect: float) -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, pool_timeout=pool_timeout)
        async with express_session(connector=connector, timeout=Timeout(connect=connect)) as session:
            holder = await hold(session, server)
            with pytest.raises(wirespeed.PoolTimeout) as caught:
                await asyncio.wait_for(read(session, server.url("/ok")), NEVER / 2)
            assert caught.value.waited < NEVER / 2
            server.held[0].respond()
            await holder


@every_way
async def test_total_that_passes_in_the_queue_stays_a_plain_timeout_error(way: Way) -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, pool_timeout=NEVER)
        async with AsyncExitStack() as stack:
            patient = await stack.enter_async_context(wirespeed.ClientSession(connector=connector))
            session = _session(
                way, connector, connector_owner=False, timeout=Timeout(total=SHORT, connect=NEVER)
            )
            await stack.enter_async_context(session)
            holder = start(read(patient, server.url("/hold")))
            await held(server, 1)
            with pytest.raises(asyncio.TimeoutError) as caught:
                await asyncio.wait_for(way.send(session, server, "/ok"), NEVER)
            assert type(caught.value) is asyncio.TimeoutError
            # Where aiohttp's timer cancels the task, the pool is not told why it went.
            is_told = way.name in ("plain", "call", "upload")
            await figures(connector, wait_timeouts=int(is_told), waiting=0)
            server.held[0].respond()
            await holder
            assert len(server.exchanges) == 1


@pytest.mark.parametrize("way", [way for way in WAYS if way.is_traced], ids=str)
async def test_traces_hear_of_a_wait_that_failed(way: Way) -> None:
    seen: list[str] = []
    trace = aiohttp.TraceConfig()

    def note(name: str) -> Any:
        async def on_signal(*args: object) -> None:
            seen.append(name)

        return on_signal

    for name in ("connection_queued_start", "connection_queued_end", "request_exception"):
        getattr(trace, f"on_{name}").append(note(name))
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, pool_timeout=SHORT)
        async with wirespeed.ClientSession(connector=connector, trace_configs=[trace]) as session:
            async with wirespeed.ClientSession(connector=connector, connector_owner=False) as other:
                holder = start(read(other, server.url("/hold")))
                await held(server, 1)
                with pytest.raises(wirespeed.PoolTimeout):
                    await way.send(session, server, "/ok")
                assert seen == ["connection_queued_start", "request_exception"]
                server.held[0].respond()
                await holder


# max_open


async def test_least_recently_used_idle_connection_makes_room() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(LocalServer()) for _ in range(4)]
        connector = wirespeed.TCPConnector(limit=2, max_open=3)
        session = await stack.enter_async_context(express_session(connector=connector))
        for n in (0, 1, 2, 0):
            await read(session, servers[n].url("/ok"))
        await figures(connector, idle=3, created=3, reused=1, closed={})
        await read(session, servers[3].url("/ok"))
        await eventually(lambda: not servers[1].open, "connection to the second closed")
        await figures(connector, idle=3, created=4, closed={wirespeed.CloseReason.EVICTED: 1})
        assert [len(server.open) for server in servers] == [1, 0, 1, 1]
        # The others are as good as before; the next to go is the third server's.
        await read(session, servers[0].url("/ok"))
        await read(session, servers[1].url("/ok"))
        await eventually(lambda: not servers[2].open, "connection to the third closed")
        assert [len(server.connections) for server in servers] == [1, 2, 1, 1]
        await figures(connector, idle=3, closed={wirespeed.CloseReason.EVICTED: 2})


async def test_connections_in_use_are_not_evicted() -> None:
    async with LocalServer() as server, LocalServer() as other:
        connector = wirespeed.TCPConnector(limit=2, max_open=2)
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            for _ in range(2):
                # The held one is the one that was used least recently.
                await read(session, other.url("/ok"))
                await read(session, server.url("/ok"))
            server.held[0].respond()
            await holder
            await figures(connector, idle=2, in_use=0, closed={wirespeed.CloseReason.EVICTED: 3})
            assert [len(at.connections) for at in (server, other)] == [3, 2]


async def test_never_more_open_than_max_open_whatever_happens() -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(LocalServer()) for _ in range(5)]
        await stack.enter_async_context(nothing_left())
        connector = wirespeed.TCPConnector(limit=3, max_open=4)
        session = await stack.enter_async_context(express_session(connector=connector))
        most = 0

        def look(connection: Connection) -> None:
            nonlocal most
            stats = connector.stats()
            most = max(most, stats.open + stats.dialling)

        for server in servers:
            server.on_connect = look
        await asyncio.gather(*(read(session, servers[n % 5].url("/ok")) for n in range(100)))
        assert most == 4
        await figures(connector, in_use=0, waiting=0)
        stats = connector.stats()
        assert stats.idle == 4
        assert stats.created == sum(len(server.connections) for server in servers)
        assert stats.closed == {wirespeed.CloseReason.EVICTED: stats.created - 4}


async def test_limit_is_lowered_to_max_open() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=10, max_open=2)
        async with express_session(connector=connector) as session:
            tasks = [start(read(session, server.url("/hold"))) for _ in range(5)]
            await figures(connector, in_use=2, waiting=3)
            for n in range(5):
                await held(server, n + 1)
                server.held[n].respond()
            await asyncio.gather(*tasks)
            assert len(server.connections) == 2


async def test_limit_per_host_bounds_the_idle_ones_too() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=0, limit_per_host=2)
        async with express_session(connector=connector) as session:
            for _ in range(5):
                await asyncio.gather(*(read(session, server.url("/ok")) for _ in range(8)))
            # The first may have served all before the second was made.
            await eventually(lambda: len(server.connections) == 2, "both at the server")
            await figures(connector, idle=2, created=2, in_use=0)


# The other connector, and the end


async def test_unix_connector_has_the_same_limits(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    async with LocalServer(path=path) as server, nothing_left():
        connector = wirespeed.UnixConnector(path, limit=1, max_waiters=0)
        async with express_session(connector=connector) as session:
            holder = start(read(session, server.url("/hold", host="somewhere")))
            await held(server, 1)
            with pytest.raises(wirespeed.PoolFull, match="limit=1 reached"):
                await read(session, server.url("/ok", host="somewhere"))
            server.held[0].respond()
            await holder


async def test_close_ends_those_who_wait() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1, pool_timeout=NEVER, max_waiters=5)
        session = wirespeed.ClientSession(connector=connector)
        tasks = [start(read(session, server.url("/hold"))) for _ in range(4)]
        await figures(connector, waiting=3, in_use=1)
        await held(server, 1)
        await session.close()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), NEVER)
        assert all(isinstance(result, aiohttp.ClientConnectionError) for result in results), results
        assert not any(isinstance(result, wirespeed.PoolTimeout) for result in results)
