"""Putting mocks between aiohttp's connectors and the network, and taking them away again.

The seam is one that the whole client runs above: `_create_connection`, by which a connector makes
every connection. This package's connectors get another one in their class, which stands before
aiohttp's in their order of resolution; any other connector gets it in the instance. Idle
connections to the real network are closed, so that no request goes past the mock on one: when
a pool is entered, which is aiohttp's `BaseConnector._get`, or reading the attribute `pool` of
ours. Nothing is changed where tools patch and the guard looks (lanes.py has the list), so
requests keep the lane that they have without a mock.
"""

import asyncio
import functools
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientRequest,
    UnixConnector,
)
from aiohttp.client_exceptions import UnixClientConnectorError, cert_errors, ssl_errors
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import BaseConnector
from aiohttp.helpers import ceil_timeout

from .replies import NoConnection, Reply, as_exception
from .request import Request, foresee
from .wire import MockEnded, Wire

_DIAL: Final = "_create_connection"
# The module of this package's connectors. Looked up, not imported: it stands above this one,
# and where it was not imported there are no such connectors.
_POOLED: Final = "wirespeed.connector"
# Their methods that wait for a slot or a connection, and may get one that was in use before.
_WAITS: Final = ("_slot", "_race", "_slot_traced")


class Mock(Protocol):
    """What the network asks a mock."""

    def covers(self, connector: BaseConnector) -> bool: ...

    def lets_pass(self, host: str, port: int | None) -> bool: ...

    def refuses_connections(self) -> bool: ...

    def find_refusal(self, request: Request) -> NoConnection | bool: ...

    def find(self, request: Request) -> Reply | None: ...

    def miss(self, request: Request, mocks: "list[Mock]") -> BaseException: ...


_lock = threading.RLock()
_mocks: list[Mock] = []
# Open connections to mocks, with a reference to their connector.
_wires: "weakref.WeakKeyDictionary[Wire, weakref.ref[BaseConnector]]" = weakref.WeakKeyDictionary()
# The connectors whose instance was changed, and what its dictionary had before.
_enlisted: "weakref.WeakKeyDictionary[BaseConnector, Any]" = weakref.WeakKeyDictionary()
_undo: list[Callable[[], None]] = []


def enter(mock: Mock) -> None:
    """Let a mock answer, before those that are there already."""
    with _lock:
        if not _mocks:
            _patch()
        _mocks.append(mock)


def leave(mock: Mock) -> "list[asyncio.Task[None]]":
    """Take a mock away, with the connections that no other mock answers.

    Returns:
        Tasks of handlers that were cancelled by that; they end by themselves.
    """
    with _lock:
        _mocks.remove(mock)
        if not _mocks:
            _restore()
        wires = [wire for wire, connector in list(_wires.items()) if not _is_mocked(connector())]
        for wire in wires:
            del _wires[wire]
    tasks = [wire.task for wire in wires if wire.task is not None]
    for wire in wires:
        wire.cut()
    return tasks


def _is_mocked(connector: BaseConnector | None) -> bool:
    return connector is not None and bool(_covering(connector))


def _restore() -> None:
    while _undo:
        _undo.pop()()
    for connector, before in list(_enlisted.items()):
        if before is None:
            connector.__dict__.pop(_DIAL, None)
        else:
            connector.__dict__[_DIAL] = before
    _enlisted.clear()


def _patch() -> None:
    aiohttps_get: Any = BaseConnector._get

    async def _get(self: BaseConnector, *args: Any, **kwargs: Any) -> Any:
        _enlist(self)
        return await aiohttps_get(self, *args, **kwargs)

    _set(BaseConnector, "_get", _get)
    pooled: Any = getattr(sys.modules.get(_POOLED), "PooledConnector", None)
    if pooled is None:
        return

    async def _create_connection(self: Any, req: ClientRequest, traces: Any, timeout: Any) -> ResponseHandler:
        original = getattr(super(pooled, self), _DIAL)
        return await _dial(self, original, req, traces, timeout)

    _set(pooled, _DIAL, _create_connection)
    _set(pooled, "pool", property(_read_pool, _write_pool))
    for name in _WAITS:
        _set(pooled, name, _waiting(getattr(pooled, name)))


def _set(owner: type, name: str, value: Any) -> None:
    if name in owner.__dict__:
        _undo.append(functools.partial(setattr, owner, name, owner.__dict__[name]))
    else:
        _undo.append(functools.partial(delattr, owner, name))
    setattr(owner, name, value)


def _waiting(method: Any) -> Any:
    async def wait(self: BaseConnector, *args: Any) -> Any:
        conn = await method(self, *args)
        if conn is not None and not conn.is_dialled and not _is_usable(self, conn.host.key, conn.transport):
            # The caller takes it for lost, and waits for another.
            conn.close()
        return conn

    return wait


def _read_pool(connector: BaseConnector) -> Any:
    try:
        pool = connector.__dict__["pool"]
    except KeyError:
        raise AttributeError("pool") from None
    if not connector.closed:
        _enlist(connector)
    return pool


def _write_pool(connector: BaseConnector, pool: Any) -> None:
    connector.__dict__["pool"] = pool


def _covering(connector: BaseConnector) -> list[Mock]:
    return [mock for mock in _mocks if mock.covers(connector)]


# A connector is about to use its pool


def _enlist(connector: BaseConnector) -> None:
    """Make a connector dial here, and close its idle connections that must not be used."""
    if not _is_mocked(connector):
        return
    own, method = connector.__dict__, getattr(type(connector), _DIAL)
    if connector not in _enlisted and (_DIAL in own or getattr(method, "__module__", "") != __name__):
        before = _enlisted[connector] = own.get(_DIAL)
        # By a weak reference, or the connector would keep itself alive and unclosed.
        own[_DIAL] = functools.partial(_dial_for, weakref.ref(connector), before)
    _sift_aiohttps(connector)
    if (pool := connector.__dict__.get("pool")) is not None:
        _sift_pooled(connector, pool)


