"""nginx as the server of the benchmarks: the embedded server's answers, from a temporary directory.

One process, in the foreground, on the loopback interface, under the user that runs the
benchmarks; everything it writes stays in the directory it was given.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from wirespeed.testing.answers import JSON_BODY, pattern
from wirespeed.testing.certificates import Certificates
from wirespeed.testing.load.workloads import POST_ANSWER

BODY_SIZES = (100_000, 10_000_000)
START_TIMEOUT = 10.0
"""Seconds until it must accept connections."""
STOP_TIMEOUT = 5.0
"""Seconds from its signal to its end, before it is killed."""

CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type application/octet-stream;
    add_header Cache-Control no-store;
    add_header Vary Accept-Encoding;
    add_header X-Content-Type-Options nosniff;
    server {{
        listen 127.0.0.1:{port}{tls} backlog=4096;
        {certificate}
        location = /json {{ default_type application/json; return 200 '{json}'; }}
        location = /post {{ default_type application/json; return 200 '{post}'; }}
        location /bytes/ {{ root files; }}
    }}
}}
"""


def find_nginx() -> str | None:
    """Return the path of nginx, or None; it often lives where a user's PATH does not look."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    return shutil.which("nginx", path=path)


def nginx_version(program: str) -> str:
    return subprocess.run([program, "-v"], capture_output=True, text=True).stderr.strip()


@contextlib.contextmanager
def run_nginx(folder: Path, core: int | None, certificates: Certificates | None) -> Iterator[str]:
    """Run nginx; yields its URL.

    Args:
        folder: an empty directory for it alone.
        core: core to run on; None leaves it to the system.
        certificates: what to serve TLS with; None serves plain HTTP.
    """
    program = find_nginx()
    if program is None:
        raise FileNotFoundError("nginx is not installed")
    port = _free_port()
    configuration = _write(folder, port, certificates)
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
    )
    try:
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {core})
        _wait_until_it_accepts(process, port, folder)
        yield f"{'http' if certificates is None else 'https'}://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _write(folder: Path, port: int, certificates: Certificates | None) -> Path:
    bodies = folder / "files" / "bytes"
    bodies.mkdir(parents=True)
    for size in BODY_SIZES:
        (bodies / str(size)).write_bytes(pattern(size))
    certificate = ""
    if certificates is not None:
        certificate = f"ssl_certificate {certificates.certfile}; ssl_certificate_key {certificates.keyfile};"
    path = folder / "nginx.conf"
    path.write_text(
        CONFIGURATION.format(
            port=port,
            tls="" if certificates is None else " ssl",
            certificate=certificate,
            json=JSON_BODY.decode(),
            post=POST_ANSWER.decode(),
        )
    )
    return path


def _wait_until_it_accepts(process: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        if process.poll() is not None:
            raise RuntimeError(f"nginx ended: {(folder / 'error.log').read_text()}")
        time.sleep(0.02)
    raise RuntimeError(f"nginx did not accept connections within {START_TIMEOUT} s")
