"""Dask distributed: workers on many machines, behind a scheduler that may go away."""

import contextlib
import importlib
import time
from concurrent.futures import Executor
from typing import Any

from ..jobs import JobError
from .crews import Crew

CONNECT_TIMEOUT = 10.0
"""Seconds in which a scheduler must answer."""
CLOSE_TIMEOUT = 2.0
"""Seconds to say goodbye to it."""


class DaskCrew(Crew):
    """Workers of a Dask cluster.

    Args:
        executor: from `client.get_executor()`.
        slots: shards that run at the same time; None for the threads that the workers have.
    """

    dies_together = False

    def __init__(self, executor: Executor, slots: int | None = None) -> None:
        self._client: Any = executor._client  # type: ignore[attr-defined]
        self._looked_at = 0.0
        super().__init__(executor, slots)

    @staticmethod
    def fits(executor: Executor) -> bool:
        """Whether it is Dask's, which need not be installed."""
        return any(kind.__module__.startswith("distributed.") for kind in type(executor).__mro__)

    def _slots(self) -> int:
        # None yet, where workers are still to come.
        return sum(self._client.nthreads().values()) or 1

    def is_death(self, exc: BaseException) -> bool:
        # By name: a scheduler has its own classes of one, and distributed is not imported for it.
        return super().is_death(exc) or type(exc).__name__ == "KilledWorker"

    def is_lost(self, exc: BaseException) -> bool:
        return super().is_lost(exc) or type(exc).__name__ in ("FutureCancelledError", "CancelledError")

    def trouble(self) -> str | None:
        client = self._client
        comm = getattr(getattr(client, "scheduler_comm", None), "comm", None)
        # A client whose scheduler says goodbye goes on as "running", and its futures pend for ever.
        if client.status == "running" and comm is not None and not comm.closed():
            return None
        address = getattr(getattr(client, "scheduler", None), "address", None) or "Dask"
        return f"the scheduler {address} is gone"


class OwnDaskCrew(DaskCrew):
    """A client of our own of somebody's cluster.

    Args:
        address: of the scheduler, such as "tcp://10.0.0.1:8786".
        slots: as for `DaskCrew`.

    Raises:
        JobError: Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, slots: int | None = None) -> None:
        client = _connect(address)
        try:
            super().__init__(client.get_executor(pure=False), slots)
        except BaseException:
            client.close(timeout=CLOSE_TIMEOUT)
            raise

    def close(self, *, is_hard: bool = False) -> None:
        # Whatever is wrong with a scheduler, the job has come to its end.
        with contextlib.suppress(Exception):
            self._client.close(timeout=CLOSE_TIMEOUT)


def _connect(address: str) -> Any:
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise JobError("Dask needs the package distributed", "pip install 'wirespeed[dask]'") from None
    begun_at = time.monotonic()
    try:
        return distributed.Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as exc:
        waited = time.monotonic() - begun_at
        raise JobError(
            f"no Dask scheduler answers at {address}, after {waited:.0f} s: {exc}",
            "start one with `dask scheduler`, or see that the address is right",
        ) from exc
