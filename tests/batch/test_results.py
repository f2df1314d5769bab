"""What a result tells: every attribute, of answers and of failures."""

import asyncio
import gc
import json
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from support.local import Exchange
from yarl import URL

import wirespeed
from wirespeed.batch import BodyTooLarge, Result

from .scene import KINDS, scene


def typed(body: bytes, content_type: str | None) -> Callable[[Exchange], None]:
    fields = [] if content_type is None else [("Content-Type", content_type)]
    return lambda x: x.respond(200, body, fields)


@pytest.mark.parametrize("kind", KINDS)
async def test_attributes_of_an_answer(kind: str) -> None:
    async with scene(kind) as at:
        fields = [("X-Two", "1"), ("x-two", "2"), ("Content-Type", "text/plain"), ("X-Odd", "caf\xe9")]
        at.server.routes["/"] = lambda x: x.respond(201, b"made", fields)
        given = wirespeed.Request("POST", at.url("/?a=b"), data=b"x", id="mine")
        result = await at.result(given)
        assert type(result) is Result
        assert result.request is given
        assert result.request.id == "mine"
        assert (result.index, result.status, result.body, result.error) == (0, 201, b"made", None)
        assert (result.ok, result.attempts) == (True, 1)
        assert isinstance(result.elapsed, float)
        assert 0 < result.elapsed < 5
        assert result.url == URL(at.url("/?a=b"))
        assert isinstance(result.headers, CIMultiDictProxy)
        assert result.headers is result.headers
        assert result.headers["CONTENT-TYPE"] == result.headers["content-type"] == "text/plain"
        assert result.headers.getall("X-TWO") == ["1", "2"]
        names = ["X-Two", "x-two", "Content-Type", "X-Odd", "Content-Length"]
        assert [name for name, _ in result.headers.items()] == names
        with pytest.raises(TypeError):
            result.headers["X-New"] = "1"  # type: ignore[index]
        assert repr(result) == f"<Result 0 {result.url}: 201, 4 bytes>"


@pytest.mark.parametrize("kind", KINDS)
async def test_attributes_of_a_failure(kind: str) -> None:
    async with scene(kind) as at:
        result = await at.result(at.url("/drop"))
        assert isinstance(result.error, aiohttp.ServerDisconnectedError)
        assert (result.status, result.body, result.ok) == (None, b"", False)
        assert len(result.headers) == 0
        assert "x" not in result.headers
        assert result.url == URL(at.url("/drop"))
        assert result.elapsed > 0
        for read in (result.text, result.json):
            with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
                read()
            assert caught.value is result.error
        assert "ServerDisconnectedError" in repr(result)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (299, True), (399, True), (400, False), (404, False), (599, False)]
)
async def test_ok_is_a_status_below_400(status: int, ok: bool, kind: str) -> None:
    async with scene(kind) as at:
        result = await at.result(at.url(f"/status?n={status}"))
        assert (result.status, result.ok, result.error) == (status, ok, None)


@pytest.mark.parametrize("kind", KINDS)
async def test_url_is_that_after_redirects(kind: str) -> None:
    async with scene(kind) as at:
        results = await at.results(
            [
                at.url("/redirect?to=/ok%23part"),
                wirespeed.Request("GET", at.url("/redirect"), params={"to": "/redirect?to=/ok", "n": "307"}),
                at.url("/ok#top"),
                wirespeed.Request("GET", at.url("/ok"), params={"p": "1"}),
            ]
        )
        assert [result.body for result in results] == [b"ok"] * 4
        assert [str(result.url) for result in results] == [
            at.url("/ok#part"),
            at.url("/ok"),
            at.url("/ok#top"),
            at.url("/ok?p=1"),
        ]


async def test_url_of_what_has_no_answer() -> None:
    async with scene(base=True) as at:
        results = await at.results(["http://h.invalid:99999/", None, "/drop", at.url("/drop")])  # type: ignore[list-item]
        assert results[0].url is None
        assert results[1].url is None
        assert results[3].url == URL(at.url("/drop"))
        assert all(result.error is not None for result in results)


