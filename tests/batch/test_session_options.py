"""What a session has, its batches have: cookies, redirects, credentials, hooks, policies."""

import asyncio
import contextvars
import json
from typing import Any

import aiohttp
import pytest
from support.local import Exchange, LocalServer, client_tls, server_tls

import wirespeed
from wirespeed.policy import CircuitBreaker, Policies, RateLimit, Retry

from .scene import KINDS, collected, connector, scene


@pytest.mark.parametrize("kind", KINDS)
async def test_cookies_of_a_response_are_sent_later(kind: str) -> None:
    async with scene(kind, cookie_jar=aiohttp.CookieJar(unsafe=True)) as at:
        at.server.routes["/set"] = lambda x: x.respond(
            200, b"set", [("Set-Cookie", f"n={x.query['n']}; Path=/")]
        )
        given = [at.url("/echo"), at.url("/set?n=1"), at.url("/echo"), at.url("/set?n=2"), at.url("/echo")]
        results = await at.results(given, concurrency=1)
        sent = [dict(results[i].json()["headers"]).get("Cookie") for i in (0, 2, 4)]
        assert sent == [None, "n=1", "n=2"]
        async with at.session.get(at.url("/echo")) as resp:
            assert dict((await resp.json())["headers"])["Cookie"] == "n=2"


@pytest.mark.parametrize("kind", KINDS)
async def test_cookies_of_errors_and_redirects_are_kept(kind: str) -> None:
    jar = aiohttp.CookieJar(unsafe=True)
    async with scene(kind, cookie_jar=jar, raise_for_status=True) as at:
        at.server.routes["/bad"] = lambda x: x.respond(500, b"", [("Set-Cookie", "bad=1; Path=/")])
        at.server.routes["/to"] = lambda x: x.respond(
            302, b"", [("Set-Cookie", "to=1; Path=/"), ("Location", "/echo")]
        )
        at.server.routes["/long"] = lambda x: x.respond(200, b"x" * 2000, [("Set-Cookie", "long=1; Path=/")])
        results = await at.results(
            [at.url("/bad"), at.url("/long"), at.url("/to")], concurrency=1, max_body=1000
        )
        assert [result.ok for result in results] == [False, False, True]
        assert dict(results[2].json()["headers"])["Cookie"] == "bad=1; long=1; to=1"


@pytest.mark.parametrize("kind", KINDS)
async def test_cookies_of_the_session(kind: str) -> None:
    async with scene(kind, cookies={"a": "1"}, cookie_jar=aiohttp.CookieJar(unsafe=True)) as at:
        given = [at.url("/echo"), wirespeed.Request("GET", at.url("/echo"), headers={"Cookie": "b=2"})]
        for result in await at.results(given):
            assert "a=1" in dict(result.json()["headers"])["Cookie"]


@pytest.mark.parametrize("kind", KINDS)
async def test_headers_of_the_session_and_of_the_request(kind: str) -> None:
    async with scene(
        kind, headers={"X-Base": "base", "X-Both": "session"}, skip_auto_headers=["User-Agent"]
    ) as at:
        own = wirespeed.Request("GET", at.url("/echo"), headers={"x-both": "request", "X-Own": "own"})
        plain, with_own = [
            dict(result.json()["headers"]) for result in await at.results([at.url("/echo"), own])
        ]
        assert (plain["X-Base"], plain["X-Both"]) == ("base", "session")
        assert (with_own["X-Base"], with_own["x-both"], with_own["X-Own"]) == ("base", "request", "own")
        assert "X-Both" not in with_own
        assert "User-Agent" not in plain


