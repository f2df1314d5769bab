"""Dials and those who wait for them: freed connections that come first, failures, ends, prewarming."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from support.checks import Watch, eventually, nothing_left
from support.local import LocalServer, client_tls, port_that_never_accepts, server_tls
from support.pools import WAYS, Way, end, every_way, figures, held, hold, needs_pool, read, start

import wirespeed

if wirespeed.NATIVE:
    from support.pools import GatedConnector

pytestmark = needs_pool

Timeout = aiohttp.ClientTimeout
SHORT = 0.1
NEVER = 30.0  # more than anything here takes
UNREACHABLE = OSError("the test's network is down")

# Requests with traces dial in their own task: the traces' code runs in it. A proxy has other connections.
RACING = [way for way in WAYS if not way.is_traced and "proxy" not in way.name]


@asynccontextmanager
async def _gated(
    **kwargs: Any,
) -> AsyncIterator[tuple[LocalServer, "GatedConnector", wirespeed.ClientSession]]:
    """A server, a connector that dials when it may, and a session; nothing may be left."""
    async with LocalServer() as server, nothing_left():
        connector = GatedConnector(**kwargs)
        async with wirespeed.ClientSession(connector=connector) as session:
            yield server, connector, session
        assert connector.begun == connector.ended


async def _one_in_use(
    server: LocalServer, connector: "GatedConnector", session: wirespeed.ClientSession
) -> "asyncio.Task[Any]":
    """A request that holds a connection; from now on dials wait."""
    holder = await hold(session, server)
    connector.is_gated = True
    return holder


# A freed connection, or one's own dial: whichever comes first


@pytest.mark.parametrize("way", RACING, ids=str)
async def test_freed_connection_is_taken_while_the_dial_goes_on(way: Way) -> None:
    async with _gated(limit=5) as (server, connector, session):
        holder = await _one_in_use(server, connector, session)
        async with wirespeed.ClientSession(
            connector=connector, connector_owner=False, **way.options()
        ) as other:
            task = start(way.send(other, server, "/ok"))
            await connector.dials_waiting(1)
            await figures(connector, in_use=1, dialling=1, idle=0)
            server.held[0].respond()
            await asyncio.wait_for(task, 5)
        await holder
        assert server.exchanges[-1].path == "/ok"
        assert server.exchanges[-1].connection.number == 0
        # The dial goes on, nobody waits for it, and it joins the pool.
        stats = connector.stats()
        assert (stats.dialling, stats.in_use, len(server.connections)) == (1, 0, 1)
        connector.gates[0].set_result(None)
        await figures(connector, dialling=0, in_use=0, created=2, dial_failures=0)
        await eventually(lambda: len(server.connections) == 2, "second connection")
        assert connector.stats().idle == len(server.open)


async def test_dial_that_was_overtaken_serves_the_next_request() -> None:
    async with _gated(limit=5) as (server, connector, session):
        holder = await _one_in_use(server, connector, session)
        task = start(read(session, server.url("/ok")))
        await connector.dials_waiting(1)
        server.held[0].respond()
        await asyncio.gather(holder, task)
        connector.gates[0].set_result(None)
        await figures(connector, idle=2, dialling=0, in_use=0)
        tasks = [start(read(session, server.url("/hold"))) for _ in range(2)]
        await held(server, 3)
        assert {exchange.connection.number for exchange in server.held[1:]} == {0, 1}
        for exchange in server.held[1:]:
            exchange.respond()
        await asyncio.gather(*tasks)
        assert (connector.begun, len(server.connections)) == (2, 2)
        await figures(connector, idle=2, created=2, requests=4, closed={})


async def test_dial_that_comes_first_leaves_the_freed_connection_to_others() -> None:
    async with _gated(limit=5) as (server, connector, session):
        holder = await _one_in_use(server, connector, session)
        task = start(read(session, server.url("/ok")))
        await connector.dials_waiting(1)
        connector.gates[0].set_result(None)
        assert await asyncio.wait_for(task, NEVER) == b"ok"
        assert server.exchanges[-1].connection.number == 1
        server.held[0].respond()
        await holder
        # The freed connection was not promised to the one that has long been served.
        await figures(connector, idle=2, in_use=0, dialling=0, waiting=0)
        assert await read(session, server.url("/ok")) == b"ok"
        assert len(server.connections) == 2


@pytest.mark.parametrize("is_freed_first", [True, False], ids=["freed first", "dialled first"])
async def test_both_at_about_the_same_moment_serve_the_request_once(is_freed_first: bool) -> None:
    for steps in range(12):
        async with _gated(limit=5) as (server, connector, session):
            holder = await _one_in_use(server, connector, session)
            task = start(read(session, server.url("/ok?once")))
            await connector.dials_waiting(1)
            actions = [server.held[0].respond, lambda: connector.gates[0].set_result(None)]
            for action in actions if is_freed_first else reversed(actions):
                action()
                for _ in range(steps):
                    await asyncio.sleep(0)
            await asyncio.wait_for(asyncio.gather(holder, task), NEVER)
            assert [exchange.target for exchange in server.exchanges] == ["/hold", "/ok?once"]
            await figures(
                connector, idle=2, created=2, in_use=0, dialling=0, waiting=0, requests=2, closed={}
            )


async def test_freed_connection_goes_to_the_one_that_asked_first() -> None:
    async with _gated(limit=2) as (server, connector, session):
        holder = await _one_in_use(server, connector, session)
        dialling = start(read(session, server.url("/hold?dialling")))
        await connector.dials_waiting(1)
        waiting = start(read(session, server.url("/ok?waiting")))
        await figures(connector, in_use=1, dialling=1, waiting=1)
        server.held[0].respond()
        await held(server, 2)
        assert server.held[1].target == "/hold?dialling"
        assert server.held[1].connection.number == 0
        # Its dial still takes a slot: the other goes on waiting.
        await figures(connector, in_use=1, dialling=1, waiting=1)
        assert not waiting.done()
        server.held[1].respond()
        assert await asyncio.wait_for(waiting, NEVER) == b"ok"
        assert server.exchanges[-1].connection.number == 0
        await asyncio.gather(holder, dialling)
        assert len(connector.gates) == 1


async def test_overtaken_dial_serves_the_one_that_waits() -> None:
    async with _gated(limit=2) as (server, connector, session):
        holder = await _one_in_use(server, connector, session)
        dialling = start(read(session, server.url("/hold?dialling")))
        await connector.dials_waiting(1)
        waiting = start(read(session, server.url("/ok?waiting")))
        await figures(connector, in_use=1, dialling=1, waiting=1)
        server.held[0].respond()
        await held(server, 2)
        connector.gates[0].set_result(None)
        assert await asyncio.wait_for(waiting, NEVER) == b"ok"
        assert server.exchanges[-1].connection.number == 1
        server.held[1].respond()
        await asyncio.gather(holder, dialling)
        await figures(connector, idle=2, created=2, in_use=0, dialling=0, waiting=0)


# Dials that fail


async def test_failure_of_a_dial_whose_caller_was_served_is_nobodys() -> None:
    async with _gated(limit=2) as (server, connector, session):
        holder = await _one_in_use(server, connector, session)
        task = start(read(session, server.url("/ok")))
        await connector.dials_waiting(1)
        server.held[0].respond()
        assert await asyncio.wait_for(task, NEVER) == b"ok"
        await holder
        connector.gates[0].set_exception(UNREACHABLE)
        await figures(connector, dialling=0, dial_failures=1, in_use=0, idle=1)
        # The slot is free: both can be used at the same time.
        connector.is_gated = False
        tasks = [start(read(session, server.url("/hold"))) for _ in range(2)]
        await held(server, 3)
        for exchange in server.held[1:]:
            exchange.respond()
        await asyncio.gather(*tasks)
        # `nothing_left` has seen that the loop heard of no error.


@every_way
async def test_failure_of_a_dial_is_its_callers_and_the_slot_goes_on(way: Way) -> None:
    async with _gated(limit=1) as (server, connector, _):
        connector.is_gated = True
        options = {"connector": connector, "connector_owner": False, **way.options()}
        async with wirespeed.ClientSession(**options) as session:
            failing = start(way.send(session, server, "/ok?failing"))
            await connector.dials_waiting(1)
            waiting = start(way.send(session, server, "/ok?waiting"))
            await figures(connector, dialling=1, waiting=1)
            connector.gates[0].set_exception(UNREACHABLE)
            with pytest.raises(OSError, match="network is down"):
                await asyncio.wait_for(failing, NEVER)
            await connector.dials_waiting(2)
            await figures(connector, dialling=1, waiting=0, dial_failures=1)
            connector.gates[1].set_result(None)
            await asyncio.wait_for(waiting, NEVER)
            assert [exchange.path for exchange in server.exchanges] == ["/ok"]
            await figures(connector, dialling=0, in_use=0, dial_failures=1, created=1)


async def test_time_in_the_queue_ends_where_the_dial_begins() -> None:
    async with _gated(limit=1, pool_timeout=SHORT) as (server, connector, session):
        connector.is_gated = True
        task = start(read(session, server.url("/ok")))
        await connector.dials_waiting(1)
        await asyncio.sleep(3 * SHORT)
        assert not task.done()
        connector.gates[0].set_result(None)
        assert await task == b"ok"
        assert connector.stats().wait_timeouts == 0


@every_way
async def test_time_to_connect_that_passes_in_the_dial_is_no_pool_timeout(way: Way) -> None:
    async with _gated(limit=1) as (server, connector, _):
        connector.is_gated = True
        options = {"connector": connector, "connector_owner": False, **way.options()}
        async with wirespeed.ClientSession(timeout=Timeout(connect=SHORT), **options) as session:
            with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
                await asyncio.wait_for(way.send(session, server, "/ok"), NEVER)
            assert not isinstance(caught.value, wirespeed.PoolTimeout)
            # The dial ends with its caller.
            await eventually(lambda: connector.ended == 1, "dial ended")
            await figures(connector, dialling=0, in_use=0, dial_failures=1, wait_timeouts=0)
            connector.is_gated = False
            await way.send(session, server, "/ok")


# Callers and connectors that go


@every_way
async def test_dial_of_a_cancelled_caller_ends(way: Way) -> None:
    async with _gated(limit=1) as (server, connector, _):
        connector.is_gated = True
        options = {"connector": connector, "connector_owner": False, **way.options()}
        async with wirespeed.ClientSession(**options) as session:
            task = start(way.send(session, server, "/ok"))
            await connector.dials_waiting(1)
            assert isinstance(await end(task), asyncio.CancelledError)
            await eventually(lambda: connector.ended == 1, "dial ended")
            assert connector.gates[0].cancelled()
            await figures(connector, dialling=0, in_use=0, waiting=0, dial_failures=1)
            connector.is_gated = False
            await way.send(session, server, "/ok")
            assert len(server.connections) == 1


@pytest.mark.parametrize("step", ["connect", "tls"])
async def test_socket_of_a_cancelled_callers_dial_is_closed(step: str) -> None:
    async with LocalServer(raw=True) as silent, nothing_left():
        with port_that_never_accepts() as port:
            url = f"http://127.0.0.1:{port}/" if step == "connect" else silent.url("/", scheme="https")
            async with wirespeed.ClientSession(connector=wirespeed.TCPConnector()) as session:
                before = Watch()
                task = start(read(session, url))
                if step == "tls":
                    await eventually(
                        lambda: silent.connections and silent.connections[0].received, "handshake begun"
                    )
                else:
                    await eventually(lambda: session.connector.stats().dialling == 1, "dialling")
                    await asyncio.sleep(0.05)
                assert isinstance(await end(task), asyncio.CancelledError)
                # While the session lives: it is not its end that cleans up.
                await eventually(lambda: not silent.open, "connection closed")
                await before.assert_nothing_left()


async def test_waiter_is_served_when_the_one_that_dials_is_cancelled() -> None:
    async with _gated(limit=1) as (server, connector, session):
        connector.is_gated = True
        dialling = start(read(session, server.url("/ok?dialling")))
        await connector.dials_waiting(1)
        waiting = start(read(session, server.url("/ok?waiting")))
        await figures(connector, dialling=1, waiting=1)
        assert isinstance(await end(dialling), asyncio.CancelledError)

        # Whether it goes on with that dial, or makes its own.
        def open_gates() -> bool:
            for gate in connector.gates:
                if not gate.done():
                    gate.set_result(None)
            return waiting.done()

        await eventually(open_gates, "waiter served")
        assert await waiting == b"ok"
        assert [exchange.target for exchange in server.exchanges] == ["/ok?waiting"]
        await figures(connector, in_use=0, dialling=0, waiting=0)


async def _close_the_connector(connector: "GatedConnector", session: wirespeed.ClientSession) -> None:
    await connector.close()


async def _close_the_session(connector: "GatedConnector", session: wirespeed.ClientSession) -> None:
    await session.close()


@pytest.mark.parametrize("close", [_close_the_connector, _close_the_session])
async def test_close_ends_dials_and_tells_their_callers(close: Callable[..., Any]) -> None:
    async with _gated(limit=2) as (server, connector, session):
        connector.is_gated = True
        tasks = [start(read(session, server.url("/ok"))) for _ in range(3)]
        await connector.dials_waiting(2)
        await figures(connector, dialling=2, waiting=1)
        await asyncio.wait_for(close(connector, session), NEVER)
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), NEVER)
        for result in results:
            assert isinstance(result, aiohttp.ClientConnectionError), results
            assert not isinstance(result, asyncio.TimeoutError)
            assert "closed" in str(result)
        await eventually(lambda: connector.ended == 2, "dials ended")
        assert not server.connections
        stats, origins = connector.stats(), connector.stats_by_origin()
        assert (stats.dialling, stats.waiting, stats.dial_failures) == (0, 0, 2)
        assert sum(origin.dial_failures for origin in origins.values()) == 2


async def test_close_ends_a_dial_that_nobody_waits_for() -> None:
    async with _gated(limit=2) as (server, connector, session):
        holder = await _one_in_use(server, connector, session)
        task = start(read(session, server.url("/ok")))
        await connector.dials_waiting(1)
        server.held[0].respond()
        await asyncio.gather(holder, task)
        assert connector.stats().dialling == 1
        await session.close()
        await eventually(lambda: connector.ended == connector.begun, "dial ended")
        assert connector.gates[0].cancelled()
        assert len(server.connections) == 1


async def test_dial_that_ends_after_the_close_leaves_no_connection() -> None:
    """A dial that does not let itself be cancelled, as somebody's own may be."""
    async with LocalServer() as server, nothing_left():

        class Stubborn(wirespeed.TCPConnector):
            async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
                begun.set()
                while not may_go_on.is_set():
                    try:
                        await may_go_on.wait()
                    except asyncio.CancelledError:
                        continue
                return await super()._create_connection(req, traces, timeout)

        begun, may_go_on = asyncio.Event(), asyncio.Event()
        session = wirespeed.ClientSession(connector=Stubborn())
        task = start(read(session, server.url("/ok")))
        await begun.wait()
        closing = start(session.close())
        await asyncio.sleep(0.05)
        may_go_on.set()
        await asyncio.wait_for(closing, NEVER)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(result, aiohttp.ClientConnectionError)
        await eventually(lambda: not server.open, "connection closed")
        assert not server.exchanges


