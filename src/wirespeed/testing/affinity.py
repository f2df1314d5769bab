"""Cores and memory of this process: what a measurement pins and reads.

Each function does nothing, or says "unknown", where the platform cannot.
"""

import os
import sys
from pathlib import Path


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
