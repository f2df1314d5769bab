"""Dialling straight to an address: when, when not, and that it ends as aiohttp's dialling does."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any
from unittest import mock

import aiohappyeyeballs
import aiohttp
import pytest
from support.checks import eventually, nothing_left
from support.local import LocalServer, client_tls, port_that_never_accepts, server_tls
from support.names import Names
from support.pools import WAYS, Way, end, every_way, figures, held, needs_pool, read, start

import wirespeed

pytestmark = needs_pool

Timeout = aiohttp.ClientTimeout
NEVER = 30.0

if wirespeed.NATIVE:
    from wirespeed.dialling import ProtocolFactory
    from wirespeed.direct import address_for


@pytest.fixture(autouse=True)
def by_aiohttp() -> Iterator[list[int]]:
    """How many connections aiohttp's code has dialled: it asks for a protocol for each."""
    count = [0]
    make = ProtocolFactory.__call__

    def counting(factory: ProtocolFactory) -> Any:
        count[0] += 1
        return make(factory)

    with mock.patch.object(ProtocolFactory, "__call__", counting):
        yield count


@asynccontextmanager
async def _served(
    **options: Any,
) -> AsyncIterator[tuple[LocalServer, wirespeed.TCPConnector, wirespeed.ClientSession]]:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(**options)
        async with wirespeed.ClientSession(connector=connector) as session:
            yield server, connector, session


# Which way is taken

# aiohttp itself talks to the proxy.
DIRECT = [way for way in WAYS if "proxy" not in way.name]


@pytest.mark.parametrize("way", DIRECT, ids=str)
async def test_address_is_dialled_directly(way: Way, by_aiohttp: list[int]) -> None:
    async with LocalServer() as server, nothing_left(), wirespeed.ClientSession(**way.options()) as session:
        await way.send(session, server, "/ok")
        assert session.connector.stats().created == 1  # type: ignore[union-attr]
    assert by_aiohttp == [0]


@pytest.mark.parametrize("way", [way for way in WAYS if way not in DIRECT], ids=str)
async def test_proxies_are_aiohttps(way: Way, by_aiohttp: list[int]) -> None:
    async with LocalServer() as server, wirespeed.ClientSession(**way.options()) as session:
        await way.send(session, server, "/ok")
    assert by_aiohttp == [1]


async def test_dials_that_traces_listen_to_are_aiohttps(by_aiohttp: list[int]) -> None:
    told = []

    async def note(session: Any, context: Any, params: Any) -> None:
        told.append(params)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(note)
    async with LocalServer() as server, wirespeed.ClientSession(trace_configs=[trace]) as session:
        assert await read(session, server.url("/ok")) == b"ok"
    assert by_aiohttp == [1]
    assert len(told) == 1