# Prewarming


async def test_prewarmed_connections_are_used() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector()
        async with wirespeed.ClientSession(connector=connector) as session:
            assert await session.prewarm(server.url("/whatever"), 3) == 3
            await figures(connector, idle=3, created=3, dialling=0, in_use=0, requests=0, reused=0)
            await eventually(lambda: len(server.open) == 3, "connections at the server")
            tasks = [start(read(session, server.url("/hold"))) for _ in range(3)]
            await held(server, 3)
            assert {exchange.connection.number for exchange in server.held} == {0, 1, 2}
            for exchange in server.held:
                exchange.respond()
            await asyncio.gather(*tasks)
            await figures(connector, idle=3, created=3, reused=3, requests=3)


async def test_prewarm_opens_only_what_is_missing() -> None:
    async with _gated() as (server, connector, session):
        assert await session.prewarm(server.url()) == 1
        assert await session.prewarm(server.url()) == 1
        assert connector.begun == 1
        holder = await hold(session, server)
        # The one in use is open, too.
        assert await session.prewarm(server.url(), 3) == 3
        await figures(connector, in_use=1, idle=2, created=3)
        # And so is one that is being dialled by somebody else.
        connector.is_gated = True
        task = start(connector.prewarm(server.url(), 4))
        await connector.dials_waiting(1)
        again = start(connector.prewarm(server.url(), 5))
        await connector.dials_waiting(2)
        for gate in connector.gates:
            gate.set_result(None)
        await asyncio.wait_for(asyncio.gather(task, again), NEVER)
        await figures(connector, in_use=1, idle=4, created=5, dialling=0)
        server.held[0].respond()
        await holder


