"""The process under valgrind: it runs one scenario, and tells callgrind what to count.

`python -m benchmarks.instructions.switch SCENARIO LIBRARY SHORT LONG`; `counting` starts it. Importing and
warming up run uncounted, which is also several times quicker.
"""

import ctypes
import sys
from typing import Final

from .exchanges import SCENARIOS, Exchanges

SOURCE: Final = """
#include <valgrind/callgrind.h>
int under_valgrind(void) { return RUNNING_ON_VALGRIND; }
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void dump(void) { CALLGRIND_DUMP_STATS; }
void stop(void) { CALLGRIND_STOP_INSTRUMENTATION; }
"""
"""Callgrind is told by instruction sequences that do nothing elsewhere; they come as macros of C."""


def main(scenario: str, library: str, short: str, long: str) -> None:
    """Count a short run, then a long one: their difference is free of what each run costs once."""
    valgrind = ctypes.CDLL(library)
    if not valgrind.under_valgrind():
        raise SystemExit("this is run by benchmarks.instructions.counting, under valgrind")
    with Exchanges(SCENARIOS[scenario]) as exchanges:
        exchanges.warm_up()
        valgrind.start()
        exchanges.run(int(short))
        valgrind.dump()
        exchanges.run(int(long))
        valgrind.dump()
        valgrind.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
