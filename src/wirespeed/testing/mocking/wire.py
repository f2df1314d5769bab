"""A connection in memory: the transport that the client has, and a server at its other end.

What the client writes is parsed in the same step; what the server sends arrives by the loop,
step by step, as reads do. No socket, no thread; timers and tasks only while a pause is played
or a coroutine answers. Which reply a request gets is asked of the caller.
"""

import asyncio
import functools
import inspect
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

import httptools
from aiohttp import ClientConnectionError, hdrs
from multidict import CIMultiDict
from yarl import URL

from .replies import CLOSE, RESET, AnyStep, Handled, Reply, Script, answer_of, as_exception
from .request import Request

_READ_SIZE: Final = 64 * 1024
"""Bytes of one read at most, so that a client that pauses reading is heeded; asyncio's own is 256 KiB."""


class MockEnded(ClientConnectionError):
    """The mock ended while a request was under way. It is not retried, or it would reach the network."""


class Wire(asyncio.Transport):
    """The client's end.

    Args:
        loop: the client's loop.
        protocol: the client's protocol.
        origin: what the URLs of the requests begin with.
        choose: gives the reply to a request; what it raises is what the connection is lost with.
        extra: for `get_extra_info`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        origin: URL,
        choose: Callable[[Request], Reply],
        extra: dict[str, Any],
    ) -> None:
        super().__init__(extra)
        self.loop = loop
        self._protocol: Any = protocol
        self._server = _Server(self, origin, choose)
        # What the server sent and the client has not read; an exception or None is the end.
        self._arriving: deque[bytes | BaseException | None] = deque()
        self._next: asyncio.Handle | None = None
        self._is_paused = False
        self._is_closing = False

    def __repr__(self) -> str:
        return f"<Wire to {self._server.origin}{' closing' if self._is_closing else ''}>"

    # The client's side: asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self._server.receive(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing: the server takes everything at once."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Nothing: a server may answer after the client has said all."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        found: asyncio.BaseProtocol = self._protocol
        return found

    def is_reading(self) -> bool:
        return not self._is_paused and not self._is_closing

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._schedule()

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def cut(self) -> None:
        """End the connection from outside, from any thread, also when its loop is gone."""
        if self._is_closing:
            return
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        error = MockEnded("the mock ended while the request was under way")
        if here is self.loop:
            self._lose(error)
        elif self.loop.is_closed():
            self._is_closing = True
        else:
            self._is_closing = True
            self.loop.call_soon_threadsafe(self._lost, error)

    # The server's side

    def deliver(self, data: bytes) -> None:
        """Send to the client."""
        for start in range(0, len(data), _READ_SIZE):
            self._arriving.append(data[start : start + _READ_SIZE])
        self._schedule()

    def hang_up(self, error: BaseException | None) -> None:
        """End the connection after what was sent: in good order, or with an error."""
        self._arriving.append(error)
        self._schedule()

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The task that answers, if one does."""
        return self._server.task

    # The loop's part

    def _schedule(self) -> None:
        if self._next is None and self._arriving and not self._is_paused and not self._is_closing:
            self._next = self.loop.call_soon(self._arrive)

    def _arrive(self) -> None:
        self._next = None
        if self._is_paused or self._is_closing:
            return
        item = self._arriving.popleft()
        if item is None:
            self._protocol.eof_received()
            self._lose(None)
        elif isinstance(item, BaseException):
            self._lose(item)
        elif isinstance(self._protocol, asyncio.BufferedProtocol):
            self._fill(item)
        else:
            self._protocol.data_received(item)
        self._schedule()

    def _fill(self, data: bytes) -> None:
        """Let a protocol with a buffer read; what does not fit is the next read."""
        view = memoryview(self._protocol.get_buffer(len(data)))
        size = min(len(view), len(data))
        view[:size] = data[:size]
        if size < len(data):
            self._arriving.appendleft(data[size:])
        self._protocol.buffer_updated(size)

    def _lose(self, error: BaseException | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.loop.call_soon(self._lost, error)
            self._server.stop()

    def _lost(self, error: BaseException | None) -> None:
        self._server.stop()
        self._arriving.clear()
        self._protocol.connection_lost(error)


class _Server:
    """The server's end: requests out of bytes, one reply after the other."""

    def __init__(self, wire: Wire, origin: URL, choose: Callable[[Request], Reply]) -> None:
        self.origin = origin
        self.task: asyncio.Task[None] | None = None
        self._wire = wire
        self._choose = choose
        self._parser: Any = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[Request] = deque()
        self._is_answering = False
        self._is_deaf = False
        self.on_message_begin()

    def receive(self, data: bytes) -> None:
        if self._is_deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # What follows is of another protocol; the script of the route may speak it.
            self._is_deaf = True
        except httptools.HttpParserError as exc:
            self._is_deaf = True
            error = ClientConnectionError(f"the mock cannot read the request: {exc}")
            error.__cause__ = exc
            self._wire.hang_up(error)

    def stop(self) -> None:
        """The connection ends: nothing more is played."""
        self._is_deaf = True
        self._parser = None  # it refers to this object
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self.task is not None:
            self.task.cancel()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        self._target = b""
        self._fields: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name.decode("latin-1"), value.decode("utf-8", "surrogateescape")))

    def on_headers_complete(self) -> None:
        if CIMultiDict(self._fields).get(hdrs.EXPECT, "").lower() == "100-continue":
            self._wire.deliver(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        target = self._target.decode("latin-1")
        is_path = target.startswith("/")
        request = Request(
            self._parser.get_method().decode("latin-1"),
            URL(f"{str(self.origin).rstrip('/')}{target}") if is_path else URL(target),
            self._fields,
            b"".join(self._body),
            self._parser.get_http_version(),
        )
        self.on_message_begin()
        self._waiting.append(request)
        if not self._is_answering:
            self._is_answering = True
            self._wire.loop.call_soon(self._answer)

    # Answering

    def _answer(self) -> None:
        if not self._waiting:
            self._is_answering = False
            return
        request = self._waiting.popleft()
        try:
            reply = self._choose(request)
            result = reply.function(request) if isinstance(reply, Handled) else None
            if inspect.isawaitable(result):
                task = self._start(self._await(request, result))
                task.add_done_callback(functools.partial(_close, result))
                return
            answer = answer_of(result) if isinstance(reply, Handled) else reply
            steps = answer.steps(request)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:
            # Outcomes of pytest among them: the client raises what a handler raised.
            self._wire.hang_up(exc)
            return
        if isinstance(steps, AsyncIterable):
            self._start(self._play_async(steps))
        else:
            self._play(iter(steps))

    def _play(self, steps: Iterator[AnyStep]) -> None:
        """Play up to the next pause, or to the end."""
        self._timer = None
        try:
            for step in steps:
                if isinstance(step, int | float):
                    if step > 0:
                        again = functools.partial(self._play, steps)
                        self._timer = self._wire.loop.call_later(step, again)
                        return
                elif self._step(step):
                    return
        except Exception as exc:
            self._wire.hang_up(exc)
        else:
            self._answer()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        self.task = task = self._wire.loop.create_task(coroutine)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self.task = None
        if task.cancelled():
            return
        if (exc := task.exception()) is not None:
            self._wire.hang_up(exc)
        else:
            self._answer()

    async def _await(self, request: Request, result: Awaitable[Any]) -> None:
        await self._play_async(answer_of(await result).steps(request))

    async def _play_async(self, steps: Script) -> None:
        if isinstance(steps, AsyncIterable):
            async for step in steps:
                if await self._step_async(step):
                    return
        else:
            for step in steps:
                if await self._step_async(step):
                    return

    async def _step_async(self, step: AnyStep) -> bool:
        if isinstance(step, int | float):
            await asyncio.sleep(step)
            return False
        return self._step(step)

    def _step(self, step: AnyStep) -> bool:
        """Do what needs no time; true when it was the last."""
        if isinstance(step, bytes):
            if step:
                self._wire.deliver(step)
            return False
        if step is CLOSE:
            self._wire.hang_up(None)
        elif step is RESET:
            self._wire.hang_up(as_exception(ConnectionResetError))
        elif isinstance(step, BaseException) or (isinstance(step, type) and issubclass(step, BaseException)):
            self._wire.hang_up(as_exception(step))
        else:
            raise TypeError(f"a step is bytes, seconds, RESET, CLOSE or an exception, not {step!r}")
        return True


def _close(result: object, task: "asyncio.Task[None]") -> None:
    """A task that was cancelled before it began has not awaited its coroutine."""
    if inspect.iscoroutine(result):
        result.close()
