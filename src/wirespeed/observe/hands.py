"""Whether anybody still has an object in hand: what decides that an unread response is nobody's.

A response may be read by another task than the one that asked for it: it came out of `gather()`,
lies in a queue, or in an attribute of the object whose method reads. That its task has ended
proves nothing; that no living code reaches the response does. What is alive: coroutines,
generators and asynchronous generators that have not ended (tasks run them, fixtures and context
managers are made of them), and calls that the loop was given for later. From there references
are followed, through containers, attributes, results of futures and closures, a few steps far;
not into modules and classes, whose variables hold what a program forgot as well as what it
needs, and not into loops, sessions, connectors, transports and protocols, which are the leak's
other end, or reach everything.

This looks at every object of the process (some 10 ms), so it runs only when a verdict depends on it.
"""

import asyncio
import contextvars
import gc
import sys
from collections.abc import Iterable
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import Any

import aiohttp

from .frames import is_own, running_task

# References followed from what is alive; the longest known way takes seven: a coroutine, the
# future that it awaits, gather()'s, its attributes, its children, a child, the child's result.
_STEPS = 9
# Objects looked at before the search gives up: whatever is alive keeps what it needs close by.
_OBJECTS = 200_000

_RUNNABLE = (CoroutineType, GeneratorType, AsyncGeneratorType)
_CALLS = (asyncio.Handle, asyncio.TimerHandle)
_CALL_NAMES = ("Handle", "TimerHandle")
_ATOMS: tuple[type, ...] = (str, bytes, bytearray, int, float, complex, bool, type(None), memoryview, range)
_WALLS: tuple[type, ...] = (
    *_ATOMS,
    type,
    ModuleType,
    CodeType,
    contextvars.Context,
    contextvars.ContextVar,
    asyncio.AbstractEventLoop,
    asyncio.BaseProtocol,
    asyncio.BaseTransport,
    aiohttp.ClientSession,
    aiohttp.BaseConnector,
    aiohttp.TraceConfig,
)
_CYTHON = "cython_function_or_method"  # its referents are its module's variables
# pytest keeps what belongs to a test until all is over; its plugin names what is still of use.
_WALL_MODULES = ("wirespeed._core", "wirespeed.observe", "uvloop", "winloop", "_pytest.", "pluggy.")


def kept(targets: Iterable[object], also: Iterable[object] = (), *, running: bool = True) -> set[int]:
    """Find out which objects are in the hands of something that is alive.

    Args:
        targets: the objects.
        also: more objects that count as alive.
        running: whether the task that is running counts, too.

    Returns:
        Those of `targets` that are, by `id()`.
    """
    wanted = {id(target) for target in targets}
    if not wanted:
        return set()
    found, seen = _alive(running)
    return _search(wanted, [*found, *also], seen)


def _alive(running: bool) -> tuple[list[object], set[int]]:
    """List what may go on, and what runs now, by `id()`.

    The running task counts by its frames: the collector sees little of what runs, and what it sees is
    not to count when the running task does not.
    """
    found: list[object] = []
    now: set[int] = set()
    frames = _running_frames()
    own = {id(frame) for frame in frames}
    for thing in gc.get_objects():
        kind = type(thing)
        if kind in _RUNNABLE:
            if _is_one_of(thing, own):
                now.add(id(thing))
            else:
                found.append(thing)
        elif kind in _CALLS or (kind.__name__ in _CALL_NAMES and kind.__module__.startswith("uvloop")):
            found.append(thing)
    if running and running_task() is not None:
        for frame in frames:
            if not is_own(frame.f_code) and frame.f_locals is not frame.f_globals:
                found += [value for value in frame.f_locals.values() if not _is_wall(type(value))]
    return found, now


def _running_frames() -> list[FrameType]:
    """List the frames of the running task, innermost first; all there are outside of a task."""
    task = running_task()
    last = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        if frame is last:
            break
        frame = frame.f_back
    return frames


def _is_one_of(thing: Any, frames: set[int]) -> bool:
    """Whether a coroutine or generator has one of these frames; those that wait are not asked for theirs."""
    if type(thing) is CoroutineType:
        return thing.cr_running and id(thing.cr_frame) in frames
    if type(thing) is GeneratorType:
        return thing.gi_running and id(thing.gi_frame) in frames
    return thing.ag_running and id(thing.ag_frame) in frames


def _search(wanted: set[int], level: list[object], seen: set[int]) -> set[int]:
    found = {id(thing) for thing in level} & wanted
    walls: dict[int, bool] = {}  # by type; some cannot be hashed
    keep: list[list[object]] = []  # so that no id is given to another object meanwhile
    for _ in range(_STEPS):
        keep.append(level)
        nearby = _referents(level)
        keep.append(nearby)
        level = []
        for thing in nearby:
            number = id(thing)
            if number in seen:
                continue
            seen.add(number)
            if number in wanted:
                found.add(number)
            kind = type(thing)
            is_wall = walls.get(id(kind))
            if is_wall is None:
                is_wall = walls[id(kind)] = _is_wall(kind)
            if not is_wall:
                level.append(thing)
        if not level or len(found) == len(wanted) or len(seen) > _OBJECTS:
            break
    return found


def _is_wall(kind: type) -> bool:
    if issubclass(kind, _WALLS) or kind.__name__ == _CYTHON:
        return True
    return any(str(base.__module__).startswith(_WALL_MODULES) for base in kind.__mro__)


def _referents(things: list[object]) -> list[object]:
    """List what objects refer to; of functions and frames, their variables without the module's."""
    plain: list[object] = []
    found: list[object] = []
    for thing in things:
        if isinstance(thing, FunctionType):
            found += list(thing.__closure__ or ())
            found += thing.__defaults__ or ()
        elif isinstance(thing, FrameType):
            # CPython 3.10 has them between a coroutine and its variables.
            outside = (id(thing.f_globals), id(thing.f_builtins), id(thing.f_back))
            found += [other for other in gc.get_referents(thing) if id(other) not in outside]
        elif isinstance(thing, BuiltinFunctionType):
            found.append(thing.__self__)
        else:
            plain.append(thing)
    return found + gc.get_referents(*plain)
