"""How long connections live: what the user sets, what the server says, does, and is seen to do."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.checks import eventually, express_session, nothing_left
from support.local import Connection, Exchange, LocalServer, client_tls, server_tls
from support.pools import figures, held, needs_pool, read, start
from support.scripted import reset

import wirespeed
from wirespeed.observe import CloseReason

pytestmark = needs_pool

NEVER = 30.0  # more than anything here takes
CLOCKS = 0.02  # two clocks, one of them in milliseconds, need not agree to that

Route = Callable[[Exchange], None]


def _keep_alive(*values: str, body: bytes = b"ok") -> Route:
    """A route whose answer has these Keep-Alive fields."""
    return lambda x: x.respond(200, body, [("Keep-Alive", value) for value in values])


def _connector(**kwargs: Any) -> wirespeed.TCPConnector:
    # Longer than any test: what closes connections here is something else.
    return wirespeed.TCPConnector(**{"keepalive_timeout": 300, **kwargs})


async def _closed(connector: wirespeed.TCPConnector, **counts: int) -> None:
    """Wait until the connector has closed that many connections for these reasons, and no others."""
    expected = {CloseReason[name]: count for name, count in counts.items()}
    await figures(connector, closed=expected)


class _Ends:
    """How old each connection of a server was, and how long idle, when it ended."""

    def __init__(self, server: LocalServer) -> None:
        self._loop = asyncio.get_running_loop()
        self.idle_for: list[float] = []
        self.ages: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        self._routes = dict(server.routes)
        server.routes["/ok"] = self._answer
        server.on_connect = self._watch

    def _answer(self, exchange: Exchange) -> None:
        self._answered[exchange.connection.number] = self._loop.time()
        self._routes["/ok"](exchange)

    def _watch(self, connection: Connection) -> None:
        accepted, number = self._loop.time(), connection.number
        original = connection.connection_lost

        def connection_lost(exc: BaseException | None) -> None:
            now = self._loop.time()
            self.ages[number] = now - accepted
            if number in self._answered:
                self.idle_for.append(now - self._answered[number])
            original(exc)

        connection.connection_lost = connection_lost  # type: ignore[method-assign]


# What the user sets


async def test_idle_connection_is_closed_after_the_keepalive_timeout() -> None:
    async with LocalServer() as server, nothing_left():
        ends = _Ends(server)
        connector = wirespeed.TCPConnector(keepalive_timeout=0.3)
        async with express_session(connector=connector) as session:
            await read(session, server.url("/ok"))
            await read(session, server.url("/ok"))
            await figures(connector, idle=1, created=1, reused=1)
            await _closed(connector, IDLE_TIMEOUT=1)
            await eventually(lambda: ends.idle_for, "end at the server")
            assert ends.idle_for[0] >= 0.3 - CLOCKS
            await read(session, server.url("/ok"))
            assert len(server.connections) == 2


async def test_connection_is_not_used_beyond_its_age() -> None:
    loop = asyncio.get_running_loop()
    async with LocalServer() as server, nothing_left():
        connector = _connector(max_connection_age=0.4)
        async with express_session(connector=connector) as session:
            ages = []
            until = loop.time() + 1.5
            while loop.time() < until or len(server.connections) < 3:
                async with session.get(server.url("/ok")) as resp:
                    await resp.read()
                    ages.append(resp.connection_info.age)
                await asyncio.sleep(0.005)
            assert max(ages) <= 0.4
            await figures(connector, created=len(server.connections))
            ended = connector.stats().created - len(server.open)
            assert ended >= 2
            await eventually(
                lambda: connector.stats().closed == {CloseReason.MAX_AGE: ended}, "reasons counted"
            )


async def test_old_connection_is_closed_after_its_response_not_in_it() -> None:
    async with LocalServer() as server, nothing_left():
        connector = _connector(max_connection_age=0.1)
        async with express_session(connector=connector) as session:
            task = start(read(session, server.url("/hold")))
            await held(server, 1)
            await asyncio.sleep(0.3)
            assert len(server.open) == 1
            server.held[0].respond(200, b"at last")
            assert await task == b"at last"
            await _closed(connector, MAX_AGE=1)
            assert await read(session, server.url("/ok")) == b"ok"
            assert len(server.connections) == 2


async def test_connections_of_the_same_age_do_not_end_together() -> None:
    async with LocalServer() as server, nothing_left():
        count, age = 20, 2.0
        ends = _Ends(server)
        connector = _connector(max_connection_age=age)
        async with express_session(connector=connector) as session:
            assert await session.prewarm(server.url(), count) == count
            await eventually(lambda: len(server.connections) == count, "connections at the server")
            while not all(connection.lost for connection in server.connections[:count]):
                # Each of these has a connection of its own.
                await asyncio.gather(*(read(session, server.url("/ok")) for _ in range(count)))
                await asyncio.sleep(0.01)
            ages = [ends.ages[number] for number in range(count)]
            assert 0.9 * age - CLOCKS <= min(ages)
            # Twenty draws from a tenth of the age: all in a seventh of that: one chance in 10^14.
            assert max(ages) - min(ages) > 0.1 * age / 7, ages


@pytest.mark.parametrize("most", [1, 2, 3, 100])
async def test_connection_serves_no_more_requests_than_it_may(most: int) -> None:
    async with LocalServer() as server, nothing_left():
        connector = _connector(max_requests_per_connection=most)
        async with express_session(connector=connector) as session:
            while len(server.connections) < 21:
                await read(session, server.url("/ok"))
            served = [0] * len(server.connections)
            for exchange in server.exchanges:
                served[exchange.connection.number] += 1
            # The last one has not ended.
            assert max(served) <= most
            assert min(served[:-1]) >= max(1, int(0.9 * most))
            if most == 100:
                assert len(set(served[:-1])) > 1, "no jitter"
            await eventually(
                lambda: (
                    sum(connector.stats().closed.values()) == connector.stats().created - len(server.open)
                ),
                "reasons counted",
            )
            stats = connector.stats()
            assert stats.closed.keys() == {CloseReason.MAX_REQUESTS}
            assert stats.closed[CloseReason.MAX_REQUESTS] == stats.requests_per_connection.count
            assert stats.requests_per_connection.max == max(served[: stats.requests_per_connection.count])


async def test_loans_to_the_full_lane_count_as_requests() -> None:
    async with LocalServer() as server, nothing_left():
        connector = _connector(max_requests_per_connection=2)
        async with wirespeed.ClientSession(connector=connector) as session:
            while len(server.connections) < 4:
                await read(session, server.url("/ok"), proxy=server.url())
            served = [0] * len(server.connections)
            for exchange in server.exchanges:
                served[exchange.connection.number] += 1
            assert max(served) <= 2
            assert connector.stats().closed.keys() == {CloseReason.MAX_REQUESTS}


@pytest.mark.parametrize(
    ("reuse", "taken"), [("fifo", [0, 1, 2, 0, 1, 2]), ("lifo", [2, 2, 2, 2, 2, 2])], ids=["fifo", "lifo"]
)
async def test_order_of_reuse(reuse: Any, taken: list[int]) -> None:
    async with LocalServer() as server, nothing_left():
        connector = _connector(reuse=reuse)
        async with express_session(connector=connector) as session:
            tasks = [start(read(session, server.url("/hold"))) for _ in range(3)]
            await held(server, 3)
            # They become idle in the order of their numbers.
            for n, exchange in enumerate(sorted(server.held, key=lambda x: x.connection.number)):
                exchange.respond()
                await figures(connector, idle=n + 1)
            await asyncio.gather(*tasks)
            for _ in taken:
                await read(session, server.url("/ok"))
            assert [exchange.connection.number for exchange in server.exchanges[3:]] == taken
            await figures(connector, created=3, reused=len(taken), closed={})


async def test_reuse_is_fifo_unless_told_otherwise() -> None:
    async with LocalServer() as server:
        async with express_session() as session:
            tasks = [start(read(session, server.url("/hold"))) for _ in range(2)]
            await held(server, 2)
            for n, exchange in enumerate(sorted(server.held, key=lambda x: x.connection.number)):
                exchange.respond()
                await figures(session.connector, idle=n + 1)
            await asyncio.gather(*tasks)
            for _ in range(4):
                await read(session, server.url("/ok"))
            assert [exchange.connection.number for exchange in server.exchanges[2:]] == [0, 1, 0, 1]


# What the server says (RFC 9112 appendix C.2.2, RFC 2068 section 19.7.1.1)


@pytest.mark.parametrize(
    "value",
    [
        "timeout=1",
        "timeout=1, max=100",
        "max=100,timeout=1",
        " Timeout = 1 ",
        "TIMEOUT=1",
        "x=y, timeout=1, z",
    ],
)
async def test_connection_is_given_up_before_the_server_does(value: str) -> None:
    async with LocalServer() as server, nothing_left():
        ends = _Ends(server)
        ends._routes["/ok"] = _keep_alive(value)
        connector = _connector()
        async with express_session(connector=connector) as session:
            await read(session, server.url("/ok"))
            await read(session, server.url("/ok"))
            assert len(server.connections) == 1
            await _closed(connector, SERVER_TIMEOUT=1)
            await eventually(lambda: ends.idle_for, "end at the server")
            # A quarter less than a second, and not at once.
            assert ends.idle_for[0] >= 0.75 - CLOCKS
            await read(session, server.url("/ok"))
            assert len(server.connections) == 2


async def test_the_shorter_of_both_timeouts_counts() -> None:
    async with LocalServer() as server, nothing_left():
        server.routes["/long"] = _keep_alive("timeout=60")
        connector = wirespeed.TCPConnector(keepalive_timeout=0.2)
        async with express_session(connector=connector) as session:
            await read(session, server.url("/long"))
            await _closed(connector, IDLE_TIMEOUT=1)


async def test_later_answer_says_otherwise() -> None:
    async with LocalServer() as server, nothing_left():
        server.routes["/short"] = _keep_alive("timeout=1")
        server.routes["/long"] = _keep_alive("timeout=60")
        connector = _connector()
        async with express_session(connector=connector) as session:
            await read(session, server.url("/short"))
            await read(session, server.url("/long"))
            await asyncio.sleep(1.1)
            await read(session, server.url("/ok"))
            await figures(connector, created=1, reused=2, closed={})


@pytest.mark.parametrize(
    ("value", "more"), [("max=0", 0), ("max=1", 1), ("timeout=9, max=3", 3), ("MAX = 2", 2)]
)
@pytest.mark.parametrize("before", [0, 1, 5])
async def test_connection_serves_as_many_more_requests_as_the_server_says(
    value: str, more: int, before: int
) -> None:
    async with LocalServer() as server, nothing_left():
        server.routes["/told"] = _keep_alive(value)
        connector = _connector()
        async with express_session(connector=connector) as session:
            for _ in range(before):
                await read(session, server.url("/ok"))
            await read(session, server.url("/told"))
            served = 0
            while len(server.connections) == 1:
                await read(session, server.url("/ok"))
                served += len(server.connections) == 1
            # In a connection's first answer the number may be that of all its requests (Node), or of those
            # to come (Apache): the lower of both is right for both.
            assert served == more or (before == 0 and served == more - 1)
            await _closed(connector, SERVER_TIMEOUT=1)
            # The new connection has not been told anything.
            for _ in range(5):
                await read(session, server.url("/ok"))
            assert len(server.connections) == 2


@pytest.mark.parametrize("offset", [0, 1], ids=["requests to come", "requests in all"])
async def test_server_that_counts_down_never_refuses_a_request(offset: int) -> None:
    """Three requests a connection, told in each of the two ways; a fourth is refused."""
    counts: dict[int, int] = {}

    def count_down(exchange: Exchange) -> None:
        number = exchange.connection.number
        counts[number] = counts.get(number, 0) + 1
        told = 3 - counts[number] + offset
        exchange.respond(
            200 if counts[number] <= 3 else 503, b"", [("Keep-Alive", f"timeout=60, max={told}")]
        )

    async with LocalServer() as server, nothing_left():
        server.routes["/ok"] = count_down
        connector = _connector()
        async with express_session(connector=connector) as session:
            for _ in range(12):
                async with session.get(server.url("/ok")) as resp:
                    assert resp.status == 200
                    await resp.read()
            assert 4 <= len(server.connections) <= 6
            assert connector.stats().closed.keys() == {CloseReason.SERVER_TIMEOUT}


async def test_fields_of_one_answer_are_one_list() -> None:
    async with LocalServer() as server, nothing_left():
        server.routes["/told"] = _keep_alive("timeout=60", "max=0")
        connector = _connector()
        async with express_session(connector=connector) as session:
            await read(session, server.url("/told"))
            await _closed(connector, SERVER_TIMEOUT=1)


MALFORMED = [
    *("timeout", "timeout=", "timeout=abc", "timeout=-1", "timeout=1s", "timeout=0x1", "timeout=1.5.2"),
    *("max", "max=", "max=abc", "max=-1", "max=0x0", "max=0 0"),
    *(
        "",
        ",,,",
        "=",
        "=1",
        ";timeout=1",
        "timeout 1",
        "timeout:1",
        "1",
        "notimeout=1",
        "timeout-x=0",
        "maximum=0",
    ),
    *("timeout=99999999999999999999999999", "max=99999999999999999999999999", "timeout=\u00b9", "max=\u00b2"),
    "timeout=" + "9" * 4000,
]


async def test_malformed_values_are_ignored() -> None:
    async with LocalServer() as server, nothing_left():
        connector = _connector()
        async with express_session(connector=connector) as session:
            for n, value in enumerate(MALFORMED):
                server.routes[f"/{n}"] = lambda x, value=value: x.respond(200, b"", [("Keep-Alive", value)])
                await read(session, server.url(f"/{n}"))
                await asyncio.sleep(0)
                stats = connector.stats()
                assert (stats.created, stats.idle, stats.closed) == (1, 1, {}), value
            # Were one of the short ones honoured, it would show by now.
            await asyncio.sleep(1.2)
            await read(session, server.url("/ok"))
            assert len(server.connections) == 1


async def test_close_is_close_whatever_else_is_said() -> None:
    async with LocalServer() as server, nothing_left():
        headers = [("Connection", "close"), ("Keep-Alive", "timeout=60, max=100")]
        server.routes["/told"] = lambda x: x.respond(200, b"", headers)
        connector = _connector()
        async with express_session(connector=connector) as session:
            await read(session, server.url("/told"))
            await _closed(connector, SERVER_CLOSES=1)


# What the server does


def _fin(connection: Connection) -> None:
    connection.transport.close()


def _rst(connection: Connection) -> None:
    reset(connection.transport)


def _stray(connection: Connection) -> None:
    connection.transport.write(b"x")


def _second_answer(connection: Connection) -> None:
    connection.transport.write(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize(
    ("end", "reason"),
    [(_fin, "IDLE_EOF"), (_rst, "IDLE_RESET"), (_stray, "IDLE_BYTES"), (_second_answer, "IDLE_BYTES")],
    ids=["fin", "rst", "stray bytes", "second answer"],
)
async def test_idle_connection_is_dropped_the_moment_it_ends(
    end: Callable[[Connection], None], reason: str, is_tls: bool
) -> None:
    async with LocalServer(ssl_context=server_tls() if is_tls else None) as server, nothing_left():
        connector = _connector(ssl=client_tls() if is_tls else True)
        async with express_session(connector=connector) as session:
            tasks = [start(read(session, server.url("/hold"))) for _ in range(2)]
            await held(server, 2)
            for exchange in server.held:
                exchange.respond()
            await asyncio.gather(*tasks)
            await figures(connector, idle=2)
            end(server.connections[0])
            # Nobody has to ask for a connection for that.
            await figures(connector, idle=1, in_use=0, closed={CloseReason[reason]: 1})
            await eventually(lambda: server.connections[0].lost, "the client's end closed, too")
            tasks = [start(read(session, server.url("/hold"))) for _ in range(2)]
            await held(server, 4)
            assert {exchange.connection.number for exchange in server.held[2:]} == {1, 2}
            for exchange in server.held[2:]:
                exchange.respond()
            await asyncio.gather(*tasks)
            await figures(connector, created=3, stale_retries=0, closed={CloseReason[reason]: 1})


async def test_prewarmed_connection_that_ends_before_its_first_request_is_dropped() -> None:
    async with LocalServer() as server, nothing_left():
        connector = _connector()
        async with express_session(connector=connector) as session:
            assert await session.prewarm(server.url(), 2) == 2
            await eventually(lambda: len(server.open) == 2, "connections at the server")
            server.connections[0].transport.close()
            await _closed(connector, IDLE_EOF=1)
            await read(session, server.url("/ok"))
            assert server.exchanges[0].connection.number == 1


class _Impatient:
    """Closes connections that have been idle for a while."""

    def __init__(self, server: LocalServer, after: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._after = after
        self._timers: dict[int, asyncio.TimerHandle] = {}
        server.routes["/ok"] = self._answer

    def _answer(self, exchange: Exchange) -> None:
        number = exchange.connection.number
        if number in self._timers:
            self._timers[number].cancel()
        exchange.respond(200, b"ok")
        self._timers[number] = self._loop.call_later(self._after, exchange.connection.transport.close)

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()


async def test_time_after_which_a_server_closes_is_learned() -> None:
    loop = asyncio.get_running_loop()
    async with LocalServer() as server, LocalServer() as patient, nothing_left():
        impatient = _Impatient(server, 0.4)
        learning, not_learning = _connector(), _connector(learn_keepalive=False)
        async with (
            express_session(connector=learning) as session,
            express_session(connector=not_learning) as other,
        ):
            await read(session, patient.url("/ok"))
            rounds = 0
            while learning.stats(server.url("")).learned_keepalive is None:
                # Ends within a second count as one: a restart ends many connections at a time. A busy
                # machine may see an end late, and need some more.
                assert rounds < 10, "nothing learned"
                at = loop.time()
                await asyncio.gather(read(session, server.url("/ok")), read(other, server.url("/ok")))
                rounds += 1
                # At whatever age: the server, never the client.
                await _closed(learning, IDLE_EOF=rounds)
                await _closed(not_learning, IDLE_EOF=rounds)
                await asyncio.sleep(max(0.0, at + 1.5 - loop.time()))
            assert rounds >= 3, "learned from less than three"
            known = learning.stats(server.url("")).learned_keepalive
            assert known is not None
            assert 0.2 < known < 0.4
            # Now it is the client that closes, before the server does.
            await asyncio.gather(read(session, server.url("/ok")), read(other, server.url("/ok")))
            await _closed(learning, IDLE_EOF=rounds, LEARNED_TIMEOUT=1)
            await _closed(not_learning, IDLE_EOF=rounds + 1)
            # Within that time connections are used as ever.
            before = learning.stats().created
            await read(session, server.url("/ok"))
            await read(session, server.url("/ok"))
            assert learning.stats().created == before + 1
            # It is known of this origin alone, and to whom learns.
            assert learning.stats(patient.url("")).learned_keepalive is None
            assert learning.stats().learned_keepalive is None
            assert not_learning.stats(server.url("")).learned_keepalive is None
            assert len(patient.open) == 1
        impatient.stop()


async def test_restart_of_a_server_teaches_nothing() -> None:
    async with LocalServer() as server, nothing_left():
        connector = _connector()
        async with express_session(connector=connector) as session:
            for _ in range(2):
                tasks = [start(read(session, server.url("/hold"))) for _ in range(10)]
                await eventually(lambda: server.active == 10, "all at the server")
                for exchange in server.held[-10:]:
                    exchange.respond()
                await asyncio.gather(*tasks)
                await figures(connector, idle=10)
                for connection in server.open:
                    connection.transport.close()
                await figures(connector, idle=0)
            assert connector.stats(server.url("")).learned_keepalive is None
            assert connector.stats().closed == {CloseReason.IDLE_EOF: 20}


# Options of the sockets


def _options(sock: Any) -> dict[str, int]:
    names = {
        "TCP_NODELAY": socket.IPPROTO_TCP,
        "SO_KEEPALIVE": socket.SOL_SOCKET,
        "TCP_KEEPIDLE": socket.IPPROTO_TCP,
        "TCP_KEEPINTVL": socket.IPPROTO_TCP,
        "TCP_KEEPCNT": socket.IPPROTO_TCP,
        "TCP_USER_TIMEOUT": socket.IPPROTO_TCP,
    }
    return {
        name: sock.getsockopt(level, getattr(socket, name))
        for name, level in names.items()
        if hasattr(socket, name)
    }


async def _options_of_a_request(tcp: Any, *, is_tls: bool = False, **arguments: Any) -> dict[str, int]:
    async with LocalServer(ssl_context=server_tls() if is_tls else None) as server:
        connector = _connector(tcp=tcp, ssl=client_tls() if is_tls else True)
        async with wirespeed.ClientSession(connector=connector) as session:
            if arguments:
                arguments = {"proxy": server.url()}
            await read(session, server.url("/ok"), **arguments)
            (connection,) = connector.pool.connections()
            return _options(connection.transport.get_extra_info("socket"))


PRESETS = {
    "lan": {"KEEPIDLE": 10, "KEEPINTVL": 3, "KEEPCNT": 3, "USER_TIMEOUT": 20_000},
    "internet": {"KEEPIDLE": 60, "KEEPINTVL": 15, "KEEPCNT": 4, "USER_TIMEOUT": 120_000},
    "nat": {"KEEPIDLE": 25, "KEEPINTVL": 10, "KEEPCNT": 3, "USER_TIMEOUT": 60_000},
}


@pytest.mark.parametrize("way", ["express", "tls", "proxy"])
@pytest.mark.parametrize("preset", PRESETS)
async def test_preset_is_set_on_the_socket(preset: str, way: str) -> None:
    arguments = {"proxy": True} if way == "proxy" else {}
    found = await _options_of_a_request(preset, is_tls=way == "tls", **arguments)
    assert found["TCP_NODELAY"]
    assert found["SO_KEEPALIVE"]
    wanted = {f"TCP_{name}": value for name, value in PRESETS[preset].items()}
    assert {name: found[name] for name in wanted if name in found} == {
        name: value for name, value in wanted.items() if name in found
    }


async def test_options_of_ones_own_are_set_on_the_socket() -> None:
    found = await _options_of_a_request(wirespeed.TCPOptions(nodelay=False, probe_after=77, user_timeout=5.5))
    assert not found["TCP_NODELAY"]
    assert found["SO_KEEPALIVE"]
    assert found.get("TCP_KEEPIDLE", 77) == 77
    assert found.get("TCP_USER_TIMEOUT", 5500) == 5500


async def test_without_options_sockets_are_aiohttps() -> None:
    found = await _options_of_a_request(None)
    assert found["TCP_NODELAY"]
    with socket.socket() as untouched:
        plain = _options(untouched)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
        assert found.get(name) == plain.get(name)