async def _dial_for(
    reference: "weakref.ref[BaseConnector]", before: Any, req: ClientRequest, traces: Any, timeout: Any
) -> ResponseHandler:
    connector = reference()
    original = before or functools.partial(getattr(type(connector), _DIAL), connector)
    return await _dial(connector, original, req, traces, timeout)


def _is_usable(connector: BaseConnector, key: Any, transport: object) -> bool:
    """Whether a request that is answered here may be sent on a connection that exists."""
    mocks = _covering(connector)
    passes = not mocks or _passes(mocks, key.host, key.port)
    if not isinstance(transport, Wire):
        return passes
    # A refusal takes a new connection: in earnest the old one would not be there either.
    return not passes and not any(mock.refuses_connections() for mock in mocks)


def _sift_aiohttps(connector: Any) -> None:
    # dict's own method: a pooled connector shows its pool's connections there, too.
    for key, idle in list(dict.items(connector._conns)):
        kept = deque(item for item in idle if _is_usable(connector, key, item[0].transport))
        for item in idle:
            if item not in kept:
                item[0].close()
        if kept:
            connector._conns[key] = kept
        else:
            del connector._conns[key]


def _sift_pooled(connector: BaseConnector, pool: Any) -> None:
    for conn in pool.idle_connections():
        if not _is_usable(connector, conn.host.key, conn.transport):
            conn.close()


def _passes(mocks: list[Mock], host: str, port: int | None) -> bool:
    return any(mock.lets_pass(host, port) for mock in mocks)


# A connector dials


async def _dial(
    connector: Any, original: Any, req: ClientRequest, traces: Any, timeout: Any
) -> ResponseHandler:
    """Make a connection: to a mock, or by the connector's own method to a host that is not mocked."""
    mocks = _covering(connector)
    if not mocks or _passes(mocks, req.url.raw_host or "", req.url.port):
        found: ResponseHandler = await original(req, traces, timeout)
        return found
    if (refusal := _refusal(mocks, foresee(req))) is not None:
        async with ceil_timeout(timeout.sock_connect, ceil_threshold=timeout.ceil_threshold):
            await asyncio.sleep(refusal.delay)
        exc = as_exception(refusal.failure)
        raised = _as_aiohttp_raises(connector, req, exc)
        raise raised from (exc if raised is not exc else None)
    protocol: ResponseHandler = connector._factory()
    reference: weakref.ref[BaseConnector] = weakref.ref(connector)

    def choose(request: Request) -> Reply:
        asking = reference()
        return _choose(_covering(asking) if asking is not None else [], request)

    wire = Wire(connector._loop, protocol, req.url.origin(), choose, dict(_extra(connector, req)))
    with _lock:
        _wires[wire] = reference
    protocol.connection_made(wire)
    return protocol


def _refusal(mocks: list[Mock], request: Request) -> NoConnection | None:
    for mock in reversed(mocks):
        found = mock.find_refusal(request)
        if isinstance(found, NoConnection):
            return found
        if found:
            return None
    return None


def _choose(mocks: list[Mock], request: Request) -> Reply:
    for mock in reversed(mocks):
        if (reply := mock.find(request)) is not None:
            return reply
    if not mocks:
        raise MockEnded("the mock has ended")
    raise mocks[-1].miss(request, mocks)


def _as_aiohttp_raises(connector: Any, req: ClientRequest, exc: BaseException) -> BaseException:
    """What connecting raises for a failure of the socket or of TLS."""
    key = req.connection_key
    if type(exc) is TimeoutError:
        return asyncio.TimeoutError(*exc.args)  # another class before CPython 3.11
    if isinstance(exc, ClientError) or not isinstance(exc, OSError):
        return exc
    if isinstance(exc, cert_errors):
        return ClientConnectorCertificateError(key, exc)
    if isinstance(exc, ssl_errors):
        return ClientConnectorSSLError(key, exc)
    if isinstance(exc, asyncio.TimeoutError) and exc.errno is None:
        return exc
    if isinstance(connector, UnixConnector):
        return UnixClientConnectorError(connector.path, key, exc)
    if isinstance(exc, socket.gaierror):
        return ClientConnectorDNSError(key, exc)
    return ClientConnectorError(key, exc)


def _extra(connector: Any, req: ClientRequest) -> Iterator[tuple[str, Any]]:
    """What the transport tells about itself."""
    yield "peername", (req.url.host, req.url.port)
    yield "sockname", ("mock", 0)
    if not req.is_ssl():
        return
    get_context = getattr(connector, "_get_ssl_context", None)
    tls = MockTLS(req.url.host or "", get_context(req) if get_context is not None else None)
    yield "sslcontext", tls.context or tls
    yield "ssl_object", tls
    yield "peercert", tls.getpeercert()
    yield "cipher", tls.cipher()


class MockTLS:
    """What `get_extra_info("ssl_object")` gives: TLS 1.3 with a certificate for the host."""

    def __init__(self, host: str, context: Any) -> None:
        self.server_hostname = host
        self.context = context

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes:
        if binary_form:
            return f"certificate of {self.server_hostname}".encode()
        return {
            "subject": ((("commonName", self.server_hostname),),),
            "subjectAltName": (("DNS", self.server_hostname),),
        }

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> tuple[str, str, int]:
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)

    def selected_alpn_protocol(self) -> None:
        return None

    def compression(self) -> None:
        return None
