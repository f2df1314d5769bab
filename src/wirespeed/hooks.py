"""Requests with middlewares or traces: what the core leaves to Python.

The core drives the middlewares and the listeners of most requests (`_core/hooked`). Here is made what it
keeps of a session, and a `Call` where the core does not go on. A part of the express lane; it must not send
anything itself.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
from aiohttp import client as _client
from aiohttp import payload
from aiohttp.client_middlewares import build_client_middlewares
from aiohttp.tracing import Trace, TraceConfig, TraceRequestEndParams, TraceRequestStartParams
from aiosignal import Signal
from multidict import getversion

from ._core import hooked
from ._core.exchange import ExchangeSettings
from ._core.guard import Watch
from ._core.hooked import Hooks, Listeners
from ._core.hop import Hop, Template
from ._core.lane import Lane
from .call import UNTIMED, Call
from .prepare import add_connection_headers, prepare

# What sends the signals; tools patch it. Each with the members of aiohttp's source.
_SENDERS = (Trace, TraceConfig, Signal)
_ORIGINALS = [dict(vars(cls)) for cls in _SENDERS]
_WATCH = Watch(*_SENDERS)
# Signals that the core sends itself, or leaves to a Call with what is rare about them.
_KNOWN = frozenset({"request_start", "request_end", "request_exception", "request_redirect"})
_SIGNALS = tuple(name.removeprefix("on_") for name in vars(TraceConfig) if name.startswith("on_"))


def new_hooks() -> Hooks:
    """Make what a session keeps."""
    return Hooks(UNTIMED, TraceRequestStartParams, TraceRequestEndParams, _WATCH, vars(_client))


def find_listeners(configs: Sequence[Any]) -> tuple[Listeners, ...] | None:
    """List who listens to the signals that the core sends; None when there is more to it.

    Args:
        configs: the TraceConfigs of a session.
    """
    if not _WATCH.is_unchanged():
        # First: a patch that another thread makes while this one compares must not be missed.
        _WATCH.remember()
        if any(dict(vars(cls)) != members for cls, members in zip(_SENDERS, _ORIGINALS, strict=True)):
            _WATCH.forget()
            return None
    if vars(_client)["Trace"] is not Trace:
        return None
    found = [_listeners_of(config) for config in configs]
    return None if None in found else tuple(filter(None, found))


def _listeners_of(config: Any) -> Listeners | None:
    if type(config) is not TraceConfig:
        return None
    signals = {name: getattr(config, f"_on_{name}") for name in _SIGNALS}
    for name, signal in signals.items():
        # One that is not frozen raises when it is sent; who listens to it may change.
        if type(signal) is not Signal or not signal.frozen or (signal and name not in _KNOWN):
            return None
    starts, ends = tuple(signals["request_start"]), tuple(signals["request_end"])
    return Listeners(config, config._trace_config_ctx_factory, starts, ends)


def new_template(hop: Hop, settings: ExchangeSettings) -> Template | None:
    """Let aiohttp build a request for others of its shape to be copied from; None when copies would not do.

    Args:
        hop: a request of the shape.
        settings: what the exchanges of its session have in common.
    """
    session, prepared = hop.session, hop.prepared
    call = Call(session, settings, prepared.method, hop.str_or_url, _with_payload(hop), 0.0)
    req = call.build()
    headers, version = req.headers.copy(), _version(req)
    made = prepare(req, session._connector)
    made.fill()
    if made.data != prepared.data or made.has_upload or made.is_unclean or req._skip_auto_headers is not None:
        return None
    return Template(req, headers, _version(req) != version)


def _version(req: aiohttp.ClientRequest) -> int:
    headers: Any = req.headers
    return getversion(headers)


def _with_payload(hop: Hop) -> dict[str, Any]:
    """The options of a request whose JSON was made into bytes already, and once is enough."""
    options = hop.options
    if options.get("json") is None and hop.body is None:
        return options
    return {**options, "json": None, "data": hop.body or new_payload(hop)}


def new_payload(hop: Hop) -> payload.Payload:
    """Make the payload that aiohttp makes of a body."""
    if hop.options.get("json") is not None:
        return new_json_payload(hop, hop.prepared.body)
    return payload.PAYLOAD_REGISTRY.get(hop.options["data"], disposition=None)


def new_json_payload(hop: Hop, body: bytes) -> payload.Payload:
    """Make the payload that aiohttp makes of JSON, which was made into bytes already."""
    if hop.session._json_serialize_bytes is not None:
        return payload.JsonBytesPayload(None, dumps=lambda _: body)
    return payload.JsonPayload(None, dumps=lambda _: body.decode())


class HookedLane(Lane):
    """The part of the express lane that the core asks for requests with middlewares or traces."""

    hooks: Hooks

    _hook = hooked.hook

    def _listeners(self, configs: Sequence[Any]) -> tuple[Listeners, ...] | None:
        return find_listeners(configs)

    def _template(self, hop: Hop) -> Template | None:
        try:
            return new_template(hop, self.settings)
        except Exception:
            # A Call knows when to raise it.
            return None

    def _as_seen(self, hop: Hop, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a request whose JSON is long, with the payload that aiohttp makes of it."""
        return {**options, "data": new_json_payload(hop, options["data"]._value)}

    def _payload(self, hop: Hop) -> payload.Payload:
        return new_payload(hop)

    def _amend(self, req: aiohttp.ClientRequest, connector: Any) -> None:
        """Add what aiohttp adds to a request when it sends it."""
        add_connection_headers(req, connector)

    def _chain(
        self, hop: Hop, middlewares: Sequence[Any]
    ) -> Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]:
        """Make one handler of several middlewares."""
        return build_client_middlewares(hop, middlewares)

    def _traces(self, hop: Hop, count: int) -> list[Trace]:
        """Make aiohttp's objects for those TraceConfigs, from the first, that were told of the start."""
        if hop.listeners is None:
            return []
        session = hop.session
        return [
            Trace(session, listeners.config, context)
            for listeners, context in zip(hop.listeners[:count], hop.contexts, strict=False)
        ]

    def _call_of(self, hop: Hop, count: int | None = None) -> Call:
        """The Call that goes on; one for all attempts of a hop."""
        call: Call | None = hop.call
        if call is None:
            options = _with_payload(hop)
            method, at = hop.prepared.method, hop.total_at
            call = Call(hop.session, self.settings, method, hop.str_or_url, options, at, hop.url)
            if hop.traces is None and hop.listeners is not None:
                hop.traces = self._traces(hop, len(hop.listeners) if count is None else count)
            call.take_over(hop, hop.traces or [])
            hop.call = call
        return call

    def _handle(self, hop: Hop, req: Any) -> Awaitable[aiohttp.ClientResponse]:
        """Send a request that a middleware has changed."""
        return self._call_of(hop).handle(req)

    def _go_on(
        self, hop: Hop, resp: aiohttp.ClientResponse | None, exc: BaseException | None
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Go on with the hop: from its response, its exception, or its start."""
        return self._call_of(hop).run(resp, exc, has_begun=True)

    def _give_up(
        self, hop: Hop, resp: aiohttp.ClientResponse | None, exc: BaseException, count: int
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Tell those who were told of the start that code around the hop has failed."""
        call = self._call_of(hop, count)
        call.resp = resp
        return call.give_up(exc)
