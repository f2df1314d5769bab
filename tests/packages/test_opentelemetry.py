"""OpenTelemetry's instrumentation: wraps `ClientSession.__init__` to add a TraceConfig."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from support.local import LocalServer

import wirespeed

from .scene import (
    Scene,
    every_order_but_not_undone,
    every_order_with_the_tool_first,
    lane,
    need,
    not_undone,
    run_script,
    support_folder,
)

otel = need("opentelemetry.instrumentation.aiohttp_client")
sdk = need("opentelemetry.sdk.trace")
export = need("opentelemetry.sdk.trace.export")
in_memory = need("opentelemetry.sdk.trace.export.in_memory_span_exporter")
trace = need("opentelemetry.trace")
utils = need("opentelemetry.instrumentation.utils")

# The lane of a request that is traced.
TRACED = "express"


class Spans:
    """The spans that were finished."""

    def __init__(self) -> None:
        self._exporter = in_memory.InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))

    def take(self) -> list[Any]:
        spans = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return spans


@contextmanager
def instrumented(**options: Any) -> Iterator[Spans]:
    spans = Spans()
    otel.AioHttpClientInstrumentor().instrument(tracer_provider=spans.provider, **options)
    try:
        yield spans
    finally:
        otel.AioHttpClientInstrumentor().uninstrument()


def traceparent(span: Any) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    """Take off what `NOT_UNDONE` leaves on."""
    owner = aiohttp.ClientSession
    yield
    utils.unwrap(owner, "__init__")


@pytest.fixture(autouse=True)
def _no_context_is_lost(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A span that is ended in another context than it began in is logged, not raised."""
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@every_order_with_the_tool_first
async def test_span_with_its_attributes_and_a_header_that_the_server_sees(order: str) -> None:
    async with LocalServer() as server, Scene(order, instrumented) as scene:
        with lane(scene.session, scene.lane(TRACED)):
            async with scene.session.post(
                server.url("/echo?q=1"), json={"a": 1}, headers={"X-Own": "kept"}
            ) as resp:
                answer = await resp.json()
        (span,) = scene.tool.take()
        assert (span.name, span.kind) == ("POST", trace.SpanKind.CLIENT)
        assert span.attributes["http.method"] == "POST"
        assert span.attributes["http.url"] == server.url("/echo?q=1")
        assert span.attributes["http.status_code"] == 200
        assert span.status.is_ok or span.status.is_unset
        headers = dict(answer["headers"])
        assert {name.lower(): value for name, value in headers.items()}["traceparent"] == traceparent(span)
        assert headers["X-Own"] == "kept"
        assert answer["body"] == '{"a": 1}'


@every_order_with_the_tool_first
async def test_span_is_a_child_and_requests_are_siblings(order: str) -> None:
    async with LocalServer() as server, Scene(order, instrumented) as scene:
        with scene.tool.provider.get_tracer("test").start_as_current_span("parent") as parent:
            for _ in range(3):  # on one connection
                await (await scene.session.get(server.url("/ok"))).read()
                assert trace.get_current_span() is parent
        *requests, last = scene.tool.take()
        assert last.name == "parent"
        assert [span.parent.span_id for span in requests] == [parent.get_span_context().span_id] * 3
        sent = [exchange.header("traceparent") for exchange in server.exchanges]
        assert sent == [traceparent(span) for span in requests]
        assert len(set(sent)) == 3
        assert len(server.connections) == 1


@every_order_with_the_tool_first
async def test_redirects_are_one_span_and_errors_are_recorded(order: str) -> None:
    async with LocalServer() as server:
        async with Scene(order, instrumented) as scene:
            await (await scene.session.get(server.url("/redirect?to=/ok"))).read()
            (span,) = scene.tool.take()
            assert span.attributes["http.status_code"] == 200
            assert [x.header("traceparent") for x in server.exchanges] == [traceparent(span)] * 2

            await (await scene.session.get(server.url("/status?n=503"))).read()
            (span,) = scene.tool.take()
            assert span.attributes["http.status_code"] == 503
            assert span.status.status_code is trace.StatusCode.ERROR

            with pytest.raises(aiohttp.ServerDisconnectedError):
                await scene.session.post(server.url("/drop"))
            (span,) = scene.tool.take()
            assert span.status.status_code is trace.StatusCode.ERROR
            assert [event.name for event in span.events] == ["exception"]
            assert span.status.description == "ServerDisconnectedError"

            with pytest.raises(TimeoutError):
                await scene.session.get(server.url("/hold"), timeout=aiohttp.ClientTimeout(total=0.1))
            assert len(scene.tool.take()) == 1
        assert trace.get_current_span() is trace.INVALID_SPAN


