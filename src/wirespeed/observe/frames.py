"""Who called: the stack at one moment, taken cheaply and rendered only when somebody looks.

Used by the leak tracking. Frames of wirespeed and of aiohttp are left out, and those of the loop
that runs the task: what is left is the user's. No frame is kept, only code objects and
positions, so nothing that a function holds lives longer for having been looked at.
"""

import asyncio
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import CodeType
from typing import Any

import aiohttp

# Frames kept of a stack; the user's line is among the innermost.
_DEPTH = 24

_OWN, _LIBRARY, _USER = 1, 2, 3
_OWN_FOLDERS = (
    str(Path(aiohttp.__file__).parent) + os.sep,
    str(Path(__file__).parent.parent) + os.sep,
)
_LIBRARY_FOLDERS = tuple(
    sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
# The functions of asyncio that run a loop: what called them did not call us.
_RUNNERS = frozenset({"_run", "_run_once", "run", "run_forever", "run_until_complete"})
_ASYNCIO = str(Path(asyncio.__file__).parent) + os.sep
# By file name; programs have thousands of files, not millions.
_kinds: dict[str, int] = {}


def _kind_of(filename: str) -> int:
    kind = _kinds.get(filename)
    if kind is None:
        if filename.startswith(_OWN_FOLDERS):
            kind = _OWN
        elif filename.startswith(_LIBRARY_FOLDERS) or filename.startswith("<frozen "):
            kind = _LIBRARY
        else:
            kind = _USER
        _kinds[filename] = kind
    return kind


def is_own(code: CodeType) -> bool:
    """Whether a function is wirespeed's or aiohttp's."""
    return _kind_of(code.co_filename) == _OWN


class Stack:
    """A stack without wirespeed's and aiohttp's frames.

    Attributes:
        functions: the names of the functions of theirs that were left out before the first frame.
    """

    __slots__ = ("_frames", "functions")

    def __init__(self, frames: list[tuple[CodeType, int]], functions: frozenset[str] = frozenset()) -> None:
        self._frames = frames  # innermost first, with the position in the code
        self.functions = functions

    @classmethod
    def capture(cls, task: "asyncio.Task[Any] | None", maker_of: object = None) -> "Stack":
        """Take the stack of the caller.

        Args:
            task: the running task; frames outside of it are left out.
            maker_of: an object that is being made: frames of its own `__init__` are left out.
        """
        # What ran the task did not ask for anything; a task of something else than a coroutine has no frame.
        last = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
        frames: list[tuple[CodeType, int]] = []
        functions: list[str] = []
        frame = sys._getframe(1)
        while frame is not None and len(frames) < _DEPTH:
            code = frame.f_code
            kind = _kinds.get(code.co_filename) or _kind_of(code.co_filename)
            if kind == _OWN:
                if not frames:
                    functions.append(code.co_name)
            elif kind == _LIBRARY and code.co_name in _RUNNERS and code.co_filename.startswith(_ASYNCIO):
                break
            elif maker_of is None or code.co_name != "__init__" or not _is_first(frame, maker_of):
                frames.append((code, frame.f_lasti))
            if frame is last:
                break
            frame = frame.f_back  # type: ignore[assignment]
        return cls(frames, frozenset(functions))

    @property
    def line(self) -> tuple[str, int, str]:
        """The user's line: file, line and function of the innermost frame that is not a library's."""
        if not self._frames:
            return "unknown", 0, "unknown"
        users = (frame for frame in self._frames if _kind_of(frame[0].co_filename) == _USER)
        code, position = next(users, self._frames[0])
        return code.co_filename, _line_of(code, position), getattr(code, "co_qualname", code.co_name)

    @property
    def where(self) -> str:
        """The user's line as text, "file:line in function"."""
        if not self._frames:
            return "an unknown line"
        filename, line, function = self.line
        return f"{filename}:{line} in {function}"

    def summary(self) -> traceback.StackSummary:
        """The stack as `traceback` has it, outermost frame first; sources are read when it is printed."""
        return traceback.StackSummary.from_list(
            [
                traceback.FrameSummary(code.co_filename, _line_of(code, at), code.co_name, lookup_line=False)
                for code, at in reversed(self._frames)
            ]
        )


def _is_first(frame: Any, maker_of: object) -> bool:
    """Whether a frame is a method of an object."""
    names = frame.f_code.co_varnames
    return bool(names) and frame.f_locals.get(names[0]) is maker_of


def _line_of(code: CodeType, position: int) -> int:
    for start, end, line in code.co_lines():
        if start <= position < end and line is not None:
            return line
    return code.co_firstlineno


def running_task() -> "asyncio.Task[Any] | None":
    """The running task; None outside of a task, or of a loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
