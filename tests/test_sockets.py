"""TCP options on real sockets over loopback, read back from the kernel; and on platforms without them."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.checks import eventually
from support.local import LocalServer

import wirespeed
from wirespeed.sockets import PRESETS, TCPOptions

TCP = socket.IPPROTO_TCP


@pytest.fixture
def connected() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            peer, _ = listener.accept()
            with peer:
                yield sock


def _get(sock: Any, name: str, level: int = TCP) -> int:
    value: int = sock.getsockopt(level, getattr(socket, name))
    return value


def test_nothing_but_nodelay_is_set_by_default(connected: socket.socket) -> None:
    TCPOptions().apply(connected)
    assert _get(connected, "TCP_NODELAY")
    assert not _get(connected, "SO_KEEPALIVE", socket.SOL_SOCKET)
    TCPOptions(nodelay=False).apply(connected)
    assert not _get(connected, "TCP_NODELAY")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_the_kernel_has_then(name: str, connected: socket.socket) -> None:
    options = PRESETS[name]
    options.apply(connected)
    assert _get(connected, "TCP_NODELAY")
    assert _get(connected, "SO_KEEPALIVE", socket.SOL_SOCKET)
    for option, value in (
        ("TCP_KEEPIDLE", options.probe_after),
        ("TCP_KEEPINTVL", options.probe_every),
        ("TCP_KEEPCNT", options.probes),
        ("TCP_USER_TIMEOUT", None if options.user_timeout is None else options.user_timeout * 1000),
    ):
        if hasattr(socket, option):
            assert _get(connected, option) == value, option


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_user_timeout_is_in_milliseconds_and_never_nothing(connected: socket.socket) -> None:
    for seconds, milliseconds in ((1.5, 1500), (0.0001, 1), (2_147_483, 2_147_483_000)):
        TCPOptions(user_timeout=seconds).apply(connected)
        assert _get(connected, "TCP_USER_TIMEOUT") == milliseconds


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="elsewhere it has another name")
def test_what_is_allowed_at_most_the_kernel_takes(connected: socket.socket) -> None:
    TCPOptions(probe_after=32_767, probe_every=32_767, probes=127, user_timeout=2_147_483.647).apply(
        connected
    )
    assert _get(connected, "TCP_KEEPIDLE") == 32_767


BAD = [
    ({"probe_after": 0}, ValueError, "probe_after has to be positive and at most 32,767, not 0"),
    ({"probe_after": 32_768}, ValueError, "at most 32,767"),
    ({"probe_after": 1.5}, TypeError, "probe_after has to be a whole number, not 1.5"),
    ({"probe_after": True}, TypeError, "probe_after has to be a whole number, not True"),
    ({"probe_every": None}, TypeError, "probe_every has to be a whole number, not None"),
    ({"probe_every": -1}, ValueError, "probe_every has to be positive"),
    ({"probes": 128}, ValueError, "probes has to be positive and at most 127, not 128"),
    ({"user_timeout": 0}, ValueError, "user_timeout has to be positive"),
    ({"user_timeout": float("nan")}, ValueError, "user_timeout has to be positive"),
    ({"user_timeout": 1e9}, ValueError, "user_timeout has to be positive and at most 2,147,483.647"),
    ({"user_timeout": "5"}, TypeError, "user_timeout has to be a number, not '5'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD, ids=[str(row[0]) for row in BAD])
def test_values_that_a_kernel_would_refuse_are_refused_when_they_are_given(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        TCPOptions(**arguments)
    assert message in str(caught.value)


def test_presets_are_found_by_name() -> None:
    own = TCPOptions(probe_after=5)
    assert TCPOptions.of(own) is own
    assert TCPOptions.of(None) is None
    assert TCPOptions.of("nat") is PRESETS["nat"]
    with pytest.raises(ValueError, match="no such preset of TCP options: 'NAT'; there are 'lan'"):
        TCPOptions.of("NAT")
    with pytest.raises(TypeError, match="tcp has to be TCPOptions"):
        TCPOptions.of(b"nat")  # type: ignore[arg-type]


# Platforms

ALL = TCPOptions(probe_after=7, probe_every=3, probes=2, user_timeout=1)


def _without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.delattr(socket, name, raising=False)


def test_options_that_the_platform_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    assert ALL.settings() == [(TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]


def test_macos_has_another_name_for_the_first_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "TCP_KEEPIDLE", "TCP_USER_TIMEOUT")
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 0x10, raising=False)
    assert (TCP, 0x10, 7) in ALL.settings()


# On the connections of a connector


async def test_connector_sets_them_on_its_connections() -> None:
    """Looked for from outside: among the sockets of this process."""
    found: list[socket.socket] = []

    class Noted(TCPOptions):
        def apply(self, sock: Any) -> None:
            super().apply(sock)
            found.append(sock.dup() if hasattr(sock, "dup") else sock)

    async with LocalServer() as server:
        connector = wirespeed.TCPConnector(tcp=Noted(nodelay=False, probe_after=77))
        async with wirespeed.ClientSession(connector=connector) as session:
            async with session.get(server.url("/ok")) as resp:
                await resp.read()
            (sock,) = found
            assert not _get(sock, "TCP_NODELAY")
            assert _get(sock, "SO_KEEPALIVE", socket.SOL_SOCKET)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert _get(sock, "TCP_KEEPIDLE") == 77
            sock.close()
        await eventually(lambda: not server.open, "connections closed")


async def test_option_that_the_kernel_refuses_is_an_error_of_the_connection() -> None:
    class Refused(TCPOptions):
        def apply(self, sock: Any) -> None:
            raise OSError(22, "Invalid argument")

    async with LocalServer() as server:
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(tcp=Refused())) as session:
            with pytest.raises(wirespeed.ClientOSError, match="Invalid argument"):
                await session.get(server.url("/ok"))
            assert session.connector is not None
            await eventually(lambda: not server.open, "connection closed")
            assert "0 in use" in repr(session.connector)
