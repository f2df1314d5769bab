"""When a connector may dial straight to an address, without aiohttp's code, and what its failure is called.

aiohttp's dialling is for every case: names, several addresses in a race, TLS, proxies, local addresses,
sockets of one's own. Where there is one address and nothing else to do, the loop's `create_connection` does
the same for half the cost (`_core/dial`). Whatever somebody overrode or patched of what is gone around
is reason enough to leave it to aiohttp. Called by the connectors, and by the express lane.
"""

import asyncio
import functools
import socket
from typing import Any

import aiohappyeyeballs
import aiohttp
from aiohttp import helpers
from aiohttp.client_exceptions import ClientConnectorError
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import _DNSCacheTable

from .dialling import ProtocolFactory

# What loops say of a connection that was refused, or not answered; aiohttp's dialling passes it on.
_FAILED = "Connect call failed"
# The methods of a connector that are gone around. An attribute of the instance stands before them.
_NAMES = (
    "_create_connection",
    "_create_direct_connection",
    "_wrap_create_connection",
    "_convert_hosts_to_addr_infos",
    "_resolve_host",
)
_METHODS = frozenset(_NAMES)
# What loops have for connecting; so has an instance that somebody patched.
_OF_LOOPS = frozenset({"create_connection", "sock_connect"})


def _aiohttps_own(name: str) -> Any:
    """A method as it is in aiohttp's source; None, which no method is, where a tool was there before."""
    member: Any = getattr(aiohttp.TCPConnector, name)
    home = getattr(member, "__globals__", {}).get("__name__", "")
    return member if home.startswith("aiohttp.") and not hasattr(member, "__wrapped__") else None


_CREATE, _CREATE_DIRECT, _WRAP, _CONVERT, _RESOLVE = map(_aiohttps_own, _NAMES)
_START = aiohappyeyeballs.start_connection
# What forbids the network, or sends it elsewhere, replaces one of these.
_SOCKET, _CONNECT = socket.socket, socket.socket.connect
# The loops' own, by type: as they were when the first connector dialled.
_loops: dict[type, Any] = {}


def address_for(connector: Any, key: Any) -> tuple[str, int] | None:
    """Find the one address to connect to; None where dialling is to be aiohttp's.

    Args:
        connector: one of ours; `_own_resolve_host` of its class is what it had for `_resolve_host`.
        key: of the connection, a ConnectionKey.
    """
    own, cls = connector.__dict__, type(connector)
    host, port = key.host, key.port
    if key.is_ssl or key.proxy is not None or not port or cls._own_resolve_host is None:
        return None
    if not (
        cls._create_connection is _CREATE
        and cls._create_direct_connection is _CREATE_DIRECT
        and cls._wrap_create_connection is _WRAP
        and cls._convert_hosts_to_addr_infos is _CONVERT
        and cls._resolve_host is cls._own_resolve_host
        and aiohttp.TCPConnector._resolve_host is _RESOLVE
        and aiohappyeyeballs.start_connection is _START
        and socket.socket is _SOCKET
        and _SOCKET.connect is _CONNECT
        and connector._local_addr_infos is None
        and connector._socket_factory is None
        and type(connector._factory) is ProtocolFactory
        and _METHODS.isdisjoint(own)
        and _connects_itself(connector._loop)
    ):
        return None
    family = _family_of(host)
    if not family:
        found = _cached_address(connector, host, port)
        if found is None:
            return None
        host, port = found
        family = _family_of(host)
    if not family or (connector._family and connector._family != family):
        return None
    return host, port


def _cached_address(connector: aiohttp.TCPConnector, host: str, port: int) -> tuple[str, int] | None:
    """The address of a name that was resolved lately, and has no other."""
    table = connector._cached_hosts
    key = (host, port)
    if not connector._use_dns_cache or type(table) is not _DNSCacheTable or host.endswith("."):
        return None
    if key not in table or table.expired(key) or table._addrs_rr[key][1] != 1:
        return None
    (found,) = table.next_addrs(key)
    return found["host"], found["port"]


@functools.lru_cache(1024)
def _family_of(host: str) -> int:
    """The family of an address as aiohttp would connect to it; 0 for a name, and for what it refuses."""
    if ":" in host:
        family = socket.AF_INET6
    elif helpers.is_ip_address(host) and helpers.is_canonical_ipv4_address(host):
        family = socket.AF_INET
    else:
        return 0
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        # With a zone, perhaps.
        return 0
    return family


def _connects_itself(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a loop is one of those whose `create_connection` is known, and is their own."""
    cls: Any = type(loop)
    try:
        create, connect = _loops[cls]
    except KeyError:
        is_known = cls.__module__.partition(".")[0] in ("asyncio", "uvloop", "winloop")
        create, connect = _loops[cls] = (
            (cls.create_connection, cls.sock_connect) if is_known else (None, None)
        )
    return (
        cls.create_connection is create
        and cls.sock_connect is connect
        and _OF_LOOPS.isdisjoint(getattr(loop, "__dict__", ()))
    )


def dial_error(
    key: ConnectionKey, address: tuple[str, int], exc: OSError, has_waited: bool
) -> ClientConnectorError:
    """Make what aiohttp's dialling raises.

    Args:
        key: of the connection, a ConnectionKey.
        address: that was dialled.
        exc: why it was not made.
        has_waited: the kernel told later, not at once.
    """
    if has_waited and exc.errno is not None and not str(exc.strerror).startswith(_FAILED):
        # libuv's words; aiohttp's come from the loop's sock_connect.
        shown = (*address, 0, 0) if ":" in address[0] else address
        exc = OSError(exc.errno, f"{_FAILED} {shown}")
    error = ClientConnectorError(key, exc)
    error.__cause__ = exc
    return error
