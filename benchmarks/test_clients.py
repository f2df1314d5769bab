"""Every client on every workload; the harness is in `conftest.py`."""

from collections.abc import Callable

from conftest import Case


def test_cpu_per_request(case: Case, run_case: Callable[[Case], None]) -> None:
    run_case(case)
