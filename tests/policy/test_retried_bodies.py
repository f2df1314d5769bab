"""Bodies of requests that are sent again: what arrives is the whole of it, or nothing was sent."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from support.late import LateFile, once_late
from support.local import Exchange
from support.scripted import reset

from wirespeed.policy import Hedge, Policies, Retry

from .sockets import (
    Action,
    Acts,
    Sessions,
    Time,
    acting,
    after,
    clean,
    close_now,
    ok,
    reset_now,
    stall,
    status,
)

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")

SMALL = b"small body"
# 3 MiB: more than the sockets hold. No piece is like another, so that each is known to be in its place.
BIG = b"".join(number.to_bytes(4, "big") for number in range(786_432))
# Where a server stalls; 0.1 s pass in a garbage collection of a large process, too.
SHORT = aiohttp.ClientTimeout(total=10, sock_read=0.3)
PATIENT = aiohttp.ClientTimeout(total=10)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]
        await asyncio.sleep(0)


class Pipe(io.RawIOBase):
    """A file that cannot be read twice."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


def on_disk(data: bytes, folder: Path) -> Any:
    (folder / "body").write_bytes(data)
    return open(folder / "body", "rb")


def form(data: bytes, folder: Path) -> aiohttp.FormData:
    made = aiohttp.FormData()
    made.add_field("name", "value")
    made.add_field("file", on_disk(data, folder), filename="body", content_type="application/octet-stream")
    return made


def half_read(data: bytes, folder: Path) -> Any:
    """A file that is not at its start: what is before is no part of the body."""
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    return file


Make = Callable[[bytes, Path], Any]
REPEATABLE: dict[str, Make] = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "BytesIO": lambda data, _: io.BytesIO(data),
    "BytesIO from its middle": half_read,
    "file": on_disk,
    "multipart": form,
}
ONCE: dict[str, Make] = {
    "async generator": lambda data, _: pieces(data),
    "pipe": lambda data, _: io.BufferedReader(Pipe(data)),
}
FAILURES: dict[str, Action] = {
    "503": status(503),
    "reset": reset_now,
    "closed": close_now,
    "stall": stall,
}


def part_read(then: Action) -> Action:
    """Do something as soon as the head is there; the body is read later, if at all."""

    def act(exchange: Exchange) -> None:
        exchange.connection.transport.pause_reading()
        then(exchange)

    return act


def reset_soon(exchange: Exchange) -> None:
    def now() -> None:
        if not exchange.connection.lost:
            reset(exchange.connection.transport)

    asyncio.get_running_loop().call_later(0.02, now)


EARLY: dict[str, Action] = {
    "503 and the rest is left unread": part_read(status(503, ("Connection", "close"))),
    "503 and the rest is read": status(503),
    "503 and a reset": part_read(lambda x: (status(503)(x), reset_soon(x))[1]),
    "reset": part_read(reset_soon),
    "stall": part_read(lambda x: None),
}


def timeout_for(failure: Action) -> aiohttp.ClientTimeout:
    return SHORT if failure in (FAILURES["stall"], EARLY["stall"]) else PATIENT


def retrying(total: int = 2, **options: Any) -> Policies:
    time = Time()
    return Policies(retry=Retry(total, **options), clock=time, sleep=time.sleep)


def payload_of(exchange: Exchange) -> bytes:
    """The body, without what a form puts around it."""
    body = bytes(exchange.body)
    kind = exchange.header("Content-Type") or ""
    if not kind.startswith("multipart"):
        return body
    boundary = kind.partition("boundary=")[2].encode()
    first, second = body.split(b"--" + boundary)[1:3]
    assert body.endswith(b"--" + boundary + b"--\r\n")
    assert first.endswith(b"\r\n\r\nvalue\r\n")
    return second.partition(b"\r\n\r\n")[2][:-2]


@pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
@pytest.mark.parametrize("make", REPEATABLE.values(), ids=REPEATABLE)
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_body_that_can_be_read_again_arrives_whole_each_time(
    kind: Sessions, failure: Action, make: Make, data: bytes, tmp_path: Path
) -> None:
    async with (
        acting(failure) as server,
        clean(kind, policies=retrying(), timeout=timeout_for(failure)) as session,
    ):
        body = make(data, tmp_path)
        async with session.put(server.url(), data=body) as resp:
            assert resp.status == 200
        assert len(server.exchanges) == 2
        assert all(exchange.complete and payload_of(exchange) == data for exchange in server.exchanges)


@pytest.mark.parametrize("make", REPEATABLE.values(), ids=REPEATABLE)
@pytest.mark.parametrize("failure", EARLY.values(), ids=EARLY)
async def test_what_was_broken_off_is_sent_again_from_its_start(
    kind: Sessions, failure: Action, make: Make, tmp_path: Path
) -> None:
    async with acting() as server, clean(kind, policies=retrying(), timeout=timeout_for(failure)) as session:
        act = Acts(failure)
        server.early_routes["/"] = act

        def late(exchange: Exchange) -> None:
            # What the early route has not answered is answered when it was read.
            ok(exchange)

        act.then = lambda x: server.early_routes.clear()
        server.routes["/"] = late
        body = make(BIG, tmp_path)
        async with session.put(server.url(), data=body) as resp:
            assert resp.status == 200
        first, *others = server.exchanges
        assert [payload_of(exchange) == BIG for exchange in others] == [True]
        if first.body:
            assert first.body_size <= others[0].body_size


@pytest.mark.parametrize("operation", ["seek", "read"])
@pytest.mark.parametrize("failure", [status(503), reset_now], ids=["503", "reset"])
async def test_a_thread_that_reads_for_what_was_broken_off_does_not_read_for_the_next(
    kind: Sessions, failure: Action, operation: str, tmp_path: Path
) -> None:
    """A thread goes on when its upload is cancelled, and would move the file under the next."""
    (tmp_path / "body").write_bytes(BIG)
    file = LateFile(tmp_path / "body", operation)
    body = aiohttp.FormData({"name": "value"})
    body.add_field("file", file, filename="body", content_type="application/octet-stream")
    async with acting() as server, clean(kind, policies=retrying(), timeout=PATIENT) as session:
        server.early_routes["/"] = Acts(once_late(file, failure), then=lambda x: server.early_routes.clear())
        async with session.put(server.url(), data=body) as resp:
            assert resp.status == 200
        assert [payload_of(exchange) == BIG for exchange in server.exchanges[1:]] == [True]


@pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
@pytest.mark.parametrize("make", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_body_that_cannot_be_read_again_is_sent_once(
    kind: Sessions, failure: Action, make: Make, data: bytes, tmp_path: Path
) -> None:
    policies = retrying()
    async with (
        acting(then=failure) as server,
        clean(kind, policies=policies, timeout=timeout_for(failure)) as session,
    ):
        try:
            async with session.put(server.url(), data=make(data, tmp_path)) as resp:
                told: Any = resp
                assert resp.status == 503
        except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
            told = exc
        assert told.retry_history == ()
        (exchange,) = server.exchanges
        assert exchange.body == data
        (figures,) = policies.stats().retry.by_key.values()  # type: ignore[union-attr]
        assert (figures.retries, figures.body) == (0, 1)


@pytest.mark.parametrize("make", ONCE.values(), ids=ONCE)
@pytest.mark.parametrize("failure", EARLY.values(), ids=EARLY)
async def test_what_was_broken_off_and_cannot_be_read_again_is_sent_once(
    kind: Sessions, failure: Action, make: Make, tmp_path: Path
) -> None:
    policies = retrying()
    async with acting(then=failure, early=True) as server:
        async with clean(kind, policies=policies, timeout=timeout_for(failure)) as session:
            try:
                async with session.put(server.url(), data=make(BIG, tmp_path)) as resp:
                    assert resp.status == 503
            except (aiohttp.ClientError, asyncio.TimeoutError):
                pass
            assert len(server.exchanges) == 1


async def test_an_async_generator_that_was_not_begun_is_sent(kind: Sessions, unused_port: int) -> None:
    policies = retrying(1)
    async with acting() as server, clean(kind, policies=policies) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.put(f"http://127.0.0.1:{unused_port}/", data=pieces(SMALL))
        assert len(caught.value.retry_history) == 1
        async with session.put(server.url(), data=pieces(SMALL)) as resp:
            assert resp.status == 200


async def test_a_form_with_a_generator_is_sent_once(kind: Sessions) -> None:
    def made() -> aiohttp.MultipartWriter:
        writer = aiohttp.MultipartWriter()
        writer.append("text")
        writer.append(pieces(BIG))
        return writer

    async with acting(then=status(503)) as server, clean(kind, policies=retrying()) as session:
        async with session.put(server.url(), data=made()) as resp:
            assert (resp.status, resp.retry_history) == (503, ())
        assert len(server.exchanges) == 1
        assert BIG in server.exchanges[0].body


@pytest.mark.parametrize("compress", ["deflate", "gzip"])
@pytest.mark.parametrize("data", [SMALL, BIG], ids=["small", "big"])
async def test_a_compressed_body_is_sent_the_same_again(kind: Sessions, compress: str, data: bytes) -> None:
    async with acting(status(503), reset_now) as server, clean(kind, policies=retrying()) as session:
        async with session.put(server.url(), data=data, compress=compress) as resp:
            assert resp.status == 200
        bodies = {bytes(exchange.body) for exchange in server.exchanges}
        assert len(server.exchanges) == 3
        assert len(bodies) == 1
        assert {exchange.header("Content-Encoding") for exchange in server.exchanges} == {compress}


async def test_a_body_that_waits_for_leave_is_sent_again(kind: Sessions) -> None:
    """`Expect: 100-continue`, of which the server says nothing at first, and then yes."""

    def go_on(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async with acting() as server, clean(kind, policies=retrying(), timeout=SHORT) as session:
        server.early_routes["/"] = Acts(status(503), then=go_on)
        task = asyncio.ensure_future(session.put(server.url(), data=SMALL, expect100=True))
        await eventually(lambda: len(server.exchanges) == 2 and server.exchanges[-1].complete, "body")
        server.exchanges[-1].respond(200, b"ok")
        async with await task as resp:
            assert resp.status == 200
        assert [bytes(exchange.body) for exchange in server.exchanges] == [b"", SMALL]


async def test_json_and_headers_are_the_same_each_time(kind: Sessions) -> None:
    async with acting(status(503), reset_now) as server, clean(kind, policies=retrying()) as session:
        async with session.put(server.url(), json={"n": [1, 2]}, headers={"X-One": "1"}) as resp:
            assert resp.status == 200
        heads = {exchange.head for exchange in server.exchanges}
        assert len(server.exchanges) == 3
        assert len(heads) == 1


@pytest.mark.parametrize("make", [*REPEATABLE.values(), *ONCE.values()], ids=[*REPEATABLE, *ONCE])
async def test_only_bodies_of_bytes_are_sent_side_by_side(kind: Sessions, make: Make, tmp_path: Path) -> None:
    time = Time()
    hedge = Hedge(delay=0.0, allowed_methods=["PUT"])
    policies = Policies(hedge=hedge, clock=time, sleep=time.sleep)
    async with acting(after(0.05, ok), after(0.05, ok)) as server, clean(kind, policies=policies) as session:
        async with session.put(server.url(), data=make(SMALL, tmp_path)) as resp:
            assert resp.status == 200
        is_hedged = len(server.exchanges) == 2
        assert is_hedged == (make in (REPEATABLE["bytes"], REPEATABLE["bytearray"]))
        assert [payload_of(exchange) for exchange in server.exchanges if exchange.complete] == [SMALL] * len(
            server.exchanges
        )
