"""Trace handlers that raise, hang, are cancelled or outlast a timeout, at each signal.

Each scene brings its signal about on a session whose pool has one slot; a request and the
probe made afterwards show whether the slot is free again and what became of the connection.
"""

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.outcome import ANY, Case, Do, Run, Script
from support.scripted import Await, Close, Expect, Pause, Send, Stall
from support.tracing import SIGNALS, Action, Tracer, raising, setting, sleeping, waiting

from .tables import answer, check, get, post, request, serve, table
from .test_tracing import (
    ANSWER,
    BODIES,
    PAIR,
    STALE,
    Known,
    at_name,
    case,
    in_turn,
    redirecting,
    traced,
)

Scenic = Callable[..., Do]
ONE = {"limit": 1}


@dataclass(frozen=True)
class Scene:
    """How a signal comes about: `do(**options)` makes the request whose handler is to fail."""

    do: Scenic
    script: Script = ((Expect(), Send(ANSWER)),)
    connector: Mapping[str, Any] = field(default_factory=lambda: ONE)


def after_another(make: Scenic) -> Scenic:
    return lambda **options: in_turn(get("/1", trace_request_ctx="first"), make("/t", **options))


def named(path: str = "/t", **options: Any) -> Do:
    return at_name(path, **options)


def queued(**options: Any) -> Do:
    """A request that waits for the slot that another request holds until its body has come."""

    async def do(run: Run) -> Any:
        first = await run.session.get(run.url("/1"), trace_request_ctx="first")
        second = asyncio.ensure_future(get("/t", **options)(run))
        try:
            await asyncio.sleep(0.01)
            run.server.event("body").set()
            await first.read()
            return await second
        finally:
            first.close()
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)

    return do


HELD: Script = (
    (
        Expect(),
        Send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
        Await("body"),
        Send(b"held"),
        Expect(),
        Send(ANSWER),
    ),
)
HELD_AND_CLOSED: Script = (
    (
        Expect(),
        Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"),
        Await("body"),
        Send(b"held"),
        Close(),
    ),
)


def slow_generator(run: Run) -> dict[str, Any]:
    return BODIES["a slow generator"]()