TEXTS: dict[str, tuple[bytes, str | None, str]] = {
    "said": ("café".encode("latin-1"), "text/plain; charset=latin-1", "café"),
    "quoted": ("café".encode("utf-16"), 'text/plain; charset="UTF-16"', "café"),
    "none": ("café".encode(), "text/plain", "café"),
    "no type": ("café".encode(), None, "café"),
    "unknown": ("café".encode(), "text/plain; charset=x-none", "café"),
    "no text": ("café".encode(), "text/plain; charset=hex", "café"),
    "with NUL": ("café".encode(), "text/plain; charset=a\x00b", "café"),
    "json": ('"café"'.encode(), "application/json", '"café"'),
    "empty": (b"", "text/plain; charset=utf-16", ""),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_text_is_decoded_by_its_charset(kind: str) -> None:
    async with scene(kind) as at:
        for name, (body, content_type, text) in TEXTS.items():
            if "\x00" in (content_type or ""):
                continue
            at.server.routes["/"] = typed(body, content_type)
            result = await at.result(at.url("/"))
            assert result.text() == text, name


async def test_charset_with_odd_bytes() -> None:
    result = Result(
        "http://h/",
        0,
        status=200,
        body=b"x",
        headers=CIMultiDictProxy(headers_of({"Content-Type": TEXTS["with NUL"][1]})),
    )
    assert result.text() == "x"


def headers_of(fields: Any) -> Any:
    from multidict import CIMultiDict

    return CIMultiDict(fields)


async def test_text_with_arguments() -> None:
    async with scene() as at:
        at.server.routes["/"] = typed("café".encode("latin-1"), "text/plain")
        result = await at.result(at.url("/"))
        assert result.text("latin-1") == "café"
        assert result.text(errors="replace") == "caf\ufffd"
        assert result.text(encoding="ascii", errors="ignore") == "caf"
        with pytest.raises(UnicodeDecodeError):
            result.text()
        with pytest.raises(UnicodeDecodeError):
            result.json()
        with pytest.raises(LookupError):
            result.text("x-none")


async def test_json() -> None:
    async with scene() as at:
        for body, content_type, value in (
            (b'{"a": [1, null]}', "application/json", {"a": [1, None]}),
            (b" 5 \r\n", "text/plain", 5),
            (b"", "application/json", None),
            (b" \n ", "application/json", None),
            ('"café"'.encode("utf-16"), "application/json; charset=utf-16", "café"),
        ):
            at.server.routes["/"] = typed(body, content_type)
            result = await at.result(at.url("/"))
            assert result.json() == value
        at.server.routes["/"] = typed(b'{"n": 1.5', "application/json")
        with pytest.raises(json.JSONDecodeError):
            (await at.result(at.url("/"))).json()
        at.server.routes["/"] = typed(b"[1.5]", "text/html")
        result = await at.result(at.url("/"))
        assert result.json(loads=lambda text: ("loaded", text)) == ("loaded", "[1.5]")
        assert result.json(encoding="ascii") == [1.5]


async def test_status_404_can_be_read() -> None:
    async with scene() as at:
        at.server.routes["/"] = lambda x: x.respond(404, b'{"error": "none"}')
        result = await at.result(at.url("/"))
        assert not result.ok
        assert result.json() == {"error": "none"}


@pytest.mark.parametrize("kind", KINDS)
async def test_indices_follow_the_input(kind: str) -> None:
    async with scene(kind) as at:
        given = [at.url(f"/echo?i={i}") if i % 3 else f"bad:{i}" for i in range(30)]
        results = [result async for result in at.session.batch(given, concurrency=4)]
        assert sorted(result.index for result in results) == list(range(30))
        for result in results:
            assert result.request.url == given[result.index]
            if result.ok:
                assert result.json()["target"] == f"/echo?i={result.index}"


async def test_elapsed_is_the_time_of_the_request_alone() -> None:
    async with scene() as at:
        at.server.routes["/late"] = lambda x: asyncio.get_running_loop().call_later(0.05, x.respond)
        # The others wait for their turn, or for the consumer, which is none of their time.
        results = []
        async for result in at.session.batch([at.url("/late")] + [at.url("/ok")] * 4, concurrency=1):
            results.append(result)
            await asyncio.sleep(0.02)
        assert 0.045 < results[0].elapsed < 1
        assert all(0 < result.elapsed < 0.04 for result in results[1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
async def test_pickling(kind: str, protocol: int) -> None:
    async with scene(kind) as at:
        at.server.routes["/"] = lambda x: x.respond(200, b"body", [("X-Two", "1"), ("X-Two", "2")])
        request = wirespeed.Request("GET", at.url("/"), headers={"a": "b"}, params={"q": "1"}, id=("x", 1))
        long = wirespeed.Request("GET", at.url("/ok"), id="long")
        results = await at.results(
            [at.url("/"), request, at.url("/drop"), long, URL(at.url("/ok")), None], max_body=4
        )
        for result in results:
            again: Result = pickle.loads(pickle.dumps(result, protocol))
            assert type(again) is Result
            assert again.request == result.request
            for name in ("index", "status", "body", "ok", "attempts", "elapsed", "url", "headers"):
                assert getattr(again, name) == getattr(result, name), name
            assert list(again.headers.items()) == list(result.headers.items())
            assert again.headers.get("x-two") == result.headers.get("x-two")
            assert repr(again.error) == repr(result.error)
            assert type(again.error) is type(result.error)
            assert repr(again) == repr(result)


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_of_every_kind_can_be_pickled(kind: str) -> None:
    # A cluster's results come out of other processes.
    async with scene(kind, raise_for_status=True) as at:
        at.server.routes["/bad"] = lambda x: x.send(b"HTTQ/1.1 nonsense\r\n\r\n")
        at.server.routes["/cut"] = lambda x: (
            x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
            x.connection.transport.close(),
        )
        results = await at.results(
            [
                at.url("/status?n=404"),
                at.url("/bad"),
                at.url("/cut"),
                at.url("/hold"),
                at.url("/redirect?to=ftp://x/"),
                "http://127.0.0.1:1/",
                "nonsense",
                wirespeed.Request("GET", at.url(), headers={"a": "b\nc"}),
                at.url("/bytes?n=2000"),
            ],
            timeout=0.3,
            max_body=1000,
        )
        for result in results:
            assert result.error is not None, result
            again = pickle.loads(pickle.dumps(result))
            assert type(again.error) is type(result.error)
            assert str(again.error) == str(result.error)
        assert isinstance(results[-1].error, BodyTooLarge)
        assert pickle.loads(pickle.dumps(results[-1])).error.limit == 1000


@pytest.mark.parametrize("kind", KINDS)
async def test_results_are_freed_at_once(kind: str) -> None:
    # Without a collection of garbage: a million of them would wait for it.
    class Watched(wirespeed.Request):
        __slots__ = ("__weakref__",)

    async with scene(kind, raise_for_status=True) as at:
        paths = ["/ok", "/status?n=500", "/drop", "/redirect?to=/ok", "/bytes?n=9000", "/cut", "/late"]
        at.server.routes["/cut"] = lambda x: (
            x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"),
            x.connection.transport.close(),
        )
        at.server.routes["/late"] = lambda x: None
        given = [Watched("GET", at.url(path)) for path in paths] + [Watched("GET", "nonsense")]
        alive = [weakref.ref(request) for request in given]
        gc.collect()
        gc.disable()
        try:
            async with at.session.batch(iter_and_drop(given), max_body=5000, timeout=0.2) as batch:
                async for result in batch:
                    result.headers.get("x")
                    assert result.url is not None
                    del result
                for _ in range(5):
                    await asyncio.sleep(0)
                left = [
                    path for path, ref in zip([*paths, "nonsense"], alive, strict=True) if ref() is not None
                ]
        finally:
            gc.enable()
        assert left == []


def iter_and_drop(items: list[Any]) -> Any:
    while items:
        yield items.pop(0)
