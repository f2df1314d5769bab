"""TLS: who is trusted, what is shared, what happens when the peer goes away."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import contextlib
import functools
import hashlib
import os
import socket
import ssl
import sys
import threading
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from support.checks import assert_express, eventually, express_session, nothing_left
from support.local import BLOCK, LocalServer, authority, client_tls, server_tls
from support.names import Names

import wirespeed

# The TLS transport of CPython 3.10's asyncio says "unclosed" when the peer closed it.
pytestmark = (
    [pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")]
    if sys.version_info < (3, 11)
    else []
)


def _context_with_fingerprint(*names: str) -> tuple[ssl.SSLContext, bytes]:
    leaf = authority().issue_cert(*names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
    return context, hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


async def _ok(session: wirespeed.ClientSession, url: str, **kwargs: Any) -> None:
    async with session.get(url, **kwargs) as resp:
        assert (resp.status, await resp.read()) == (200, b"ok")


async def test_untrusted_authority_is_refused_by_default() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():
        async with wirespeed.ClientSession() as session:
            for kwargs in ({}, {"ssl": True}):
                with pytest.raises(aiohttp.ClientConnectorCertificateError) as caught:
                    await session.get(server.url("/ok"), **kwargs)
                error = caught.value
                assert (error.host, error.port, error.ssl) == ("127.0.0.1", server.port, True)
                assert isinstance(error.certificate_error, ssl.SSLCertVerificationError)
                assert str(error).startswith(f"Cannot connect to host 127.0.0.1:{server.port} ssl:True [")
        assert server.exchanges == []


async def test_verification_can_be_turned_off() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, express_session(at_least=2) as session:
        await _ok(session, server.url("/ok"), ssl=False)
        await _ok(session, server.url("/ok"), ssl=False)
        assert len(server.connections) == 1


async def test_context_given_to_the_request() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, express_session() as session:
        context = client_tls()
        for _ in range(3):
            await _ok(session, server.url("/ok"), ssl=context)
        assert len(server.connections) == 1


async def test_context_given_to_the_connector() -> None:
    connector_settings: list[Any] = [client_tls(), False]
    for setting in connector_settings:
        async with LocalServer(ssl_context=server_tls()) as server:
            async with express_session(connector=wirespeed.TCPConnector(ssl=setting), at_least=2) as session:
                await _ok(session, server.url("/ok"))
                await _ok(session, server.url("/ok"))
            assert len(server.connections) == 1


async def test_right_fingerprint_is_trusted_and_wrong_one_is_not() -> None:
    context, digest = _context_with_fingerprint("127.0.0.1")
    async with LocalServer(ssl_context=context) as server, nothing_left():
        async with wirespeed.ClientSession() as session:
            right = aiohttp.Fingerprint(digest)
            for _ in range(2):
                await _ok(session, server.url("/ok"), ssl=right)
            assert len(server.connections) == 1
            wrong = bytes(32)
            with pytest.raises(aiohttp.ServerFingerprintMismatch) as caught:
                await session.get(server.url("/ok"), ssl=aiohttp.Fingerprint(wrong))
            assert (caught.value.expected, caught.value.got) == (wrong, digest)
            assert (caught.value.host, caught.value.port) == ("127.0.0.1", server.port)
            await eventually(lambda: len(server.open) == 1, "mistrusted connection closed")
            assert_express(session, 2)
        assert len(server.exchanges) == 2


async def test_server_sees_the_host_as_sni_and_the_override_instead() -> None:
    names: list[str | None] = []
    context = server_tls("one.test", "two.test")
    context.sni_callback = lambda _, name, __: names.append(name)
    async with LocalServer(ssl_context=context) as server:
        connector = wirespeed.TCPConnector(resolver=Names(), ssl=client_tls())
        async with express_session(connector=connector, at_least=2) as session:
            await _ok(session, server.url("/ok", host="one.test"))
            await _ok(session, server.url("/ok", host="one.test"), server_hostname="two.test")
            await _ok(session, server.url("/ok", host="one.test"), server_hostname="two.test")
    assert names == ["one.test", "two.test"]
    assert {exchange.header("Host") for exchange in server.exchanges} == {f"one.test:{server.port}"}


async def test_wrong_host_name_is_refused() -> None:
    async with LocalServer(ssl_context=server_tls("right.test")) as server, nothing_left():
        connector = wirespeed.TCPConnector(resolver=Names(), ssl=client_tls())
        async with wirespeed.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match=r"wrong\.test"):
                await session.get(server.url("/ok", host="wrong.test"))
            await _ok(session, server.url("/ok", host="right.test"))
            assert_express(session)


async def test_handshake_with_a_plain_server_is_a_connector_ssl_error() -> None:
    async with LocalServer(raw=True) as server, nothing_left():
        server.on_data = lambda connection, _: connection.transport.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        async with wirespeed.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorSSLError) as caught:
                await session.get(server.url("/", scheme="https"))
            assert isinstance(caught.value, aiohttp.ClientConnectorError)
            await eventually(lambda: not server.open, "connection closed")


async def test_server_hanging_up_in_the_handshake_is_a_client_os_error() -> None:
    async with LocalServer(raw=True) as server, nothing_left():
        server.on_data = lambda connection, _: connection.transport.abort()
        async with wirespeed.ClientSession() as session:
            with pytest.raises(aiohttp.ClientOSError):
                await session.get(server.url("/", scheme="https"))


async def test_connections_with_different_ssl_arguments_are_not_shared() -> None:
    context, digest = _context_with_fingerprint("127.0.0.1", "localhost")
    async with LocalServer(ssl_context=context) as server, express_session() as session:
        arguments: list[dict[str, Any]] = [
            {"ssl": False},
            {"ssl": client_tls()},
            {"ssl": client_tls()},
            {"ssl": aiohttp.Fingerprint(digest)},
            {"ssl": False, "server_hostname": "localhost"},
        ]
        for count, kwargs in enumerate(arguments, 1):
            await _ok(session, server.url("/ok"), **kwargs)
            assert len(server.connections) == count, kwargs
        await _ok(session, server.url("/ok"), ssl=False)
        assert len(server.connections) == len(arguments)


async def test_a_verified_request_never_uses_an_unverified_connection() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, wirespeed.ClientSession() as session:
        await _ok(session, server.url("/ok"), ssl=False)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(server.url("/ok"))
        assert len(server.exchanges) == 1


async def test_http_and_https_to_one_port_are_not_shared() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():
        async with wirespeed.ClientSession() as session:
            await _ok(session, server.url("/ok"), ssl=False)
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(server.url("/ok", scheme="http"), ssl=False)
            assert len(server.exchanges) == 1


async def test_closing_a_half_read_response_stops_the_download() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            resp = await session.get(server.url("/endless"))
            await resp.content.readexactly(100_000)
            pump = server.connections[0].pump
            assert pump is not None
            resp.close()
            if wirespeed.NATIVE:
                # aiohttp closes such a transport politely; uvloop's then goes on reading what the
                # server sends until the shutdown times out.
                await eventually(lambda: server.connections[0].lost, "server noticed", within=2)
                assert pump.sent < 50_000_000
            else:
                server.connections[0].transport.abort()


async def test_keep_alive_over_tls() -> None:
    async with LocalServer(ssl_context=server_tls()) as server:
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls(), limit=2)) as session:
            for n in range(20):
                async with session.post(server.url("/echo"), data=b"%d" % n) as resp:
                    assert (await resp.json())["body"] == str(n)
            await asyncio.gather(*(_ok(session, server.url("/ok")) for _ in range(20)))
        # The first may have served them all before the second was made.
        assert len(server.connections) <= 2


@pytest.mark.parametrize("kind", ["bytes", "chunked"])
async def test_large_body_over_tls(kind: str) -> None:
    size = 300 * len(BLOCK) + 17
    async with LocalServer(ssl_context=server_tls()) as server:
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            async with session.get(server.url(f"/{kind}?n={size}")) as resp:
                body = await resp.read()
            assert len(body) == size
            assert hashlib.sha256(body).digest() == hashlib.sha256((BLOCK * 301)[:size]).digest()
            await _ok(session, server.url("/ok"))
        assert len(server.connections) == 1


async def test_large_upload_over_tls() -> None:
    async with LocalServer(ssl_context=server_tls()) as server:
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            body = BLOCK * 15
            async with session.put(server.url("/ok"), data=body) as resp:
                assert resp.status == 200
            assert server.exchanges[0].body == body


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_abrupt_close_in_the_middle_of_a_body_is_an_error(framing: str) -> None:
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():

        def cut(connection: Any) -> None:
            # Below TLS: no close_notify.
            with socket.socket(fileno=os.dup(connection.transport.get_extra_info("socket").fileno())) as sock:
                sock.shutdown(socket.SHUT_RDWR)

        def half(exchange: Any) -> None:
            exchange.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello".encode())
            asyncio.get_running_loop().call_later(0.05, cut, exchange.connection)

        server.routes["/cut"] = half
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            resp = await session.get(server.url("/cut"))
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
                await asyncio.wait_for(resp.read(), 5)
            await _ok(session, server.url("/ok"))
            assert len(server.connections) == 2
            assert_express(session, 2)


def _serve_one(
    listener: socket.socket, first: bytes, rest: bytes, go_on: threading.Event, *, is_polite: bool
) -> None:
    """Answer one request from a thread, and close without waiting for the client's close_notify."""
    accepted, _ = listener.accept()
    accepted.settimeout(10)
    with server_tls().wrap_socket(accepted, server_side=True) as sock:
        while not sock.recv(65536).endswith(b"\r\n\r\n"):
            pass
        sock.sendall(first)
        go_on.wait(10)
        sock.sendall(rest)
        if is_polite:
            sock.settimeout(0)
            with contextlib.suppress(OSError):
                sock.unwrap()