@pytest.mark.parametrize(
    "limits", [{"limit": 2}, {"limit_per_host": 2}, {"limit": 2, "max_open": 2}], ids=str
)
async def test_prewarm_stays_within_the_limits(limits: dict[str, int]) -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(**limits)
        async with wirespeed.ClientSession(connector=connector) as session:
            assert await asyncio.wait_for(session.prewarm(server.url(), 5), NEVER) == 2
            await figures(connector, idle=2, created=2, waiting=0)
            await eventually(lambda: len(server.connections) == 2, "both at the server")


async def test_prewarm_never_adds_to_idle_ones_beyond_the_limit_of_the_host() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit_per_host=2)
        async with wirespeed.ClientSession(connector=connector) as session:
            for n in (1, 2, 5):
                assert await session.prewarm(server.url(), n) == min(n, 2)
            await figures(connector, idle=2, created=2)
            await eventually(lambda: len(server.connections) == 2, "both at the server")


async def test_prewarm_never_waits_for_a_slot() -> None:
    async with LocalServer() as server, LocalServer() as other, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with wirespeed.ClientSession(connector=connector) as session:
            holder = await hold(session, server)
            assert await asyncio.wait_for(session.prewarm(other.url(), 2), NEVER) == 0
            await figures(connector, waiting=0, in_use=1, created=1, refused=0)
            server.held[0].respond()
            await holder
            assert not other.connections


