"""The parameters of the pool and its errors, without a pool."""

import asyncio
import copy
import inspect
import os
import pickle
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

import wirespeed
from wirespeed import PoolFull, PoolTimeout, TCPOptions
from wirespeed.pooling import Holder, PoolOptions, Pressure

HOLDERS = (Holder("https://a.test", 12.345, "Task-7"), Holder("http://b.test:8080", 0.04, None))
PRESSURE = Pressure("limit_per_host", 3, 2, 0, 1, 4, HOLDERS)
TIMEOUT = PoolTimeout("Connection timeout to host https://a.test/x", PRESSURE, 1.23456)
FULL = PoolFull("No connection to host https://a.test/x", PRESSURE)
errors = pytest.mark.parametrize("error", [TIMEOUT, FULL], ids=["PoolTimeout", "PoolFull"])


# Errors


def test_messages_say_what_blocked_and_who_holds_connections() -> None:
    pressure = (
        "limit_per_host=3 reached: 2 in use, 1 dialling, 0 idle, 4 waiting; held longest: "
        "https://a.test for 12.3 s by Task-7, http://b.test:8080 for 0.0 s by a task that has ended"
    )
    assert str(PRESSURE) == pressure
    assert str(TIMEOUT) == (
        f"Connection timeout to host https://a.test/x: waited 1.235 s for the pool: {pressure}"
    )
    assert str(FULL) == f"No connection to host https://a.test/x: {pressure}"
    assert repr(TIMEOUT) == "PoolTimeout('Connection timeout to host https://a.test/x')"


def test_message_without_holders_ends_with_the_figures() -> None:
    assert str(Pressure("limit", 1, 1, 0, 0, 0)).endswith("0 idle, 0 waiting")


@pytest.mark.parametrize(("waited", "text"), [(0.0004, "0.0 s"), (3.0, "3.0 s"), (7200.5, "7200.5 s")])
def test_wait_is_written_out(waited: float, text: str) -> None:
    assert f"waited {text} for" in str(PoolTimeout("late", PRESSURE, waited))


@errors
def test_fields_of_the_pressure_are_attributes(error: Any) -> None:
    for name in ("limit_name", "limit", "in_use", "idle", "dialling", "waiting", "holders"):
        assert getattr(error, name) == getattr(PRESSURE, name)
    with pytest.raises(AttributeError, match="object has no attribute 'limits'"):
        _ = error.limits


def test_errors_are_aiohttps() -> None:
    assert isinstance(TIMEOUT, aiohttp.ConnectionTimeoutError)
    assert isinstance(TIMEOUT, asyncio.TimeoutError)
    assert isinstance(FULL, aiohttp.ClientConnectionError)
    assert not isinstance(FULL, asyncio.TimeoutError)
    # Neither may be taken for a lost connection, which is tried again.
    assert not isinstance(TIMEOUT, aiohttp.ClientOSError)
    assert not isinstance(FULL, aiohttp.ClientOSError)


def test_timeout_has_no_errno() -> None:
    """It is an OSError, which makes one of its first argument when it has several."""
    assert TIMEOUT.args == ("Connection timeout to host https://a.test/x",)
    assert getattr(TIMEOUT, "errno", None) is None
    assert getattr(TIMEOUT, "strerror", None) is None


@errors
@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, *(lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in range(6))],
    ids=["copy", "deepcopy", *(f"pickle {n}" for n in range(6))],
)
def test_errors_are_pickled_and_copied(error: Any, again: Any) -> None:
    error = copy.copy(error)
    error.note = "kept"
    other = again(error)
    assert type(other) is type(error)
    assert (str(other), other.args, other.pressure, other.note) == (
        str(error),
        error.args,
        PRESSURE,
        "kept",
    )
    assert getattr(other, "waited", None) == getattr(error, "waited", None)


def test_error_that_is_half_made_is_no_trap() -> None:
    with pytest.raises(AttributeError):
        _ = PoolFull.__new__(PoolFull).limit


# Parameters


def test_parameters_are_separated_from_aiohttps() -> None:
    options, rest = PoolOptions.split({"limit": 5, "max_waiters": 3, "reuse": "lifo", "ssl": False})
    assert rest == {"limit": 5, "ssl": False}
    assert options == PoolOptions(max_waiters=3, reuse="lifo")


def test_what_is_not_known_is_left_to_aiohttp() -> None:
    assert PoolOptions.split({"max_waiter": 1}) == (PoolOptions(), {"max_waiter": 1})


