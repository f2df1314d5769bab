"""sentry-sdk: replaces `ClientSession.__init__` for good, to add a TraceConfig that spans requests."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import aiohttp.web
import pytest
from support.local import LocalServer

import wirespeed

from .scene import Scene, every_order, every_order_with_the_tool_first, lane, need, run_script, support_folder

sentry_sdk = need("sentry_sdk")
integrations = need("sentry_sdk.integrations")
AioHttpIntegration = need("sentry_sdk.integrations.aiohttp").AioHttpIntegration
Transport = need("sentry_sdk.transport").Transport

# The lane of a request that is traced.
TRACED = "express"


class Events(Transport):  # type: ignore[misc]
    """Keeps what would be sent."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.events += [item.payload.json for item in envelope.items if item.payload.json]


@contextmanager
def initialized(**options: Any) -> Iterator[Events]:
    """Sentry as it is in a fresh process; afterwards the process is fresh again."""
    patched = [
        (aiohttp.ClientSession, "__init__"),
        (aiohttp.web.Application, "_handle"),
        (aiohttp.web.UrlDispatcher, "resolve"),
    ]
    before = [vars(owner)[name] for owner, name in patched]
    transport = Events()
    sentry_sdk.init(
        dsn="http://key@sentry.invalid/1",
        transport=transport,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[AioHttpIntegration()],
        traces_sample_rate=1.0,
        **options,
    )
    try:
        yield transport
    finally:
        close()
        for (owner, name), member in zip(patched, before, strict=True):
            setattr(owner, name, member)
        integrations._processed_integrations.discard("aiohttp")
        integrations._installed_integrations.discard("aiohttp")


def close() -> None:
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)
    for scope in (
        sentry_sdk.get_global_scope(),
        sentry_sdk.get_isolation_scope(),
        sentry_sdk.get_current_scope(),
    ):
        scope.clear()


@every_order_with_the_tool_first
async def test_span_breadcrumb_and_headers_that_the_server_sees(order: str) -> None:
    async with LocalServer() as server, Scene(order, initialized) as scene:
        with lane(scene.session, scene.lane(TRACED)), sentry_sdk.start_transaction(name="outer") as outer:
            async with scene.session.put(
                server.url("/echo?q=1"), data=b"x", headers={"X-Own": "kept"}
            ) as resp:
                headers = {name.lower(): value for name, value in (await resp.json())["headers"]}
            sentry_sdk.capture_message("message")
        message, transaction = scene.tool.events
        (crumb,) = message["breadcrumbs"]["values"]
        assert (crumb["category"], crumb["data"]["http.method"]) == ("httplib", "PUT")
        assert crumb["data"]["http.response.status_code"] == 200
        assert crumb["data"]["url"] == server.url("/echo")
        (span,) = transaction["spans"]
        assert (span["op"], span["description"]) == ("http.client", f"PUT {server.url('/echo')}")
        assert span["data"]["http.response.status_code"] == 200
        assert span["data"]["http.query"] == "q=1"
        assert headers["sentry-trace"] == f"{outer.trace_id}-{span['span_id']}-1"
        assert f"sentry-trace_id={outer.trace_id}" in headers["baggage"]
        assert headers["x-own"] == "kept"


@every_order_with_the_tool_first
async def test_each_request_has_a_span_and_failures_have_a_status(order: str) -> None:
    async with LocalServer() as server, Scene(order, initialized) as scene:
        with sentry_sdk.start_transaction(name="outer"):
            for path in ("/ok", "/status?n=500", "/redirect?to=/ok"):
                await (await scene.session.get(server.url(path))).read()
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await scene.session.post(server.url("/drop"))
        (transaction,) = scene.tool.events
        told = [(span["description"], span.get("status")) for span in transaction["spans"]]
        assert [status for _, status in told][:3] == ["ok", "internal_error", "ok"]
        assert all(exchange.header("sentry-trace") for exchange in server.exchanges)
        assert len(server.exchanges) == 5


@every_order_with_the_tool_first
async def test_targets_of_propagation_are_heeded(order: str) -> None:
    async with LocalServer() as server:
        options: dict[str, Any] = {"trace_propagation_targets": ["elsewhere"]}
        async with Scene(order, lambda: initialized(**options)) as scene:
            await (await scene.session.get(server.url("/ok"))).read()
            assert server.exchanges[0].header("sentry-trace") is None


@every_order
async def test_express_when_the_client_is_closed_and_its_patch_stays(order: str) -> None:
    async with LocalServer() as server, Scene(order, initialized) as scene:
        close()
        async with scene.new_session() as later:
            for session, expected in ((scene.session, scene.lane()), (later, "express")):
                if session is scene.session and session._trace_configs:
                    expected = scene.lane(TRACED)
                with lane(session, expected):
                    await (await session.get(server.url("/ok"))).read()
        assert not any(exchange.header("sentry-trace") for exchange in server.exchanges)


IMPORT_ORDERS = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])

async def main():
    from support.local import LocalServer
    for step in sys.argv[1].split():
        if step == "aiohttp": import aiohttp
        elif step == "wirespeed": import wirespeed
        elif step == "install": wirespeed.install()
        elif step == "sentry":
            import sentry_sdk
            options = {"transport": lambda event: None, "traces_sample_rate": 1.0}
            sentry_sdk.init(dsn="http://key@sentry.invalid/1", **options)
        elif step == "use":
            async with LocalServer() as server:
                for cls in dict.fromkeys([wirespeed.ClientSession, aiohttp.ClientSession]):
                    with sentry_sdk.start_transaction(name="outer"):
                        async with cls() as session:
                            await (await session.get(server.url("/ok"))).read()
                    stats = session.native_stats() if hasattr(session, "native_stats") else {"express": "-"}
                    print(bool(server.exchanges[-1].header("sentry-trace")), stats["express"], end=" ")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "steps",
    [
        "sentry aiohttp wirespeed use",  # with the integrations that sentry finds by itself
        "aiohttp wirespeed sentry use",
        "sentry wirespeed aiohttp install use",
        "wirespeed aiohttp install sentry use",
        "aiohttp wirespeed sentry install use",
    ],
)
def test_import_orders(steps: str) -> None:
    printed = run_script(IMPORT_ORDERS, steps, support_folder()).split()
    express = str(int(wirespeed.NATIVE and TRACED == "express"))
    assert printed == ["True", express] + ([] if "install" in steps else ["True", "-"])