async def test_prewarm_over_tls() -> None:
    trusting = client_tls()
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():
        connector = wirespeed.TCPConnector(ssl=trusting)
        async with wirespeed.ClientSession(connector=connector) as session:
            assert await session.prewarm(server.url(), 2) == 2
            await figures(connector, idle=2, created=2)
            assert connector.stats().tls_handshakes.count == 2
            assert await read(session, server.url("/ok")) == b"ok"
            await eventually(lambda: len(server.connections) == 2, "both at the server")


async def test_request_takes_the_connection_that_is_being_prewarmed() -> None:
    async with _gated(limit=1) as (server, connector, session):
        connector.is_gated = True
        warming = start(session.prewarm(server.url()))
        await connector.dials_waiting(1)
        task = start(read(session, server.url("/ok")))
        await figures(connector, dialling=1, waiting=1)
        connector.gates[0].set_result(None)
        assert await asyncio.wait_for(task, NEVER) == b"ok"
        await warming
        assert connector.begun == 1


async def test_cancelled_prewarm_leaves_nothing() -> None:
    async with _gated() as (server, connector, session):
        connector.is_gated = True
        task = start(session.prewarm(server.url(), 3))
        await connector.dials_waiting(3)
        assert isinstance(await end(task), asyncio.CancelledError)
        await figures(connector, dialling=0, in_use=0, created=0)
        await eventually(lambda: connector.ended == 3, "dials ended")


async def test_prewarming_what_does_not_answer_opens_nothing() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with nothing_left():
            connector = wirespeed.TCPConnector()
            async with wirespeed.ClientSession(connector=connector) as session:
                url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
                (result,) = await asyncio.gather(session.prewarm(url, 2), return_exceptions=True)
                assert result == 0 or isinstance(result, aiohttp.ClientConnectorError), result
                await figures(connector, dialling=0, idle=0, in_use=0, created=0, dial_failures=2)