async def test_address_of_version_6(by_aiohttp: list[int]) -> None:
    try:
        server = await asyncio.start_server(_answer, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    port = server.sockets[0].getsockname()[1]
    async with wirespeed.ClientSession() as session:
        assert await read(session, f"http://[::1]:{port}/") == b"ok"
    assert by_aiohttp == [0]
    server.close()
    await server.wait_closed()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    writer.close()


async def test_tls_is_aiohttps(by_aiohttp: list[int]) -> None:
    async with LocalServer(ssl_context=server_tls()) as server, wirespeed.ClientSession() as session:
        assert await read(session, server.url("/ok"), ssl=client_tls()) == b"ok"
    assert by_aiohttp == [1]


async def test_name_with_one_address_is_dialled_directly_once_it_is_known(by_aiohttp: list[int]) -> None:
    resolver = Names("127.0.0.1")
    async with _served(resolver=resolver, force_close=True) as (server, connector, session):
        for _ in range(3):
            assert await read(session, server.url("/ok", host="one.test")) == b"ok"
        assert connector.stats().created == 3
    assert (len(resolver.asked), by_aiohttp) == (1, [1])


async def test_name_is_resolved_again_when_its_time_has_passed(by_aiohttp: list[int]) -> None:
    resolver = Names("127.0.0.1")
    async with _served(resolver=resolver, force_close=True, ttl_dns_cache=0) as (server, _, session):
        for _ in range(2):
            await read(session, server.url("/ok", host="one.test"))
    assert (len(resolver.asked), by_aiohttp) == (2, [2])


@pytest.mark.parametrize(
    ("addresses", "options"),
    [
        (("127.0.0.1", "127.0.0.2"), {}),
        (("::1", "127.0.0.1"), {}),
        (("127.0.0.1",), {"use_dns_cache": False}),
    ],
    ids=["two", "two families", "no cache"],
)
async def test_other_names_are_aiohttps(
    addresses: tuple[str, ...], options: dict[str, Any], by_aiohttp: list[int]
) -> None:
    async with _served(resolver=Names(*addresses), force_close=True, **options) as (server, _, session):
        for _ in range(2):
            assert await read(session, server.url("/ok", host="two.test")) == b"ok"
    assert by_aiohttp == [2]


def _socket_of(info: Any) -> socket.socket:
    return socket.socket(*info[:3])


@pytest.mark.parametrize(
    "options",
    [
        {"local_addr": ("127.0.0.1", 0)},
        {"socket_factory": _socket_of},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_sockets_of_ones_own_are_aiohttps(options: dict[str, Any], by_aiohttp: list[int]) -> None:
    async with _served(**options) as (server, _, session):
        assert await read(session, server.url("/ok")) == b"ok"
    assert by_aiohttp == [1]


@pytest.mark.parametrize(
    "name",
    [
        "_create_connection",
        "_create_direct_connection",
        "_wrap_create_connection",
        "_convert_hosts_to_addr_infos",
        "_resolve_host",
    ],
)
@pytest.mark.parametrize("where", ["subclass", "instance", "aiohttp's class", "our class"])
async def test_whatever_is_overridden_or_patched_is_called(
    name: str, where: str, by_aiohttp: list[int]
) -> None:
    calls: list[str] = []

    def replacing(original: Any) -> Any:
        def replacement(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        return replacement

    cls: Any = wirespeed.TCPConnector
    with ExitStack() as stack:
        if where == "subclass":
            cls = type("Own", (cls,), {name: replacing(getattr(cls, name))})
        elif where != "instance":
            owner = aiohttp.TCPConnector if where == "aiohttp's class" else cls
            stack.enter_context(mock.patch.object(owner, name, replacing(getattr(owner, name))))
        async with LocalServer() as server, nothing_left():
            connector = cls()
            if where == "instance":
                setattr(connector, name, replacing(getattr(connector, name)))
            async with wirespeed.ClientSession(connector=connector) as session:
                assert await read(session, server.url("/ok")) == b"ok"
    assert calls == [name]
    assert by_aiohttp == [1]


@contextmanager
def _without(owner: Any, name: str) -> Iterator[list[Any]]:
    """What forbids the network: it counts, and raises."""
    calls: list[Any] = []

    def forbid(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        raise RuntimeError("no network here")

    with mock.patch.object(owner, name, forbid):
        yield calls


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (aiohappyeyeballs, "start_connection"),
        (socket, "socket"),
        (socket.socket, "connect"),
        (None, "sock_connect"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_forbids_the_network_is_not_gone_around(owner: Any, name: str) -> None:
    loop = asyncio.get_running_loop()
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        with _without(owner or loop, name) as calls, pytest.raises(RuntimeError, match="no network"):
            await read(session, server.url("/ok"))
        assert calls
        assert not server.connections


async def test_patched_loop_is_asked_as_aiohttp_asks(by_aiohttp: list[int]) -> None:
    loop: Any = asyncio.get_running_loop()
    asked: list[dict[str, Any]] = []
    create = loop.create_connection

    async def create_connection(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs)
        return await create(*args, **kwargs)

    async with LocalServer() as server, wirespeed.ClientSession() as session:
        with mock.patch.object(loop, "create_connection", create_connection):
            assert await read(session, server.url("/ok")) == b"ok"
    assert [kwargs["sock"] is not None for kwargs in asked] == [True]
    assert by_aiohttp == [1]


async def test_loop_that_is_not_known_is_left_to_aiohttp(by_aiohttp: list[int]) -> None:
    loop = asyncio.get_running_loop()
    before = type(loop)
    own: Any = type("OwnLoop", (before,), {"__module__": "somewhere"})
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        try:
            loop.__class__ = own
        except TypeError:
            pytest.skip("the class of this loop stays")
        try:
            assert await read(session, server.url("/ok")) == b"ok"
        finally:
            loop.__class__ = before
    assert by_aiohttp == [1]


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("http://127.0.0.1/", {}, ("127.0.0.1", 80)),
        ("http://127.0.0.1:8080/", {}, ("127.0.0.1", 8080)),
        ("http://[::1]:8080/", {}, ("::1", 8080)),
        ("https://127.0.0.1/", {}, None),
        ("http://[fe80::1%25lo]/", {}, None),
        ("http://2130706433/", {}, None),
        ("http://127.1/", {}, None),
        ("http://localhost/", {}, None),
        ("http://127.0.0.1/", {"family": socket.AF_INET}, ("127.0.0.1", 80)),
        ("http://127.0.0.1/", {"family": socket.AF_INET6}, None),
        ("http://[::1]/", {"family": socket.AF_INET}, None),
    ],
)
async def test_what_counts_as_an_address(url: str, options: dict[str, Any], expected: Any) -> None:
    async with wirespeed.ClientSession() as session:
        connector = wirespeed.TCPConnector(**options)
        req = aiohttp.ClientRequest(
            "GET", aiohttp.client.URL(url), loop=asyncio.get_running_loop(), session=session
        )
        assert address_for(connector, req.connection_key) == expected
        await connector.close()


# Sockets


async def test_sockets_have_the_options_of_aiohttps() -> None:
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.SOL_SOCKET, socket.SO_LINGER),
    ]
    found = []
    async with LocalServer() as server:
        for connector in (aiohttp.TCPConnector(), wirespeed.TCPConnector()):
            session = aiohttp.ClientSession(connector=connector)
            async with session, session.get(server.url("/endless")) as resp:
                assert resp.connection is not None
                assert resp.connection.transport is not None
                sock = resp.connection.transport.get_extra_info("socket")
                found.append([sock.getsockopt(*option) for option in options] + [sock.family])
    assert found[0] == found[1]


async def test_options_of_the_connector_are_set(by_aiohttp: list[int]) -> None:
    tcp = wirespeed.TCPOptions(probe_after=7)
    async with _served(tcp=tcp) as (server, connector, session):
        await read(session, server.url("/ok"))
        (conn,) = connector.pool.connections()
        sock = conn.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert by_aiohttp == [0]


async def test_options_that_the_kernel_refuses() -> None:
    async with _served(tcp="lan") as (server, connector, session):
        refuse = mock.patch.object(wirespeed.TCPOptions, "settings", return_value=[(-1, -1, -1)])
        with refuse, pytest.raises(aiohttp.ClientConnectorError) as caught:
            await read(session, server.url("/ok"))
        assert isinstance(caught.value.__cause__, OSError)
        assert "Connect call failed" not in str(caught.value)
        await figures(connector, in_use=0, dialling=0, idle=0, dial_failures=1)


async def test_response_knows_its_connection() -> None:
    async with _served(force_close=True) as (server, _, session), session.get(server.url("/ok")) as resp:
        await resp.read()
        info = resp.connection_info
        assert info is not None
        assert info.peer == ("127.0.0.1", server.port)
        assert info.local[0] == "127.0.0.1"
        assert resp.timings.connect > 0


# The pool's laws


class Slow:
    """A server that takes one connection, then none until it is told to: dials hang meanwhile."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._fillers: list[socket.socket] = []
        self.peers: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def accept(self) -> socket.socket:
        peer, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self.peers.append(peer)
        return peer

    async def read(self, peer: socket.socket) -> None:
        await asyncio.get_running_loop().sock_recv(peer, 65536)

    async def answer(self, peer: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(peer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def fill(self) -> None:
        """No more connections: the backlog is full."""
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    async def open(self) -> None:
        """Empty the backlog; what hangs comes with the kernel's next attempt, after a second."""
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await asyncio.wait_for(loop.sock_accept(self._listener), 5)
            except asyncio.TimeoutError:
                raise AssertionError("the dial did not come") from None
            if peer.fileno() < 0:
                continue
            self.peers.append(peer)
            if len(self.peers) >= 2 and _is_open(peer):
                return

    def close(self) -> None:
        for sock in (self._listener, *self._fillers, *self.peers):
            sock.close()


def _is_open(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return peer.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True


@asynccontextmanager
async def _slow(
    **options: Any,
) -> AsyncIterator[tuple[Slow, wirespeed.TCPConnector, wirespeed.ClientSession]]:
    server = Slow()
    try:
        async with nothing_left():
            connector = wirespeed.TCPConnector(**options)
            async with wirespeed.ClientSession(connector=connector) as session:
                yield server, connector, session
            server.close()
    finally:
        server.close()


async def _one_in_use(server: Slow, session: wirespeed.ClientSession) -> tuple["asyncio.Task[Any]", Any]:
    first = start(read(session, server.url))
    peer = await server.accept()
    await server.read(peer)
    server.fill()
    return first, peer


async def test_freed_connection_is_taken_while_the_dial_goes_on(by_aiohttp: list[int]) -> None:
    async with _slow() as (server, connector, session):
        first, peer = await _one_in_use(server, session)
        second = start(read(session, server.url))
        await figures(connector, in_use=1, dialling=1)
        await server.answer(peer)
        assert await first == b"ok"
        await server.read(peer)
        await server.answer(peer)
        assert await second == b"ok"
        await figures(connector, in_use=0, dialling=1, idle=1, created=1, reused=1)
        await server.open()
        await figures(connector, in_use=0, dialling=0, idle=2, created=2, dial_failures=0)
    assert by_aiohttp == [0]


async def test_dial_that_nobody_needs_makes_way_for_others() -> None:
    async with _slow(limit=2) as (server, connector, session):
        first, peer = await _one_in_use(server, session)
        second = start(read(session, server.url))
        await figures(connector, in_use=1, dialling=1)
        await server.answer(peer)
        await first
        await server.read(peer)
        # The second has the freed connection, its dial the other slot; the third has to wait for a slot.
        third = start(read(session, server.url))
        await figures(connector, in_use=1, dialling=1, waiting=1)
        await figures(connector, dial_failures=1)
        await server.answer(peer)
        assert await second == b"ok"
        await server.read(peer)
        await server.answer(peer)
        assert await third == b"ok"


async def test_closing_ends_a_dial_that_goes_on() -> None:
    async with _slow() as (server, connector, session):
        first, peer = await _one_in_use(server, session)
        second = start(read(session, server.url))
        await figures(connector, dialling=1)
        await server.answer(peer)
        await first
        await server.read(peer)
        await server.answer(peer)
        await second
        await session.close()
        assert not connector.pool.dials
        assert connector.stats().dialling == 0


async def test_closing_fails_those_who_dial() -> None:
    async with _slow() as (server, connector, session):
        server.fill()
        task = start(read(session, server.url))
        await figures(connector, dialling=1)
        await session.close()
        with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
            await task
        assert connector.stats().dialling == 0


@pytest.mark.parametrize("rounds", range(1, 9))
@every_way
async def test_cancelled_at_any_moment_leaves_nothing(way: Way, rounds: int) -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=1)
        async with wirespeed.ClientSession(connector=connector, **way.options()) as session:
            task = start(way.send(session, server, "/ok"))
            for _ in range(rounds):
                await asyncio.sleep(0)
            await end(task)
            await figures(connector, in_use=0, dialling=0, waiting=0)
            await way.send(session, server, "/ok")


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (Timeout(sock_connect=0.05), aiohttp.ConnectionTimeoutError),
        (Timeout(connect=0.05), aiohttp.ConnectionTimeoutError),
        (Timeout(total=0.05), asyncio.TimeoutError),
    ],
    ids=["sock_connect", "connect", "total"],
)
async def test_time_passes_while_it_dials(timeout: Timeout, expected: type[Exception]) -> None:
    with port_that_never_accepts() as port:
        async with nothing_left():
            connector = wirespeed.TCPConnector()
            async with wirespeed.ClientSession(connector=connector) as session:
                with pytest.raises(expected) as caught:
                    await read(session, f"http://127.0.0.1:{port}/", timeout=timeout)
                assert type(caught.value) is expected
                await figures(connector, in_use=0, dialling=0, dial_failures=1)


