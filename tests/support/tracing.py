"""Trace configs that write down every signal of a run, and do something at those they are told to.

What is written is a plain value made at the moment of the signal: a response that is closed
later, or headers that change later, are kept as they were. Objects that must be the same
ones over several signals (headers, responses, contexts) are numbered as they first appear.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import aiohttp
import attr

from .outcome import Run

SIGNALS = (
    "request_start",
    "request_chunk_sent",
    "response_chunk_received",
    "request_end",
    "request_exception",
    "request_redirect",
    "connection_queued_start",
    "connection_queued_end",
    "connection_create_start",
    "connection_create_end",
    "connection_reuseconn",
    "dns_resolvehost_start",
    "dns_resolvehost_end",
    "dns_cache_hit",
    "dns_cache_miss",
    "request_headers_sent",
)

Action = Callable[[Run, Any], Awaitable[Any] | None]
"""Called with the run and the signal's parameters; what it returns is awaited unless it is None."""

_PART = re.compile(rb"--[0-9a-f]{32}")
_BOUNDARY = re.compile(r"boundary=[0-9a-f]{32}")
_LONG = 200


class Tracer:
    """Makes trace configs for one run.

    Args:
        run: its `see` takes what is written.
        actions: what to do at a signal, after it was written down. The key "*" stands for all others.
        only: the signals to subscribe to; all of them when it is None.
        by_context: collect by `trace_request_ctx`, for requests that run at the same time;
            `collected` then holds the lists.
    """

    def __init__(
        self,
        run: Run,
        actions: Mapping[str, Action] | None = None,
        *,
        only: Sequence[str] | None = None,
        by_context: bool = False,
    ) -> None:
        self.run = run
        self.actions = dict(actions or {})
        self.only = SIGNALS if only is None else only
        self.by_context = by_context
        self.collected: dict[str, list[Any]] = defaultdict(list)
        self._of = ""
        self._numbered: dict[str, list[Any]] = defaultdict(list)

    def config(self, label: str = "", make: Callable[[], aiohttp.TraceConfig] | None = None) -> Any:
        """Make a config whose signals are written down under a label."""
        config = (make or self.run.api.TraceConfig)()
        for name in self.only:
            getattr(config, f"on_{name}").append(self._receiver(label, name))
        return config

    def _receiver(self, label: str, name: str) -> Callable[..., Awaitable[None]]:
        async def receive(session: Any, context: SimpleNamespace, params: Any) -> None:
            self._of = str(getattr(context, "trace_request_ctx", "")) if self.by_context else ""
            entry = [label, name, self._context(context), session is self.run.session]
            entry += [[type(params).__name__, *self._fields(params)]]
            if self.by_context:
                self.collected[self._of].append(entry)
            else:
                self.run.see(entry)
            action = self.actions.get(name) or self.actions.get("*")
            if action is not None and (awaitable := action(self.run, params)) is not None:
                await awaitable

        return receive

    def _fields(self, params: Any) -> list[Any]:
        return [(field.name, self._field(field.name, params)) for field in attr.fields(type(params))]

    def _field(self, name: str, params: Any) -> Any:
        value = getattr(params, name)
        if name == "headers":
            return [self._number(name, value), type(value).__name__, _items(value)]
        if name == "response":
            return [self._number(name, value), *_response(value)]
        if name == "chunk":
            return _chunk(value)
        return value

    def _context(self, context: Any) -> list[Any]:
        """The context: which, of what type, and what is in it; it remembers how many signals it saw."""
        context.signals = getattr(context, "signals", 0) + 1
        return [self._number("context", context), type(context).__name__, dict(vars(context))]

    def _number(self, kind: str, value: Any) -> int:
        known = self._numbered[kind + self._of]
        for number, other in enumerate(known):
            if other is value:
                return number
        known.append(value)
        return len(known) - 1


def _response(response: Any) -> list[Any]:
    history = [(past.status, past.closed) for past in response.history]
    body = getattr(response, "_body", None)
    info = response.request_info
    return [
        response.status,
        response.reason,
        response.method,
        response.url,
        history,
        response.closed,
        response.connection is None,
        body,
        _items(response.headers),
        [info.url, info.method, _items(info.headers)],
    ]


def _items(headers: Mapping[str, Any]) -> list[list[Any]]:
    """The fields, less the boundary that multipart bodies make up."""
    return [
        [name, _BOUNDARY.sub("boundary=B", value) if isinstance(value, str) else value]
        for name, value in headers.items()
    ]


def _chunk(chunk: Any) -> list[Any]:
    data = _PART.sub(b"--" + b"B" * 32, bytes(chunk))
    shown = data if len(data) <= _LONG else data[: _LONG // 2] + b"..." + data[-_LONG // 2 :]
    return [type(chunk).__name__, len(data), shown]


# Actions


def sleeping(seconds: float = 0) -> Action:
    """Give way to the loop."""
    return lambda run, params: asyncio.sleep(seconds)


def raising(make: Callable[[], BaseException]) -> Action:
    """Raise; a new exception each time."""

    def action(run: Run, params: Any) -> None:
        raise make()

    return action


def setting(**headers: str | None) -> Action:
    """Change the headers of the parameters: underscores are dashes, None deletes."""

    def action(run: Run, params: Any) -> None:
        for name, value in headers.items():
            if value is None:
                params.headers.popall(name.replace("_", "-"), None)
            else:
                params.headers[name.replace("_", "-")] = value

    return action


def waiting(event: str) -> Action:
    """Set the server's event of that name, and wait for ever."""

    async def hang(run: Run) -> None:
        run.server.event(event).set()
        await asyncio.get_running_loop().create_future()

    return lambda run, params: hang(run)
