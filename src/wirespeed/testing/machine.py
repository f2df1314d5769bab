"""Cores, memory and open files of this process: what a measurement pins, reads and raises.

Each function does nothing, or says "unknown", where the platform cannot.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

_OPEN_FILES: Final = 10_240
"""Files a process asks to have open: the most that macOS grants, and ten times the largest workload."""


def usable_cores() -> list[int]:
    """Return the numbers of the cores this process may run on; empty when it cannot be told."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return []


def split_cores() -> tuple[int | None, int | None]:
    """Choose a core for the server and another for the client.

    Returns:
        The first and the last usable core; (None, None) with fewer than two, where pinning
        both to the same core would measure the scheduler.
    """
    cores = usable_cores()
    return (cores[0], cores[-1]) if len(cores) > 1 else (None, None)


def pin(core: int) -> bool:
    """Run this process on one core alone.

    Args:
        core: the core's number.

    Returns:
        Whether the platform could.

    Raises:
        OSError: there is no such core, or it is not ours to use.
    """
    if sys.platform != "linux":
        return False
    os.sched_setaffinity(0, {core})
    return True


def raise_file_limit() -> None:
    """Let this process open as many files as it may: 1,000 connections pass the usual limit."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):  # macOS has a further limit that it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def peak_memory() -> int | None:
    """Return the largest resident size so far, bytes; None when it cannot be told.

    On Linux this is VmHWM: ru_maxrss of a child also covers its parent's memory at the fork.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_model() -> str:
    """Return the processor's name, or "unknown"."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    import platform

    return platform.processor() or "unknown"
