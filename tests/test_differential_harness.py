"""The differential harness sees a difference where there is one, and none where there is none."""

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from support import outcome
from support.outcome import FULL, OK, Case, Known, Mismatch, Run, assert_same, check_lane, differences
from support.scripted import Close, Expect, Reset, ScriptedServer, Send, by_byte, split_at

import wirespeed

Changed = Callable[..., Any]


async def fetch(run: Run) -> Any:
    async with run.session.get(run.url("/x")) as resp:
        await resp.read()
    return resp


async def extra_header(call: Changed, method: str, url: Any, **more: Any) -> Any:
    return await call(method, url, **{**more, "headers": {"X-More": "1"}})


async def closes_too_soon(call: Changed, method: str, url: Any, **more: Any) -> Any:
    session = call.__self__  # type: ignore[attr-defined]
    resp = await call(method, url, **more)
    await resp.read()
    used, session._connector = session._connector, wirespeed.TCPConnector()
    await used.close()
    return resp


async def other_status(call: Changed, method: str, url: Any, **more: Any) -> Any:
    resp = await call(method, url, **more)
    resp.status += 1
    return resp


async def other_error(call: Changed, method: str, url: Any, **more: Any) -> Any:
    raise aiohttp.ClientOSError(5, "made up")


async def warning(call: Changed, method: str, url: Any, **more: Any) -> Any:
    warnings.warn("made up", UserWarning, stacklevel=2)
    return await call(method, url, **more)


async def reported(call: Changed, method: str, url: Any, **more: Any) -> Any:
    asyncio.get_running_loop().call_exception_handler({"message": "made up"})
    return await call(method, url, **more)


async def second_request(call: Changed, method: str, url: Any, **more: Any) -> Any:
    (await call(method, url, **more)).close()
    return await call(method, url, **more)


CHANGES = {
    extra_header: "wire",
    closes_too_soon: "connections",
    other_status: "result.status",
    other_error: "error",
    warning: "warnings",
    reported: "loop_errors",
    second_request: "wire",
}


def changed_session(change: Changed) -> type:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Session(wirespeed.ClientSession):
            def _request(self, *args: Any, **kwargs: Any) -> Any:
                return change(super()._request, *args, **kwargs)

    return Session


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_difference_is_found_and_named(change: Changed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome.wirespeed, "ClientSession", changed_session(change))
    script = ((Expect(), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000)),)
    with pytest.raises(Mismatch) as caught:
        await assert_same(Case("changed", fetch, script, lane=None))
    assert f"\n{CHANGES[change]}" in str(caught.value)


async def test_accepted_difference_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome.wirespeed, "ClientSession", changed_session(warning))
    case = Case("accepted", fetch, OK, lane=None)
    await assert_same(case, {"accepted": Known(("warn",), "for this test")})
    with pytest.raises(Mismatch, match="warnings"):
        await assert_same(case, {"accepted": Known(("wire",), "for this test")})


async def test_row_that_says_otherwise_than_aiohttp_fails() -> None:
    with pytest.raises(Mismatch, match="aiohttp gave 200"):
        await assert_same(Case("wrong", fetch, OK, expect=404))


@pytest.mark.parametrize(
    ("lane", "stats", "is_right"),
    [
        ("express", {"express": 1, "full": {}}, True),
        ("express", {"express": 0, "full": {}}, False),
        ("express", {"express": 1, "full": {"proxy": 1}}, False),
        (FULL, {"express": 0, "full": {"proxy": 1}}, True),
        (FULL, {"express": 1, "full": {"proxy": 1}}, False),
        (None, {"express": 1, "full": {"proxy": 1}}, True),
    ],
)
def test_lane_is_checked_in_a_native_build(
    lane: str | None, stats: dict[str, Any], is_right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome.wirespeed, "NATIVE", True)
    case = Case("lane", fetch, lane=lane)
    if is_right:
        check_lane(case, stats)
    else:
        with pytest.raises(Mismatch, match="lane"):
            check_lane(case, stats)


def test_differences_name_the_leaves() -> None:
    found = differences({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 2})
    assert found == {"a.c": ([1], [2]), "d": (2, "(absent)"), "e": ("(absent)", 2)}
    assert differences({"a": 1}, {"a": True}) == {"a": (1, True)}


async def test_server_records_what_each_connection_received() -> None:
    server = ScriptedServer(((Expect(), Send(b"one")), (Reset(),), (Close(),)))
    await server.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        assert await reader.readexactly(3) == b"one"
        writer.write(b"GET /more HTTP/1.1\r\n\r\n")
        assert (await reader.readuntil(b"plain")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        writer.close()
        assert await server.all_lost(1) == 0
    finally:
        await server.stop()
    assert server.received == [
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /more HTTP/1.1\r\n\r\n",
        b"",
        b"",
    ]


def test_pieces_are_the_whole() -> None:
    assert b"".join(split_at(b"abcdef", 2, 4).pieces) == b"abcdef"
    assert by_byte(b"abc").pieces == (b"a", b"b", b"c")
