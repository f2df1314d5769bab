"""`python -m wirespeed.testing.load`: measure one client on one workload, print one JSON line.

The line is the record of `measure()`, or has an `error` beside `client` and `workload`.

Without `--url` it starts the embedded server itself, on another core. What it sends stays on
the address given; profile it with whatever attaches to a Python process.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import traceback
from collections.abc import Sequence

from ..certificates import make_certificates
from ..machine import pin, raise_file_limit, split_cores
from ..process import ServerProcess
from .clients import CLIENTS, Target, find_client
from .measure import measure
from .workloads import WORKLOADS, Workload, find_workload


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wirespeed.testing.load")
    parser.add_argument("--client", default="wirespeed", help=", ".join(CLIENTS))
    parser.add_argument("--workload", default="json64", help=", ".join(WORKLOADS))
    parser.add_argument(
        "--requests", type=int, help="requests measured; the workload's own number if left out"
    )
    parser.add_argument("--concurrency", type=int, help="requests in flight; the workload's own if left out")
    parser.add_argument("--url", help="http://host:port of a running server; starts one if left out")
    parser.add_argument("--cafile", help="PEM certificates to trust, for https")
    parser.add_argument("--cpu", type=int, help="run on this core alone; the last usable one if left out")
    parser.add_argument("--no-pin", action="store_true", help="let the system choose the core")
    return parser


def _start_server(
    workload: Workload, core: int | None, stack: contextlib.ExitStack
) -> tuple[str, str | None]:
    if not workload.is_tls:
        return stack.enter_context(ServerProcess(cpu=core)).url, None
    made = make_certificates(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(ServerProcess(cpu=core, tls=(made.certfile, made.keyfile)))
    return server.url, made.cafile


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the record of `measure()` as one line.

    Args:
        arguments: the command line without the program's name; None takes `sys.argv`.

    Raises:
        SystemExit: 1 when the client failed, 2 when it cannot be run.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        spec, workload = find_client(options.client), find_workload(options.workload)
    except LookupError as exc:
        parser.error(str(exc))
    if options.concurrency is not None:
        workload = dataclasses.replace(workload, concurrency=options.concurrency)
    requests = options.requests or workload.requests
    refusal = spec.declines(workload)
    if refusal is not None:
        parser.error(f"{spec.name} cannot run {workload.name}: {refusal}")
    server_core, client_core = (None, None) if options.no_pin else split_cores()
    core = client_core if options.cpu is None else options.cpu
    if core is not None:
        pin(core)
    raise_file_limit()
    with contextlib.ExitStack() as stack:
        url, cafile = options.url, options.cafile
        if url is None:
            url, cafile = _start_server(workload, server_core, stack)
        try:
            record = measure(spec, Target(url.rstrip("/"), workload, cafile), requests)
        except Exception as exc:
            traceback.print_exc()
            error = f"{type(exc).__name__}: {exc}"
            record = {"client": spec.name, "workload": workload.name, "error": error}
    json.dump(record, sys.stdout)
    print(flush=True)
    if "error" in record:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
