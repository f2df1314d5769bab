"""Run one case through aiohttp and through wirespeed, and compare all that can be seen.

Each client gets a fresh, identical pair of scripted servers. The outcome holds the bytes
each connection received, what the case returned or raised, the cookie jar, the warnings,
what reached the loop's exception handler, and whether a plain request made afterwards
found a connection to reuse.
"""

import asyncio
import difflib
import pprint
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp

import wirespeed

from .describe import Normaliser
from .scripted import Expect, Script, ScriptedServer, Send

OK: Script = ((Expect(), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")),)

EXPRESS = "express"
FULL = "full"
ANY = None
"""Lanes. `ANY` is for what is refused before a lane is taken."""

CASE_SECONDS = 4.0
PROBE_SECONDS = 0.4
CLOSE_SECONDS = 1.0


@dataclass
class Run:
    """What a case is given: the API under test, a session on it, and the servers."""

    api: ModuleType
    server: ScriptedServer
    other: ScriptedServer
    session: Any = None
    seen: list[Any] = field(default_factory=list)

    def url(self, path: str = "/") -> str:
        return self.server.base + path

    def see(self, *values: Any) -> None:
        """Keep values for the comparison, also when the case raises later."""
        self.seen.extend(values)


Do = Callable[[Run], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """One row of a table.

    Args:
        id: readable and unique; known differences are looked up by it.
        do: performs the requests and returns what is to be compared.
        script: the server's part; `other` is that of a second origin.
        session: keyword arguments of the session, or a function of the run making them.
        lane: the lane the requests of `do` must take in a native build.
        expect: a status, the name of an exception class, or "hang": what aiohttp answers.
        hang_after: seconds after which the case counts as hanging.
        wire: False where the bytes received depend on the moment of a cancellation.
        probe: whether a plain request afterwards shows the reuse of a connection.
        ignore: fields that a race within the server decides.
        silent: not a byte may reach the server; whether it is connected to does not matter.
        probe_ssl: the `ssl` argument of that request, over TLS.
    """

    id: str
    do: Do
    script: Script = OK
    session: Mapping[str, Any] | Callable[[Run], Mapping[str, Any]] = field(default_factory=dict)
    lane: str | None = EXPRESS
    expect: int | str | None = None
    hang_after: float = CASE_SECONDS
    wire: bool = True
    probe: bool = True
    scheme: str = "http"
    probe_ssl: Any = False
    ignore: tuple[str, ...] = ()
    silent: bool = False
    other: Script = OK

    def __repr__(self) -> str:
        return f"Case({self.id!r})"


@dataclass(frozen=True)
class Known:
    """An accepted difference: the fields that may differ, why, and whether they differ each time."""

    fields: tuple[str, ...]
    reason: str
    sometimes: bool = False


class Mismatch(AssertionError):
    """aiohttp and wirespeed differ."""


async def assert_same(case: Case, known: Mapping[str, Known] | None = None) -> dict[str, Any]:
    """Run `case` through both clients and compare.

    Returns:
        The outcome with aiohttp.

    Raises:
        Mismatch: they differ, aiohttp answers otherwise than the row says, the wrong lane
            was taken, or an accepted difference no longer exists.
    """
    reference = await outcome_of(case, aiohttp)
    if case.expect is not None and reference["answer"] != case.expect:
        raise Mismatch(f"{case.id}: aiohttp gave {reference['answer']!r}\n{pprint.pformat(reference)}")
    candidate = await outcome_of(case, wirespeed)
    accepted = (known or {}).get(case.id)
    different = {
        name: pair
        for name, pair in differences(reference, candidate).items()
        if not name.startswith(case.ignore)
        # Where nothing was sent, a client that has connected sends the probe on that connection.
        and not (case.silent and name == "probe.body")
    }
    if accepted is not None:
        if wirespeed.NATIVE and not different and not accepted.sometimes:
            raise Mismatch(f"{case.id}: listed as a known difference, but there is none")
        different = {name: pair for name, pair in different.items() if not name.startswith(accepted.fields)}
    if different:
        raise Mismatch(f"{case.id}:\n{render(different)}")
    return reference


async def outcome_of(case: Case, api: ModuleType) -> dict[str, Any]:
    """Run a case with the session class of `api` and describe what happened."""
    run = Run(api, ScriptedServer(case.script, case.scheme), ScriptedServer(case.other))
    await run.server.start()
    await run.other.start()
    origins = {
        b"@BASE@": run.server.base.encode(),
        b"@OTHER@": run.other.base.encode(),
        b"@PORT@": b"%d" % run.server.port,
    }
    run.server.origins = run.other.origins = origins
    normal = Normaliser(
        {str(run.server.port or ""): "PORT", str(run.other.port): "OTHER", run.server.path: "SOCKET"}
    )
    outcome: dict[str, Any] = {}
    try:
        with _watched(outcome, normal):
            await _perform(case, run, normal, outcome)
        outcome["wire"] = [normal.wire(data) for data in run.server.received] if case.wire else "ignored"
        outcome["connections"] = len(run.server.peers)
        if case.silent:
            _expect_silence(case, outcome)
        outcome["other_wire"] = [normal.wire(data) for data in run.other.received]
    finally:
        await run.server.stop()
        await run.other.stop()
    return outcome


def _expect_silence(case: Case, outcome: dict[str, Any]) -> None:
    """Keep the connections on which something came: it must be the probe alone."""
    outcome["wire"] = [data for data in outcome["wire"] if data]
    outcome["connections"] = len(outcome["wire"])
    if not all(data.startswith(b"GET /probe ") for data in outcome["wire"]):
        raise Mismatch(f"{case.id}: bytes reached the server: {outcome['wire']}")


async def _perform(case: Case, run: Run, normal: Normaliser, outcome: dict[str, Any]) -> None:
    arguments = case.session(run) if callable(case.session) else case.session
    try:
        run.session = run.api.ClientSession(**arguments)
    except Exception as exc:
        outcome["answer"], outcome["session_error"] = type(exc).__name__, normal.error(exc)
        return
    async with run.session:
        try:
            result = await asyncio.wait_for(_marked(case.do(run)), case.hang_after)
        except asyncio.TimeoutError:
            outcome["answer"] = "hang"
        except _Raised as raised:
            exc = raised.exc
            outcome["answer"], outcome["error"] = type(exc).__name__, normal.error(exc)
        else:
            outcome["answer"] = result.status if isinstance(result, aiohttp.ClientResponse) else None
            outcome["result"] = normal.value(result)
        if run.api is wirespeed:
            check_lane(case, run.session.native_stats())
        await run.server.settle()
        outcome["seen"] = normal.value(run.seen)
        if case.probe and not run.session.closed:
            outcome["probe"] = await _probe(case, run, normal)
        outcome["jar"] = sorted(_jar(run.session, normal))
    outcome["left_open"] = await run.server.all_lost(CLOSE_SECONDS)


class _Raised(Exception):
    """Carries an exception of the case past the timeout that bounds it."""

    def __init__(self, exc: Exception) -> None:
        self.exc = exc


async def _marked(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except Exception as exc:
        raise _Raised(exc) from None


def check_lane(case: Case, stats: Mapping[str, Any]) -> None:
    """Raise `Mismatch` when a native build took another lane than the case expects."""
    if not wirespeed.NATIVE or case.lane is ANY:
        return
    is_express = stats["express"] >= 1 and stats["full"] == {}
    is_full = stats["express"] == 0
    if not (is_express if case.lane == EXPRESS else is_full):
        raise Mismatch(f"{case.id}: expected the {case.lane} lane, took {stats}")


async def _probe(case: Case, run: Run, normal: Normaliser) -> Any:
    """Make a plain request; which connection it came on shows in the bytes received."""
    before = len(run.server.peers)
    arguments = {"ssl": case.probe_ssl} if run.server.is_tls else {}
    try:
        async with run.session.get(
            run.url("/probe"), timeout=run.api.ClientTimeout(total=PROBE_SECONDS), **arguments
        ) as resp:
            body = await resp.read()
    except Exception as exc:
        return normal.error(exc)
    return {"status": resp.status, "body": body, "reused": len(run.server.peers) == before}


def _jar(session: Any, normal: Normaliser) -> Iterator[str]:
    for morsel in session.cookie_jar:
        yield normal.text(f"{morsel['domain']} {morsel['path']} {morsel.OutputString()}")


@contextmanager
def _watched(outcome: dict[str, Any], normal: Normaliser) -> Iterator[None]:
    """Record warnings and what reaches the loop's exception handler."""
    loop = asyncio.get_running_loop()
    reported: list[str] = []
    previous = loop.get_exception_handler()
    loop.set_exception_handler(
        lambda _, context: reported.append(f"{normal.text(context['message'])}: {context.get('exception')!r}")
    )
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        outcome["warnings"] = [(w.category.__name__, normal.text(str(w.message))) for w in caught]
        outcome["warned_at"] = [Path(w.filename).name for w in caught]
        outcome["loop_errors"] = [normal.text(text) for text in reported]
    finally:
        loop.set_exception_handler(previous)


def differences(reference: Any, candidate: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """Name each leaf at which two outcomes differ, with both values."""
    if isinstance(reference, dict) and isinstance(candidate, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*reference, *(key for key in candidate if key not in reference)]:
            path = f"{name}.{key}" if name else str(key)
            found |= differences(reference.get(key, "(absent)"), candidate.get(key, "(absent)"), path)
        return found
    same = type(reference) is type(candidate) and reference == candidate
    return {} if same else {name: (reference, candidate)}


def render(different: Mapping[str, tuple[Any, Any]]) -> str:
    """Print differing fields, one under the other."""
    lines = []
    for name, (reference, candidate) in different.items():
        if isinstance(reference, list) and isinstance(candidate, list) and len(_show(reference)) > 400:
            pair = (pprint.pformat(side, width=110).splitlines() for side in (reference, candidate))
            lines += [name, *difflib.unified_diff(*pair, "aiohttp", "wirespeed", n=2, lineterm="")]
            continue
        lines += [name, "  aiohttp:   " + _show(reference), "  wirespeed: " + _show(candidate)]
    return "\n".join(lines)


def _show(value: Any) -> str:
    return pprint.pformat(value, width=110).replace("\n", "\n             ")