@pytest.mark.skipif(not wirespeed.NATIVE, reason="aiohttp loses the rest on uvloop")
@pytest.mark.parametrize("is_polite", [True, False], ids=["close_notify", "bare end"])
@pytest.mark.parametrize("framing", ["Connection: close", "Content-Length: 700000"])
async def test_end_of_tls_while_the_reader_sleeps_loses_nothing(framing: str, is_polite: bool) -> None:
    # The first part is more than what may wait unread; the rest is less than the 256 KiB at which the
    # loops' TLS would stop reading, and so would not see the end yet.
    body = (BLOCK * 11)[:700_000]
    first = f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + body[:600_000]
    go_on = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        serve = functools.partial(_serve_one, listener, first, body[600_000:], go_on, is_polite=is_polite)
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            served = asyncio.get_running_loop().run_in_executor(None, serve)
            async with session.get(url) as resp:
                got = await resp.content.readexactly(1000)
                await asyncio.sleep(0.1)
                go_on.set()
                await asyncio.wait_for(served, 10)
                await asyncio.sleep(0.1)
                while piece := await resp.content.read(10_000):
                    got += piece
                    await asyncio.sleep(0.001)
            assert hashlib.sha256(got).digest() == hashlib.sha256(body).digest()


async def test_idle_tls_connection_closed_by_the_server_is_not_reused() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            await _ok(session, server.url("/ok"))
            server.connections[0].transport.close()
            await eventually(lambda: not server.open, "connection closed by both")
            await _ok(session, server.url("/ok"))
            assert len(server.connections) == 2