SCENES: dict[str, Scene] = {
    "request_start": Scene(lambda **options: get("/t", **options)),
    "request_chunk_sent": Scene(lambda **options: post("/t", data=b"body", **options)),
    "response_chunk_received": Scene(lambda **options: get("/t", **options)),
    "request_end": Scene(lambda **options: get("/t", **options)),
    "request_exception": Scene(lambda **options: post("/t", **options), serve(Close())),
    "request_redirect": Scene(lambda **options: get("/t", **options), redirecting("302 F", "Location: /u")),
    "connection_queued_start": Scene(queued, HELD),
    "connection_queued_end": Scene(queued, HELD),
    "connection_create_start": Scene(lambda **options: get("/t", **options)),
    "connection_create_end": Scene(lambda **options: get("/t", **options)),
    "connection_reuseconn": Scene(after_another(get), PAIR),
    "dns_resolvehost_start": Scene(named, connector={**ONE, "resolver": Known}),
    "dns_resolvehost_end": Scene(named, connector={**ONE, "resolver": Known}),
    "dns_cache_miss": Scene(named, connector={**ONE, "resolver": Known}),
    "dns_cache_hit": Scene(
        lambda **options: in_turn(at_name("/1", trace_request_ctx="first"), at_name("/t", **options)),
        connector={**ONE, "resolver": Known, "force_close": True},
    ),
    "request_headers_sent": Scene(lambda **options: get("/t", **options)),
}
MORE_SCENES: dict[str, tuple[str, Scene]] = {
    "end within a body": (
        "request_end",
        Scene(
            lambda **options: get("/t", **options),
            serve(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", Stall()),
        ),
    ),
    "end of a POST": ("request_end", Scene(lambda **options: post("/t", data=b"x", **options))),
    "chunk of a generator": (
        "request_chunk_sent",
        Scene(lambda **options: post("/t", slow_generator, **options)),
    ),
    "chunk of a PUT": (
        "request_chunk_sent",
        Scene(lambda **options: request("PUT", "/t", data=b"x", **options)),
    ),
    "headers of a reused connection": ("request_headers_sent", Scene(after_another(post), PAIR)),
    "headers of a retry": ("connection_create_end", Scene(after_another(get), STALE)),
    "create after a wait": (
        "connection_queued_end",
        Scene(queued, HELD_AND_CLOSED),
    ),
    "exception of raise_for_status": (
        "request_exception",
        Scene(
            lambda **options: get("/t", raise_for_status=True, **options),
            serve(answer("HTTP/1.1 404 No", body=b"x")),
        ),
    ),
    "an uncached name": (
        "dns_resolvehost_end",
        Scene(named, connector={**ONE, "resolver": Known, "use_dns_cache": False}),
    ),
    "a redirect within a body": (
        "request_redirect",
        Scene(
            lambda **options: get("/t", **options),
            serve(b"HTTP/1.1 302 F\r\nLocation: /u\r\nContent-Length: 4\r\n\r\n", Stall()),
        ),
    ),
    "a redirect with a body": (
        "request_redirect",
        Scene(lambda **options: post("/t", data=b"x", **options), redirecting("307 T", "Location: /u")),
    ),
    "chunk received after a stream": (
        "response_chunk_received",
        Scene(lambda **options: get("/t", **options), serve(ANSWER[:-3], Pause(0.01), ANSWER[-3:])),
    ),
}
ALL_SCENES = {name: (name, scene) for name, scene in SCENES.items()} | MORE_SCENES


def then_another(do: Do) -> Do:
    """Tell how the request ended, whatever it raised, and make another one."""

    async def both(run: Run) -> Any:
        try:
            run.see(await do(run))
        except BaseException as exc:
            run.see(exc)
        timeout = run.api.ClientTimeout(total=0.3)
        return await get("/after", timeout=timeout, trace_request_ctx="after")(run)

    return both


Actions = Callable[[], Mapping[str, Action]]


def scene_case(id: str, scene: Scene, actions: Actions, do: Do, **more: Any) -> Case:
    """The signals of requests that run at the same time are kept apart by their contexts."""

    def session(run: Run) -> dict[str, Any]:
        tracer = Tracer(run, actions(), by_context=True)
        run.see(tracer.collected)
        own = {name: value() if callable(value) else value for name, value in scene.connector.items()}
        configs = [tracer.config("before"), tracer.config("after")]
        return {"trace_configs": configs, "connector": run.api.TCPConnector(**own)}

    return case(id, do, scene.script, session=session, hang_after=0.8, **more)


ERRORS: dict[str, Callable[[], BaseException]] = {
    "LookupError": lambda: LookupError("the handler"),
    "OSError": lambda: OSError(5, "the handler"),
    "OSError without errno": lambda: OSError("the handler"),
    "TimeoutError": lambda: asyncio.TimeoutError("the handler"),
    "ServerDisconnectedError": lambda: aiohttp.ServerDisconnectedError("the handler"),
    "ClientPayloadError": lambda: aiohttp.ClientPayloadError("the handler"),
    "CancelledError": lambda: asyncio.CancelledError("the handler"),
}


LEAKING = {"connection_reuseconn", "connection_create_end"}
"""Where aiohttp lets go of a connection without closing it: each case waits for its end in vain."""


def nth(count: int, action: Action) -> Action:
    """Do it at the n-th call alone: with two configs, 1 is the first config and 2 the second."""
    calls: list[None] = []

    def wrapped(run: Run, params: Any) -> Any:
        calls.append(None)
        return action(run, params) if len(calls) == count else None

    return wrapped


RAISING_CASES = (
    [
        scene_case(
            f"trace {where} raises {error}",
            scene,
            lambda signal=signal, make=make: {signal: nth(1, raising(make))},
            then_another(scene.do()),
        )
        for where, (signal, scene) in ALL_SCENES.items()
        for error, make in ERRORS.items()
        if signal not in LEAKING or error in ("LookupError", "CancelledError", "ServerDisconnectedError")
    ]
    + [
        scene_case(
            f"trace {where} raises in the second config",
            scene,
            lambda signal=signal: {signal: nth(2, raising(ERRORS["LookupError"]))},
            then_another(scene.do()),
        )
        for where, (signal, scene) in ALL_SCENES.items()
    ]
    + [
        scene_case(
            f"trace {where} raises, and exception too",
            scene,
            lambda signal=signal: {
                "request_exception": nth(1, raising(ERRORS["OSError"])),
                signal: nth(1, raising(ERRORS["LookupError"])),
            },
            then_another(scene.do()),
        )
        for where, (signal, scene) in ALL_SCENES.items()
    ]
)

LATE_CASES = [
    scene_case(
        f"trace {where} {limit} outlasted",
        scene,
        lambda signal=signal: {signal: nth(1, sleeping(0.2))},
        then_another(scene.do(timeout=aiohttp.ClientTimeout(**{limit: 0.06}))),
    )
    for where, (signal, scene) in ALL_SCENES.items()
    for limit in ("total", "connect", "sock_read")
]


def cancelled(do: Do) -> Do:
    """Cancel the request while its handler waits."""

    async def both(run: Run) -> Any:
        task = asyncio.ensure_future(do(run))
        await asyncio.wait_for(run.server.event("inside").wait(), 2)
        task.cancel("by the test")
        results = await asyncio.gather(task, return_exceptions=True)
        return results[0]

    return both


CANCELLED_CASES = [
    scene_case(
        f"trace {where} cancelled",
        scene,
        lambda signal=signal: {signal: nth(1, waiting("inside"))},
        then_another(cancelled(scene.do())),
    )
    for where, (signal, scene) in ALL_SCENES.items()
]


@table(RAISING_CASES)
async def test_handler_that_raises(case: Case) -> None:
    await check(case)


@table(LATE_CASES)
async def test_handler_that_outlasts_a_timeout(case: Case) -> None:
    await check(case)


@table(CANCELLED_CASES)
async def test_handler_that_is_cancelled(case: Case) -> None:
    await check(case)


# The context that handlers run in

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def test_handlers_share_the_context_of_the_request() -> None:
    """What a handler sets in a context variable is there for later handlers, and for the caller."""

    def session(run: Run) -> dict[str, Any]:
        def look(run: Run, params: Any) -> None:
            run.see(variable.get())
            variable.set(variable.get() + ".")

        return traced({"*": look}, connector={"resolver": Known})(run)

    async def do(run: Run) -> Any:
        variable.set("caller")
        run.see(await at_name("/1")(run), variable.get())
        run.see(await post("/2", data=b"x")(run), variable.get())
        run.see(await post("/3", slow_generator)(run), variable.get())

    await check(case("trace context variables", do, (), session=session))


async def test_tasks_that_handlers_run_in() -> None:
    """All but those of the resolver and of the upload run in the task of the request."""

    def session(run: Run) -> dict[str, Any]:
        def look(run: Run, params: Any) -> None:
            run.see(asyncio.current_task() is run.task)  # type: ignore[attr-defined]

        return traced({"*": look}, connector={"resolver": Known})(run)

    async def do(run: Run) -> Any:
        run.task = asyncio.current_task()  # type: ignore[attr-defined]
        run.see(await at_name("/1")(run))
        run.see(await post("/2", data=b"x")(run))
        run.see(await post("/3", slow_generator)(run))

    await check(case("trace tasks", do, (), session=session))


# Trace and the sessions' configs as tools change them


def frozen(tracer: Tracer, label: str) -> Any:
    config = tracer.config(label)
    config.freeze()
    return config


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_config_appended_to_the_session_later(is_frozen: bool) -> None:
    async def do(run: Run) -> Any:
        run.see(await get("/1")(run))
        tracer = Tracer(run)
        config = frozen(tracer, "later") if is_frozen else tracer.config("later")
        run.session._trace_configs.append(config)
        return await get("/2")(run)

    session = traced(connector=ONE)
    await check(case(f"trace appended {is_frozen}", do, (), session=session, probe=False))


async def test_configs_replaced_on_the_session() -> None:
    async def do(run: Run) -> Any:
        run.see(await get("/1")(run))
        run.session._trace_configs = [frozen(Tracer(run), "other")]
        run.see(await get("/2")(run))
        run.session._trace_configs = []
        return await get("/3")(run)

    await check(case("trace replaced", do, (), lane=ANY))


async def test_config_of_two_sessions() -> None:
    async def do(run: Run) -> Any:
        config = run.session._trace_configs[0]
        async with run.api.ClientSession(trace_configs=[config]) as other, other.get(run.url("/2")) as resp:
            run.see(await resp.read())
        return await get("/1")(run)

    await check(case("trace shared", do, ()))


@pytest.mark.parametrize(
    "name", ["send_request_start", "send_request_headers", "send_response_chunk_received"]
)
async def test_method_of_trace_patched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(aiohttp.tracing.Trace, name)
    seen: list[str] = []

    async def patched(self: Any, *args: Any) -> None:
        seen.append(name)
        await original(self, *args)

    monkeypatch.setattr(aiohttp.tracing.Trace, name, patched)

    async def do(run: Run) -> Any:
        result = await get("/t")(run)
        run.see(list(seen))
        seen.clear()
        return result

    await check(case(f"trace patched {name}", do, lane=ANY, probe=False))


async def test_trace_class_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(aiohttp.tracing.Trace):
        made: list[Any] = []  # noqa: RUF012

        def __init__(self, *args: Any) -> None:
            self.made.append(1)
            super().__init__(*args)

    monkeypatch.setattr(aiohttp.client, "Trace", Counting)

    async def do(run: Run) -> Any:
        result = await get("/t")(run)
        run.see(list(Counting.made))
        Counting.made.clear()
        return result

    await check(case("trace class replaced", do, lane=ANY, probe=False))


async def test_wait_for_a_slot_among_many() -> None:
    """Five requests over one slot: each waits its turn and says so."""

    def session(run: Run) -> dict[str, Any]:
        tracer = Tracer(run, by_context=True)
        run.see(tracer.collected)
        return {"trace_configs": [tracer.config()], "connector": run.api.TCPConnector(**ONE)}

    async def do(run: Run) -> Any:
        dos = [post(f"/{n}", data=b"x", trace_request_ctx=str(n)) for n in range(5)]
        return await asyncio.gather(*(do(run) for do in dos))

    await check(case("trace five over one slot", do, (), session=session))


async def test_names_resolved_at_the_same_time() -> None:
    """The second request waits for the lookup of the first, which is a hit of the cache."""

    def session(run: Run) -> dict[str, Any]:
        tracer = Tracer(run, by_context=True)
        run.see(tracer.collected)
        return {"trace_configs": [tracer.config()], "connector": run.api.TCPConnector(resolver=Known())}

    async def do(run: Run) -> Any:
        dos = [at_name(f"/{n}", trace_request_ctx=str(n)) for n in range(3)]
        return [resp.status for resp in await asyncio.gather(*(do(run) for do in dos))]

    await check(case("trace three of one name", do, (), session=session, wire=False))


async def test_handshake_of_a_websocket() -> None:
    accept = "HTTP/1.1 403 No"

    async def do(run: Run) -> Any:
        return await run.session.ws_connect(run.url("/ws"))

    def session(run: Run) -> dict[str, Any]:
        return {"trace_configs": [Tracer(run, only=["request_start", "request_end"]).config()]}

    # The headers that are traced hold the key of the handshake.
    await check(
        case("trace websocket", do, serve(answer(accept)), session=session, lane=ANY, ignore=("seen",))
    )


# Whatever is subscribed to

ACTIONS: dict[str, Callable[[], Action] | None] = {
    "note": None,
    "sleep": lambda: sleeping(),
    "add a header": lambda: setting(X_Added="1"),
    "raise": lambda: nth(2, raising(ERRORS["LookupError"])),
    "raise at once": lambda: nth(1, raising(ERRORS["OSError"])),
}
WITH_HEADERS = frozenset(
    {"request_start", "request_redirect", "request_headers_sent", "request_end", "request_exception"}
)
DOS: dict[str, tuple[Do, Script]] = {
    "two requests": (in_turn(at_name("/1"), at_name("/2")), PAIR),
    "a stale connection": (in_turn(at_name("/1"), at_name("/2")), STALE),
    "a redirect of a POST": (post("/t", data=b"x"), redirecting("307 T", "Location: /u")),
    "an upload": (post("/t", slow_generator), serve(ANSWER)),
    "a failure": (post("/t", data=b"x"), serve(Close())),
    "an error status": (get("/t", raise_for_status=True), serve(answer("HTTP/1.1 500 Oh"))),
}


@settings(settings.get_profile("differential"))
@given(
    scenario=st.sampled_from(sorted(DOS)),
    subscribed=st.dictionaries(
        st.sampled_from(SIGNALS), st.sampled_from(sorted(ACTIONS)), min_size=1, max_size=6
    ),
)
def test_any_signals_with_any_handlers(
    loop: asyncio.AbstractEventLoop, scenario: str, subscribed: dict[str, str]
) -> None:
    do, script = DOS[scenario]
    assume(not any(subscribed.get(signal, "").startswith("raise") for signal in LEAKING))

    def session(run: Run) -> dict[str, Any]:
        actions = {
            signal: make()
            for signal, what in subscribed.items()
            if (make := ACTIONS[what]) is not None and (what != "add a header" or signal in WITH_HEADERS)
        }
        tracer = Tracer(run, actions, only=sorted(subscribed))
        return {
            "trace_configs": [tracer.config()],
            "connector": run.api.TCPConnector(resolver=Known(), limit=1),
        }

    generated = case("trace generated", then_another(do), script, session=session)
    loop.run_until_complete(check(generated))