@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated")
@pytest.mark.filterwarnings("ignore:The 'auth' parameter is deprecated")
@pytest.mark.parametrize("kind", KINDS)
async def test_credentials(kind: str) -> None:
    async with scene(kind, auth=aiohttp.BasicAuth("user", "word")) as at:
        in_url = at.url("/echo").replace("http://", "http://other:secret@")
        results = await at.results([at.url("/echo"), in_url])
        sent = [dict(result.json()["headers"])["Authorization"] for result in results]
        async with at.session.get(in_url) as resp:
            single = dict((await resp.json())["headers"])["Authorization"]
        assert sent == [aiohttp.BasicAuth("user", "word").encode(), single]
        assert "secret" not in str(results[1].url)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_credentials_stay_with_their_origin(kind: str, status: int) -> None:
    async with scene(kind) as other, scene(kind, cookie_jar=aiohttp.CookieJar(unsafe=True)) as at:
        given = [
            wirespeed.Request(
                "GET",
                at.url("/redirect"),
                params={"to": target, "n": str(status)},
                headers={"Authorization": "Basic c2VjcmV0", "Cookie": "own=secret", "X-Mine": "1"},
            )
            for target in (at.url("/echo"), other.url("/echo"))
        ]
        here, there = [dict(result.json()["headers"]) for result in await at.results(given)]
        assert here["Authorization"] == "Basic c2VjcmV0"
        assert here["X-Mine"] == there["X-Mine"] == "1"
        assert "Authorization" not in there
        assert "secret" not in str(there)