BAD = [
    ({"max_waiters": -1}, ValueError, "max_waiters has to be at least 0, not -1"),
    ({"max_waiters": 1.0}, TypeError, "max_waiters has to be an int or None, not 1.0"),
    ({"max_waiters": True}, TypeError, "max_waiters has to be an int or None, not True"),
    ({"max_open": 0}, ValueError, "max_open has to be at least 1, not 0"),
    ({"max_open": "9"}, TypeError, "max_open has to be an int or None, not '9'"),
    ({"max_requests_per_connection": 0}, ValueError, "max_requests_per_connection has to be at least 1"),
    ({"pool_timeout": 0}, ValueError, "pool_timeout has to be a positive number of seconds or None, not 0"),
    ({"pool_timeout": -0.5}, ValueError, "pool_timeout has to be a positive number"),
    ({"pool_timeout": float("nan")}, ValueError, "pool_timeout has to be a positive number"),
    ({"pool_timeout": float("inf")}, ValueError, "or None, not inf"),
    ({"pool_timeout": "3"}, TypeError, "pool_timeout has to be a number of seconds or None, not '3'"),
    ({"max_connection_age": False}, TypeError, "max_connection_age has to be a number of seconds or None"),
    ({"max_connection_age": 0.0}, ValueError, "max_connection_age has to be a positive number"),
    ({"reuse": "random"}, ValueError, "reuse has to be 'fifo' or 'lifo', not 'random'"),
    ({"reuse": None}, ValueError, "reuse has to be 'fifo' or 'lifo', not None"),
    ({"learn_keepalive": "no"}, TypeError, "learn_keepalive has to be True or False, not 'no'"),
    ({"track_leaks": "0"}, TypeError, "track_leaks has to be True, False or None, not '0'"),
    ({"tcp": "moon"}, ValueError, "no such preset of TCP options: 'moon'; there are 'lan', 'internet'"),
    ({"tcp": 5}, TypeError, "tcp has to be TCPOptions, the name of a preset or None, not 5"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD, ids=[str(row[0]) for row in BAD])
async def test_bad_values_are_refused_before_anything_is_made(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    # Both connectors do it; a connector that was made and is not closed would fail the test.
    for make in (PoolOptions, wirespeed.TCPConnector):
        with pytest.raises(error) as caught:
            make(**arguments)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_waiters": 0},
        {"max_open": 1, "max_requests_per_connection": 1},
        {"pool_timeout": 1e-6, "max_connection_age": 3600},
        {"reuse": "lifo", "learn_keepalive": False},
        {"tcp": "lan"},
        {"tcp": TCPOptions(nodelay=False)},
        dict.fromkeys(
            ("max_waiters", "pool_timeout", "max_open", "max_connection_age", "tcp", "track_leaks")
        ),
    ],
    ids=str,
)
async def test_good_values_are_taken(arguments: dict[str, Any]) -> None:
    PoolOptions(**arguments)
    await wirespeed.TCPConnector(**arguments).close()


# What a program sees of it, with and without the core

ASK = """
import inspect, wirespeed as w
print(w.NATIVE)
for name in ("TCPConnector", "UnixConnector"):
    cls = getattr(w, name)
    print([(p.name, p.kind, p.default) for p in inspect.signature(cls).parameters.values()])
    members = [member for member in set(dir(cls)) - set(dir(w.BaseConnector)) if not member.startswith("_")]
    print(sorted(member for member in members if callable(getattr(cls, member))))
    for method in ("prewarm", "stats", "stats_by_origin", "add_observer", "remove_observer"):
        print(method, list(inspect.signature(getattr(cls, method)).parameters))
print(sorted({"timings", "connection_info"} & set(dir(w.ClientResponse))))
"""
# What the native core's classes have for its own lane.
INTERNAL = {"acquire", "acquire_traced", "acquire_untraced", "is_pooled"}


@pytest.mark.skipif(not wirespeed.NATIVE, reason="needs the extension to compare with")
def test_native_and_fallback_connectors_take_the_same() -> None:
    def ask(**environ: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", ASK],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.splitlines()

    native, fallback = ask(), ask(WIRESPEED_NO_EXTENSIONS="1")
    assert (native[0], fallback[0]) == ("True", "False")
    for ours, theirs in zip(native[1:], fallback[1:], strict=True):
        if ours.startswith("['"):
            assert set(eval(ours)) - INTERNAL <= set(eval(theirs))
        else:
            assert ours == theirs


@pytest.mark.parametrize("name", ["TCPConnector", "UnixConnector"])
def test_parameters_of_the_pool_come_behind_aiohttps(name: str) -> None:
    ours = inspect.signature(getattr(wirespeed, name)).parameters
    own = [field for field in PoolOptions.__dataclass_fields__ if name == "TCPConnector" or field != "tcp"]
    assert list(ours)[-len(own) :] == own
    for field in own:
        assert ours[field].kind is inspect.Parameter.KEYWORD_ONLY
        assert ours[field].default == PoolOptions.__dataclass_fields__[field].default


async def test_unix_connector_has_no_tcp_options() -> None:
    with pytest.raises(TypeError, match="TCP options"):
        wirespeed.UnixConnector("/run/none.sock", tcp="lan")
    with pytest.raises(ValueError, match="max_waiters"):
        wirespeed.UnixConnector("/run/none.sock", max_waiters=-1)
    await wirespeed.UnixConnector("/run/none.sock", True, max_waiters=1).close()