@every_order_with_the_tool_first
async def test_hooks_may_change_the_request_and_the_span(order: str) -> None:
    def on_request(span: Any, params: aiohttp.TraceRequestStartParams) -> None:
        span.update_name("renamed")
        params.headers["X-Hook"] = params.method

    def on_response(span: Any, params: Any) -> None:
        span.set_attribute("length", params.response.headers["Content-Length"])

    options: dict[str, Any] = {
        "request_hook": on_request,
        "response_hook": on_response,
        "url_filter": lambda url: str(url.with_query(None)),
    }
    async with LocalServer() as server, Scene(order, lambda: instrumented(**options)) as scene:
        await (await scene.session.get(server.url("/ok?secret=1"))).read()
        (span,) = scene.tool.take()
        assert (span.name, span.attributes["length"]) == ("renamed", "2")
        assert span.attributes["http.url"] == server.url("/ok")
        assert server.exchanges[0].header("X-Hook") == "GET"
        assert server.exchanges[0].target == "/ok?secret=1"


@every_order_but_not_undone
async def test_only_sessions_made_while_instrumented_are_traced(order: str) -> None:
    async with LocalServer() as server, Scene(order, instrumented) as scene:
        is_traced = order.index("tool") < order.index("session")
        with lane(scene.session, scene.lane(TRACED if is_traced else "express")):
            await (await scene.session.get(server.url("/ok"))).read()
        assert len(scene.tool.take()) == is_traced
        assert bool(server.exchanges[-1].header("traceparent")) is is_traced

        with utils.suppress_http_instrumentation():
            await (await scene.session.get(server.url("/ok"))).read()
        assert not scene.tool.take()

        scene.deactivate()
        otel.AioHttpClientInstrumentor.uninstrument_session(scene.session)
        async with scene.new_session() as later:
            for session, expected in ((scene.session, scene.lane()), (later, "express")):
                with lane(session, expected):
                    await (await session.get(server.url("/ok"))).read()
                assert server.exchanges[-1].header("traceparent") is None
        assert not scene.tool.take()


@every_order_but_not_undone
async def test_instrumented_a_second_time_traces_once(order: str) -> None:
    async with LocalServer() as server, Scene(order, instrumented) as scene:
        scene.deactivate()
        with instrumented() as spans:
            async with scene.new_session() as session:
                await (await session.get(server.url("/ok"))).read()
            assert len(spans.take()) == 1
        assert not scene.tool.take()


@pytest.mark.parametrize("is_installed", [False, True])
async def test_trace_config_given_to_the_session(is_installed: bool) -> None:
    spans = Spans()
    config = otel.create_trace_config(tracer_provider=spans.provider)
    async with LocalServer() as server:
        if is_installed:
            with wirespeed.installed():
                session = aiohttp.ClientSession(trace_configs=[config])
        else:
            session = wirespeed.ClientSession(trace_configs=[config])
        async with session:
            with lane(session, TRACED):
                await (await session.get(server.url("/ok"))).read()
        (span,) = spans.take()
        assert server.exchanges[0].header("traceparent") == traceparent(span)


IMPORT_ORDERS = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])

async def main():
    from support.local import LocalServer
    is_installed = False
    for step in sys.argv[1].split():
        if step == "aiohttp": import aiohttp
        elif step == "wirespeed": import wirespeed
        elif step == "install":
            wirespeed.install()
            is_installed = True
        elif step == "otel":
            from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
        elif step == "instrument": AioHttpClientInstrumentor().instrument()
        elif step == "uninstrument": AioHttpClientInstrumentor().uninstrument()
        elif step == "use":
            async with LocalServer() as server:
                for cls in dict.fromkeys([wirespeed.ClientSession, aiohttp.ClientSession]):
                    async with cls() as session:
                        await (await session.get(server.url("/ok"))).read()
                        configs = len(session._trace_configs)
                    stats = session.native_stats() if hasattr(session, "native_stats") else {"express": "-"}
                    print(configs, stats["express"], end=" ")
    print()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "steps",
    [
        "aiohttp otel instrument wirespeed use uninstrument use",
        "aiohttp wirespeed otel instrument use uninstrument use",
        "wirespeed aiohttp install otel instrument use uninstrument use",
        pytest.param("aiohttp otel instrument wirespeed install use uninstrument use", marks=not_undone),
        pytest.param("aiohttp wirespeed otel instrument install use uninstrument use", marks=not_undone),
    ],
)
def test_import_orders(steps: str) -> None:
    printed = run_script(IMPORT_ORDERS, steps, support_folder()).split()
    express = str(int(wirespeed.NATIVE))
    traced = express if TRACED == "express" else "0"
    if "install" in steps.split():
        assert printed == ["1", traced, "0", express]
    else:
        assert printed == ["1", traced, "1", "-", "0", express, "0", "-"]