@pytest.mark.parametrize("kind", KINDS)
async def test_redirects(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/loop"] = lambda x: x.respond(302, b"", [("Location", "/loop")])
        at.server.routes["/endless-redirect"] = lambda x: x.send(
            b"HTTP/1.1 302 Found\r\nLocation: /ok\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nmore.\r\n"
        )
        at.server.routes["/none"] = lambda x: x.respond(302, b"no Location")
        given: list[Any] = [
            at.url("/redirect?to=/ok"),
            wirespeed.Request("POST", at.url("/redirect?to=/echo&n=303"), data=b"body"),
            wirespeed.Request("POST", at.url("/redirect?to=/echo&n=307"), data=b"body"),
            at.url("/loop"),
            at.url("/endless-redirect"),
            at.url("/none"),
            at.url("/redirect?to=/drop"),
            at.url("/redirect?to=http://:99999/"),
            wirespeed.Request("HEAD", at.url("/redirect?to=/ok")),
        ]
        for concurrency in (1, 100):
            results = await at.results(given, concurrency=concurrency, timeout=5)
            assert results[0].body == b"ok"
            assert (results[1].json()["method"], results[1].json()["body"]) == ("GET", "")
            assert (results[2].json()["method"], results[2].json()["body"]) == ("POST", "body")
            assert isinstance(results[3].error, aiohttp.TooManyRedirects)
            assert (results[4].body, results[4].error) == (b"ok", None)
            assert (results[5].status, results[5].body) == (302, b"no Location")
            assert isinstance(results[6].error, aiohttp.ServerDisconnectedError)
            assert isinstance(results[7].error, aiohttp.InvalidURL)
            # As `session.request`, other than `session.head`.
            assert results[8].status == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_limit_of_a_body_is_that_of_the_last(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/to"] = lambda x: x.respond(302, b"x" * 100, [("Location", "/ok")])
        result = await at.result(at.url("/to"), max_body=2)
        assert (result.body, result.error) == (b"ok", None)


@pytest.mark.parametrize("kind", KINDS)
async def test_raise_for_status(kind: str) -> None:
    async with scene(kind, raise_for_status=True) as at:
        at.server.routes["/404"] = lambda x: x.respond(404, b"none", [("X-Why", "because")])
        at.server.routes["/slow-404"] = lambda x: x.send(b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\n")
        results = await at.results([at.url(), at.url("/404"), at.url("/slow-404"), at.url()], timeout=5)
        assert [result.ok for result in results] == [True, False, False, True]
        for result in results[1:3]:
            assert isinstance(result.error, aiohttp.ClientResponseError)
            assert (result.status, result.error.status, result.body) == (404, 404, b"")
        assert results[1].error.headers["x-why"] == "because"  # type: ignore[union-attr, index]


@pytest.mark.parametrize("kind", KINDS)
async def test_refused_answer_with_a_body_that_is_too_long(kind: str) -> None:
    async with scene(kind, raise_for_status=True) as at:
        at.server.routes["/404"] = lambda x: x.respond(404, b"x" * 100_000)
        for limit in (10, 50_000):
            result = await at.result(at.url("/404"), max_body=limit)
            assert (type(result.error), result.status) == (aiohttp.ClientResponseError, 404)


@pytest.mark.parametrize("kind", KINDS)
async def test_raise_for_status_that_is_called(kind: str) -> None:
    seen = []

    async def check(resp: aiohttp.ClientResponse) -> None:
        seen.append(resp.status)
        body = await resp.read()
        if resp.status == 404:
            raise KeyError(body)

    async with scene(kind, raise_for_status=check) as at:
        results = await at.results(
            [at.url(), at.url("/status?n=404"), at.url("/status?n=500")], concurrency=1
        )
        assert seen == [200, 404, 500]
        assert results[0].body == b"ok"
        assert isinstance(results[1].error, KeyError)
        assert results[1].error.args == (b"status",)
        assert (results[2].status, results[2].body, results[2].error) == (500, b"status", None)


@pytest.mark.parametrize("kind", KINDS)
async def test_json_serialize(kind: str) -> None:
    async with scene(kind, json_serialize=lambda value: json.dumps(["mine", value])) as at:
        requests = [wirespeed.Request("POST", at.url("/echo"), json=value) for value in ({"a": 1}, 0, "", [])]
        bodies = [json.loads(result.json()["body"]) for result in await at.results(requests)]
        assert bodies == [["mine", {"a": 1}], ["mine", 0], ["mine", ""], ["mine", []]]


@pytest.mark.parametrize("kind", KINDS)
async def test_middlewares(kind: str) -> None:
    async def mark(req: Any, handler: Any) -> Any:
        req.headers["X-Mark"] = "1"
        if req.url.path == "/refused":
            raise KeyError("refused")
        resp = await handler(req)
        if req.url.path == "/again":
            resp.release()
            req.url = req.url.with_path("/ok")
            resp = await handler(req)
        return resp

    async with scene(kind, middlewares=(mark,)) as at:
        results = await at.results(
            [at.url("/echo"), at.url("/refused"), at.url("/again"), at.url("/half")], timeout=0.2
        )
        assert dict(results[0].json()["headers"])["X-Mark"] == "1"
        assert isinstance(results[1].error, KeyError)
        assert len(at.server.exchanges) == 4
        assert isinstance(results[3].error, asyncio.TimeoutError)


@pytest.mark.parametrize("kind", KINDS)
async def test_traces(kind: str) -> None:
    signals: list[str] = []
    config = aiohttp.TraceConfig()
    for name in (
        "request_start",
        "request_end",
        "request_exception",
        "request_redirect",
        "response_chunk_received",
    ):

        async def seen(session: Any, context: Any, params: Any, name: str = name) -> None:
            signals.append(name)

        getattr(config, f"on_{name}").append(seen)

    async with scene(kind, trace_configs=[config]) as at:
        results = await at.results([at.url(), at.url("/drop"), at.url("/redirect?to=/ok")], concurrency=1)
        assert [result.ok for result in results] == [True, False, True]
        assert signals == [
            "request_start",
            "request_end",
            "response_chunk_received",
            "request_start",
            "request_exception",
            "request_start",
            "request_redirect",
            "request_end",
            "response_chunk_received",
        ]


@pytest.mark.parametrize("kind", KINDS)
async def test_policies_of_the_session(kind: str) -> None:
    policies = Policies(retry=Retry(3, backoff_factor=0), rate=RateLimit(1000))
    answers = iter([503, 503, 200, 503, 503, 503, 503])
    async with scene(kind, middlewares=(policies,)) as at:
        at.server.routes["/"] = lambda x: x.respond(next(answers), b"answer")
        results = await at.results([at.url("/"), at.url("/")], concurrency=1)
        assert [(result.status, result.attempts) for result in results] == [(200, 3), (503, 4)]
        # Of the policies around the batch and of those in the session: each has its say.
        answers = iter([503, 503, 200])
        result = await at.result(at.url("/"), retry=Retry(1, backoff_factor=0))
        assert result.status == 200


@pytest.mark.parametrize("kind", KINDS)
async def test_circuit_of_the_session(kind: str) -> None:
    policies = Policies(breaker=CircuitBreaker(minimum_calls=3, failure_rate=0.5))
    async with scene(kind, middlewares=(policies,)) as at:
        results = await at.results([at.url("/drop")] * 20, concurrency=1)
        assert len(at.server.exchanges) < 20
        assert all(result.error is not None for result in results)
        assert "circuit" in str(results[-1].error).lower()


MARK: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")


@pytest.mark.parametrize("kind", KINDS)
async def test_context_is_that_of_whoever_made_the_batch(kind: str) -> None:
    # Not of whatever step a request happens to begin in: the source's, another request's.
    seen = []

    async def look(req: Any, handler: Any) -> Any:
        seen.append(MARK.get())
        MARK.set("of a request")
        return await handler(req)

    async def source() -> Any:
        for url in at.urls(20):
            MARK.set("of the source")
            yield url

    async with scene(kind, middlewares=(look,)) as at:
        MARK.set("made here")
        for given in (source(), at.urls(20), iter(at.urls(20))):
            batch = at.session.batch(given, concurrency=3)
            MARK.set("of the consumer")
            assert len(await collected(batch)) == 20
            MARK.set("made here")
        assert set(seen) == {"made here"}
        assert MARK.get() == "made here"


@pytest.mark.parametrize("kind", KINDS)
async def test_tls(kind: str) -> None:
    async with LocalServer(ssl_context=server_tls()) as server:
        async with scene(connector=connector(kind, ssl=client_tls())) as at:
            given = [server.url("/echo"), server.url("/bytes?n=100000"), at.url(), server.url("/drop")] * 3
            results = await at.results(given, concurrency=2)
            for i in range(0, 12, 4):
                assert results[i].ok
                assert len(results[i + 1].body) == 100_000
                assert results[i + 2].body == b"ok"
                assert isinstance(results[i + 3].error, aiohttp.ServerDisconnectedError)
        async with scene(kind) as at:
            result = await at.result(server.url("/ok"))
            assert isinstance(result.error, aiohttp.ClientConnectorCertificateError)


@pytest.mark.parametrize("kind", KINDS)
async def test_bodies_that_are_sent(kind: str) -> None:
    async def generated() -> Any:
        yield b"gene"
        yield b"rated"

    form = aiohttp.FormData({"field": "value"})
    async with scene(kind) as at:
        given = [
            wirespeed.Request("POST", at.url("/echo"), data=data)
            for data in (
                b"bytes",
                "text",
                bytearray(b"array"),
                generated(),
                {"a": "b"},
                form,
                b"",
                b"x" * 300_000,
            )
        ]
        bodies = [result.json()["body"] for result in await at.results(given, concurrency=3)]
        assert bodies == ["bytes", "text", "array", "generated", "a=b", "field=value", "", "x" * 300_000]


def echo_expect(exchange: Exchange) -> None:
    exchange.respond(417)


@pytest.mark.parametrize("kind", KINDS)
async def test_large_upload_that_is_refused_early(kind: str) -> None:
    async with scene(kind) as at:
        at.server.early_routes["/early"] = lambda x: x.respond(413, b"too large", [("Connection", "close")])
        given = wirespeed.Request("POST", at.url("/early"), data=b"x" * 3_000_000)
        results = await at.results([given, at.url()] * 2, concurrency=1, timeout=5)
        assert [result.ok for result in results] == [False, True] * 2


async def test_session_of_a_subclass() -> None:
    asked: list[str] = []
    with pytest.warns(DeprecationWarning, match="Inheritance"):

        class Mine(wirespeed.ClientSession):
            async def _request(self, method: str, str_or_url: Any, **options: Any) -> Any:
                asked.append(method)
                return await super()._request(method, str_or_url, **options)

    async with scene() as at:
        async with Mine() as session:
            results = await collected(session.batch(at.urls(3)))
        assert [result.ok for result in results] == [True] * 3
        assert asked == ["GET"] * 3


@pytest.mark.parametrize("kind", KINDS)
async def test_patched_request_is_called(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tool that patches aiohttp sees the requests of batches.
    original = aiohttp.ClientSession._request
    seen = []

    async def patched(self: Any, method: str, url: Any, **options: Any) -> Any:
        seen.append(str(url))
        return await original(self, method, url, **options)

    async with scene(kind) as at:
        monkeypatch.setattr(aiohttp.ClientSession, "_request", patched)
        results = await at.results(at.urls(5), concurrency=2)
        monkeypatch.undo()
        assert [result.body for result in results] == [b"ok"] * 5
        assert sorted(seen) == sorted(at.urls(5))
