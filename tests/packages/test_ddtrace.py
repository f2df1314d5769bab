"""ddtrace: wraps `ClientSession._request` and `__init__`, where it wraps the session's connector too.

It changes much of the process that it is imported into, so each case has a Python of its own.
"""

import json
from typing import Any

import pytest

import wirespeed

from .scene import need, not_undone, run_script, support_folder

need("ddtrace.version")

# A request that is traced: ddtrace's wrap of `_request` is on aiohttp's class, or on ours after install().
PATCHED = "aiohttp is patched"

SCRIPT = """
import asyncio, json, sys, warnings
sys.path.insert(0, sys.argv[2])
told = []

def new_loop(kind):
    if kind == "asyncio":
        return asyncio.new_event_loop()
    import uvloop
    return uvloop.new_event_loop()

async def use(session, server, close=True):
    from ddtrace.trace import tracer
    before = session.native_stats() if hasattr(session, "native_stats") else {}
    with tracer.trace("outer") as outer:
        async with session.post(server.url("/echo?q=1"), json={"a": 1}, headers={"X-Own": "kept"}) as resp:
            answer = await resp.json()
    spans = [vars_of(span) for span in taken()]
    after = session.native_stats() if before else {"express": 0, "full": {}}
    headers = {name.lower(): value for name, value in answer["headers"]}
    told.append({
        "spans": spans, "headers": headers, "status": resp.status, "outer": [outer.trace_id, outer.span_id],
        "express": after["express"] - before.get("express", 0), "full": after["full"],
    })

def vars_of(span):
    return {"name": span.name, "resource": span.resource, "id": span.span_id, "parent": span.parent_id,
            "tags": {k: str(v) for k, v in span.get_tags().items()}, "error": span.error}

FINISHED = []
def taken():
    spans, FINISHED[:] = FINISHED[:], []
    return spans

def listen():
    from ddtrace.trace import tracer, TraceFilter
    class Keep(TraceFilter):
        def process_trace(self, trace):
            FINISHED.extend(trace)
            return None  # nothing is sent
    tracer.configure(trace_processors=[Keep()])

async def main():
    from support.local import LocalServer
    session = None
    async with LocalServer() as server:
        for step in sys.argv[1].split():
            if step == "aiohttp": import aiohttp
            elif step == "wirespeed": import wirespeed
            elif step == "install": wirespeed.install()
            elif step == "uninstall": wirespeed.uninstall()
            elif step == "ddtrace":
                import ddtrace
                listen()
            elif step == "patch":
                from ddtrace import patch
                patch(aiohttp=True)
            elif step == "unpatch":
                from ddtrace.contrib.internal.aiohttp.patch import unpatch
                unpatch()
            elif step == "new":
                session = aiohttp.ClientSession()
            elif step == "direct":
                session = wirespeed.ClientSession()
            elif step == "use":
                await use(session, server)
            elif step == "close":
                await session.close()
    print(json.dumps(told))

loop = new_loop(sys.argv[3])
loop.run_until_complete(main())
"""


def run(steps: str, loop: str = "asyncio") -> list[dict[str, Any]]:
    out = run_script(
        SCRIPT,
        steps,
        support_folder(),
        loop,
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_TRACE_STARTUP_LOGS="false",
        DD_CRASHTRACKING_ENABLED="false",
    )
    told: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    return told


def check_traced(told: dict[str, Any], connects: bool = True) -> None:
    """A span with its attributes; the server saw which one."""
    spans = {span["name"]: span for span in told["spans"]}
    request = spans["aiohttp.request"]
    assert request["parent"] == told["outer"][1]
    assert request["tags"]["http.method"] == "POST"
    assert request["tags"]["http.status_code"] == "200"
    assert "/echo" in request["tags"]["http.url"]
    assert told["headers"]["x-datadog-parent-id"] == str(request["id"])
    assert told["headers"]["x-datadog-trace-id"] == str(told["outer"][0] & (2**64 - 1))
    assert told["headers"]["x-own"] == "kept"
    assert [n for n in spans if n.endswith(".connect")] == (["TCPConnector.connect"] if connects else [])
    assert told["express"] == 0 or not connects


def check_untraced(told: dict[str, Any]) -> None:
    assert [span["name"] for span in told["spans"]] == ["outer"]
    assert "x-datadog-trace-id" not in told["headers"]
    assert told["status"] == 200


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    "steps",
    [
        "aiohttp ddtrace patch wirespeed direct use use close unpatch direct use close",
        "aiohttp wirespeed ddtrace patch direct use use close unpatch direct use close",
        "ddtrace wirespeed aiohttp install patch new use use close unpatch new use close",
        pytest.param(
            "aiohttp ddtrace patch wirespeed install new use use close unpatch new use close",
            marks=not_undone,
        ),
        pytest.param(
            "aiohttp wirespeed ddtrace patch install new use use close unpatch new use close",
            marks=not_undone,
        ),
        "aiohttp wirespeed install ddtrace patch new use use close unpatch new use close uninstall",
        "aiohttp ddtrace patch wirespeed install new use use close uninstall unpatch new use close",
    ],
)
def test_traced_while_patched_and_express_afterwards(steps: str, loop: str) -> None:
    first, second, third = run(steps, loop)
    check_traced(first)
    check_traced(second)
    check_untraced(third)
    if wirespeed.NATIVE and "uninstall unpatch" not in steps:
        assert (third["express"], third["full"]) == (1, {})


@pytest.mark.parametrize(
    "steps",
    [
        "aiohttp wirespeed ddtrace direct use patch use unpatch use close",
        "aiohttp wirespeed install ddtrace new use patch use unpatch use close",
    ],
)
def test_session_that_is_older_than_the_patch(steps: str) -> None:
    """Its requests are traced, its connector is not."""
    first, second, third = run(steps)
    check_untraced(first)
    check_traced(second, connects=False)
    check_untraced(third)
    if wirespeed.NATIVE:
        assert (first["express"], third["express"]) == (1, 1)


@pytest.mark.parametrize(
    "steps",
    [
        "aiohttp wirespeed ddtrace patch direct unpatch use close",
        "aiohttp wirespeed install ddtrace patch new unpatch use close",
    ],
)
def test_session_that_outlives_the_patch_keeps_its_wrapped_connector(steps: str) -> None:
    (told,) = run(steps)
    assert {span["name"] for span in told["spans"]} == {"outer", "TCPConnector.connect"} | (
        {"TCPConnector._create_connection"} & {span["name"] for span in told["spans"]}
    )
    if wirespeed.NATIVE:
        assert told["full"] == {"foreign connector": 1}