async def test_server_that_drops_connections_is_not_dialled_for_ever(by_aiohttp: list[int]) -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    dropping = await asyncio.start_server(drop, "127.0.0.1", 0)
    port = dropping.sockets[0].getsockname()[1]
    async with wirespeed.ClientSession() as session:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await read(session, f"http://127.0.0.1:{port}/")
        assert session.connector.stats().created <= 2  # type: ignore[union-attr]
    dropping.close()
    await dropping.wait_closed()


async def test_connection_that_is_lost_before_it_is_used() -> None:
    """The dial ends, and before its caller runs the connection is gone."""
    async with _served() as (server, connector, session):
        pool = connector.pool
        task = start(read(session, server.url("/ok")))
        await eventually(pool.connections, "connection")
        (conn,) = pool.connections()
        conn.close()
        with suppress(aiohttp.ServerDisconnectedError):
            assert await task == b"ok"
        await figures(connector, in_use=0, dialling=0, waiting=0)


async def test_limit_holds_over_direct_dials() -> None:
    async with _served(limit=3, force_close=True) as (server, connector, session):
        tasks = [start(read(session, server.url("/hold"))) for _ in range(6)]
        await held(server, 3)
        await figures(connector, in_use=3, waiting=3)
        for number in range(6):
            await held(server, number + 1)
            server.held[number].respond()
        assert len(await asyncio.gather(*tasks)) == 6
        assert connector.stats().created == 6
        await eventually(lambda: not server.open, "connections closed")


async def test_prewarming_keeps_to_aiohttps_dialling(by_aiohttp: list[int]) -> None:
    async with _served() as (server, connector, session):
        assert await session.prewarm(server.url(), 2) == 2
        assert connector.stats().created == 2
    assert by_aiohttp == [2]


Observed = Callable[..., None]


async def test_observers_are_told_of_a_dial_that_failed() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        errors: list[BaseException | None] = []

        class Observer:
            def request_ended(
                self, origin: str, method: str, status: Any, duration: float, error: Any
            ) -> None:
                errors.append(error)

            def connection_closed(self, *args: Any) -> None:
                pass

        connector = wirespeed.TCPConnector()
        connector.add_observer(Observer())  # type: ignore[arg-type]
        async with wirespeed.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await read(session, f"http://127.0.0.1:{port}/")
        assert errors == [caught.value]
