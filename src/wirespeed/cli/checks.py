"""What `wirespeed doctor` knows: from facts about a process and a machine to findings with remedies.

Pure: each check is a function of the facts it is given. Collecting them is doctor.py's part.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

OWN_FILES: Final = 64
"""Files a process has open besides its connections: libraries, logs, pipes, the loop's own."""
TIME_WAIT_SECONDS: Final = 60
"""How long Linux keeps the port of a connection that it closed (TCP_TIMEWAIT_LEN)."""
SLOW_LOOKUP_MS: Final = 50.0
"""For "localhost", which takes a tenth of a millisecond from a file, and seconds from a dead server."""
FEW_PORTS: Final = 16_384
"""A range smaller than IANA's own (49152 to 65535) has been made smaller by somebody."""
SMALL_BACKLOG: Final = 1_024
"""Connections that servers of this machine let wait; Linux has had 4096 since 5.4, before 128."""


class Status(enum.Enum):
    """How bad a finding is; SLOW makes the command's exit code 1."""

    OK = "ok"
    WARN = "warn"
    SLOW = "slow"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        seen: what was found.
        remedy: what to do about it; may be empty, and a hint where the status is OK.
    """

    name: str
    status: Status
    seen: str
    remedy: str = ""


def _finding(name: str, seen: str, *, slow: str = "", warn: str = "", hint: str = "") -> Finding:
    """Make a finding whose status is that of the remedy given."""
    status = Status.SLOW if slow else Status.WARN if warn else Status.OK
    return Finding(name, status, seen, slow or warn or hint)


# wirespeed itself


def check_extension(is_native: bool, switched_off: bool, failures: Mapping[str, str]) -> Finding:
    """Look whether the native core is in use.

    Args:
        is_native: `wirespeed.NATIVE`.
        switched_off: whether WIRESPEED_NO_EXTENSIONS is set.
        failures: why modules of the core cannot be imported, the traceback's last line by module.
    """
    if is_native:
        return _finding("extension", "the native core is in use")
    if switched_off:
        return _finding(
            "extension", "switched off: WIRESPEED_NO_EXTENSIONS is set", slow="unset WIRESPEED_NO_EXTENSIONS"
        )
    why = "; ".join(f"{module}: {line}" for module, line in failures.items())
    return _finding(
        "extension",
        f"not in use: {why}" if why else "not in use",
        slow="install a wheel, or a C compiler and Python's headers; then: "
        "pip install --no-cache-dir --force-reinstall wirespeed",
    )


def check_install(is_installed: bool, unreached: Sequence[str], program: str | None) -> Finding:
    """Look whether aiohttp's classes are ours in this process, and which cannot become so.

    Args:
        is_installed: whether `install()` has been called.
        unreached: classes that it cannot replace.
        program: the module that was imported, which would have called it; None without one.
    """
    if unreached:
        return _finding(
            "install",
            f"cannot reach {', '.join(unreached)}",
            slow="call wirespeed.install() before these classes are defined, or use wirespeed run",
        )
    if is_installed:
        return _finding("install", "aiohttp's classes are wirespeed's in this process")
    if program is not None:
        return _finding(
            "install",
            f"{program} does not call wirespeed.install(); where it uses aiohttp, that is aiohttp's own",
            warn="start it with wirespeed run, or call wirespeed.install()",
        )
    return _finding(
        "install", "nothing has called wirespeed.install() here", hint="wirespeed run does so for a program"
    )


def check_patches(patches: Iterable[tuple[str, str]]) -> Finding:
    """Look whether methods of aiohttp were replaced, which sends every request down the full lane.

    Args:
        patches: the method, and who replaced it.
    """
    found = [f"{method} by {by}" for method, by in patches]
    if not found:
        return _finding("patched methods", "none")
    return _finding(
        "patched methods",
        "; ".join(found),
        slow="every request takes aiohttp's own code: switch the tool off, or have it use trace_configs",
    )


# Python and packages


def check_python(version: str, is_debug_build: bool, is_free_threaded: bool, has_gil: bool) -> Finding:
    """Look at the interpreter's build.

    Args:
        version: of Python, with the name of the implementation.
        is_debug_build: whether it was configured with --with-pydebug.
        is_free_threaded: whether it was built to run without the GIL.
        has_gil: whether the GIL is on now.
    """
    if is_debug_build:
        return _finding("python", f"{version}, a debug build", slow="use a release build of Python")
    if not is_free_threaded:
        return _finding("python", version)
    if has_gil:
        return _finding(
            "python",
            f"{version}, free-threaded, but the GIL is on",
            warn="an extension module turned it on: python -W default shows which; PYTHON_GIL=0 keeps it off",
        )
    return _finding("python", f"{version}, free-threaded")


def check_package(name: str, version: str, is_compiled: bool, is_switched_off: bool) -> Finding:
    """Look whether a package of aiohttp's runs compiled.

    Args:
        name: of the package.
        version: of the package.
        is_compiled: whether what it offers comes from its extension module.
        is_switched_off: whether its own variable, NAME_NO_EXTENSIONS, is set.
    """
    if is_compiled:
        return _finding(name, f"{version}, compiled")
    variable = f"{name.upper()}_NO_EXTENSIONS"
    if is_switched_off:
        return _finding(name, f"{version}, pure Python: {variable} is set", slow=f"unset {variable}")
    return _finding(
        name,
        f"{version}, pure Python",
        slow=f"install a wheel, or a C compiler; then: pip install --no-cache-dir --force-reinstall {name}",
    )


def check_loop(fast: str, version: str | None, used: str, cannot: str = "") -> Finding:
    """Look which loop programs run on.

    Args:
        fast: the package of the fast loop on this platform.
        version: its version; None where it is not installed.
        used: the module and class of the loop that `asyncio.run` makes here.
        cannot: why the package cannot be imported though it is installed.
    """
    if version is None or cannot:
        seen = f"{used}; {fast} " + (
            f"{version} cannot be imported: {cannot}" if version else "is not installed"
        )
        return _finding("event loop", seen, slow=f"pip install {'--force-reinstall ' * bool(version)}{fast}")
    if used.startswith(fast):
        return _finding("event loop", f"asyncio.run uses {fast} {version}")
    return _finding(
        "event loop",
        f"wirespeed run and wirespeed.run use {fast} {version}; asyncio.run here uses {used}",
        hint="start with wirespeed run, or use wirespeed.run(main())",
    )


def check_debug(modes: Mapping[str, str]) -> Finding:
    """Look for modes that make every step of a program slow.

    Args:
        modes: those that are on, each with how to turn it off.
    """
    if not modes:
        return _finding("debug modes", "off")
    return _finding("debug modes", ", ".join(modes), slow="; ".join(dict.fromkeys(modes.values())))


# The network


def check_resolver(resolver: str, lookup_ms: float | None) -> Finding:
    """Look how names are resolved.

    Args:
        resolver: aiohttp's default resolver class.
        lookup_ms: how long the system took for "localhost"; None where it could not tell.
    """
    if lookup_ms is None:
        return _finding(
            "resolver",
            f"{resolver}; localhost cannot be resolved",
            warn="add 127.0.0.1 localhost to /etc/hosts",
        )
    seen = f"{resolver}; localhost in {lookup_ms:.2f} ms"
    if lookup_ms > SLOW_LOOKUP_MS:
        return _finding(
            "resolver",
            seen,
            slow="look at the order of hosts in /etc/nsswitch.conf and the servers in /etc/resolv.conf",
        )
    return _finding("resolver", seen)


def check_open_files(soft: float, hard: float, connections: int) -> Finding:
    """Look whether as many connections can be open as the program wants.

    Args:
        soft: limit of this process; infinite where there is none.
        hard: what it may raise the limit to.
        connections: how many are wanted.
    """
    wanted = connections + OWN_FILES
    can = f"may be raised to {_number(hard)}"
    seen = f"{_number(soft)} ({can}), {wanted:,} wanted for {connections:,} connections"
    if soft >= wanted:
        return _finding("open files", seen)
    raise_it = (
        f"ulimit -n {wanted}, or in the program: resource.setrlimit(resource.RLIMIT_NOFILE, ({wanted}, hard))"
    )
    if hard < wanted:
        where = "limits.conf, LimitNOFILE= of systemd, --ulimit of the container"
        raise_it = f"raise the hard limit ({where}), then {raise_it}"
    return _finding("open files", seen, slow=raise_it)


def _number(limit: float) -> str:
    return "no limit" if limit == float("inf") else f"{int(limit):,}"


def check_ports(low: int, high: int, reuse: int, connections: int) -> Finding:
    """Look whether there are ports for as many connections to one address.

    Args:
        low: the first port of those that the system chooses from.
        high: the last one.
        reuse: net.ipv4.tcp_tw_reuse: 0 never, 1 always, 2 on loopback.
        connections: how many are wanted.
    """
    count = high - low + 1
    per_second = count // TIME_WAIT_SECONDS
    seen = (
        f"{count:,} for each address ({low} to {high}, tcp_tw_reuse {reuse}); closed ones rest for "
        f"{TIME_WAIT_SECONDS} s, which is {per_second:,} new connections a second"
    )
    widen = "sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
    if count < connections:
        return _finding("ephemeral ports", seen, slow=widen)
    if count < FEW_PORTS:
        return _finding("ephemeral ports", seen, warn=widen)
    if reuse == 0:
        return _finding("ephemeral ports", seen, warn="sysctl -w net.ipv4.tcp_tw_reuse=1")
    return _finding("ephemeral ports", seen)


def check_backlog(somaxconn: int) -> Finding:
    """Look how many connections servers on this machine let wait."""
    seen = f"servers on this machine let {somaxconn:,} connections wait"
    if somaxconn < SMALL_BACKLOG:
        return _finding("backlog", seen, warn=f"sysctl -w net.core.somaxconn={4 * SMALL_BACKLOG}")
    return _finding("backlog", seen)


def check_cores(total: int, usable: int, quota: float | None) -> Finding:
    """Look at the processors; a program on one loop wants one to itself.

    Args:
        total: cores of the machine.
        usable: those that this process may run on.
        quota: cores' worth of time that its control group grants; None without a limit.
    """
    seen = f"{usable} of {total} usable" + ("" if quota is None else f", time for {quota:g} granted")
    if quota is not None and quota < 1:
        return _finding("cores", seen, slow="grant the container at least one core's time (cpu.max, --cpus)")
    if usable < 2:
        return _finding("cores", seen, warn="servers on this machine share the core with the program")
    return _finding("cores", seen)


def check_proxies(variables: Sequence[str]) -> Finding:
    """Look for proxies in the environment, which count with `trust_env=True` alone.

    Args:
        variables: the names of those that are set.
    """
    if not variables:
        return _finding("proxies", "none in the environment")
    return _finding(
        "proxies",
        f"{', '.join(variables)} set",
        warn="trust_env=True is slow: leave it out, or pass proxy= where one is needed",
    )
