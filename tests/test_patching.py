"""`install()`: whatever holds aiohttp's classes, in whatever order, makes ours; and back again."""

import asyncio
import functools
import logging
import subprocess
import sys
import threading
import types
import warnings
from abc import ABC
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import aiohttp
import aiohttp.test_utils
import pytest
from aiohttp import ClientSession as OriginalSession
from support.local import LocalServer

import wirespeed

REPLACED = ["ClientSession", "request", "TCPConnector", "UnixConnector", "ClientResponse"]
ORIGINALS = {name: getattr(aiohttp, name) for name in REPLACED}
# Held where no name of a module leads to.
PARTIAL = functools.partial(aiohttp.ClientSession, raise_for_status=True)
LIST = [aiohttp.ClientSession]


def by_default(cls: Any = aiohttp.ClientSession) -> Any:
    return cls()


def closure() -> Callable[[], Any]:
    cls = aiohttp.ClientSession
    return lambda: cls()


class Holder:
    session_class = aiohttp.ClientSession


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)

    class EarlySession(aiohttp.ClientSession):
        """Derived before install()."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.is_early = True


class EarlyConnector(aiohttp.TCPConnector):
    """Derived before install()."""


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    wirespeed.uninstall()
    for name, original in ORIGINALS.items():
        assert getattr(aiohttp, name) is original
    assert OriginalSession is ORIGINALS["ClientSession"]


async def lane(session: Any, server: LocalServer) -> dict[str, Any]:
    """Make a request and tell the lanes of the session."""
    async with session, session.get(server.url("/ok")) as resp:
        assert await resp.read() == b"ok"
    stats: dict[str, Any] = session.native_stats()
    return stats


def assert_accelerated(stats: dict[str, Any]) -> None:
    assert stats == (
        {"express": 1, "full": {}} if wirespeed.NATIVE else {"express": 0, "full": {"no extension": 1}}
    )


def test_names_of_aiohttp_are_ours_and_back() -> None:
    wirespeed.install()
    for name in REPLACED:
        assert getattr(aiohttp, name) is getattr(wirespeed, name)
    assert aiohttp.client.ClientSession is wirespeed.ClientSession
    assert aiohttp.test_utils.ClientSession is wirespeed.ClientSession
    wirespeed.uninstall()
    for name, original in ORIGINALS.items():
        assert getattr(aiohttp, name) is original
    assert aiohttp.test_utils.ClientSession is ORIGINALS["ClientSession"]


def test_name_imported_before_is_replaced_and_reported() -> None:
    installation = wirespeed.install()
    assert OriginalSession is wirespeed.ClientSession
    assert f"{__name__}.OriginalSession" in installation.replaced
    assert "aiohttp.ClientSession" in installation.replaced
    assert f"{__name__}.EarlySession.__bases__" in installation.replaced
    assert installation.unreached == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: aiohttp.ClientSession(),
        lambda: OriginalSession(),
        lambda: ORIGINALS["ClientSession"](),
        PARTIAL,
        LIST[0],
        by_default,
        closure(),
        lambda: Holder.session_class(),
        EarlySession,
        lambda: EarlySession(connector=EarlyConnector()),
        lambda: aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=3)),
    ],
    ids=[
        "aiohttp's name", "imported name", "dictionary", "partial", "list", "default", "closure",
        "class attribute", "subclass", "subclass with connector", "connector",
    ],
)  # fmt: skip
async def test_session_made_through_any_reference_is_accelerated(make: Callable[[], Any]) -> None:
    async with LocalServer() as server:
        wirespeed.install()
        session = make()
        assert isinstance(session, wirespeed.ClientSession)
        assert isinstance(session, ORIGINALS["ClientSession"])
        assert_accelerated(await lane(session, server))
        wirespeed.uninstall()
        session = make()
        assert not isinstance(session, wirespeed.ClientSession)
        async with session, session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"


async def test_request_function_is_accelerated() -> None:
    async with LocalServer() as server:
        wirespeed.install()
        for request in (aiohttp.request, ORIGINALS["request"]):
            async with request("GET", server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
                assert isinstance(resp, wirespeed.ClientResponse)


async def test_session_that_exists_works_on_and_passes_for_ours() -> None:
    async with LocalServer() as server:
        plain = aiohttp.ClientSession()
        derived = EarlySession(connector=EarlyConnector())
        for session in (plain, derived):
            async with session.get(server.url("/ok")) as resp:
                await resp.read()
        open_resp = await plain.get(server.url("/ok"))
        wirespeed.install()
        assert isinstance(open_resp, aiohttp.ClientResponse)
        assert isinstance(open_resp, ORIGINALS["ClientResponse"])
        assert await open_resp.read() == b"ok"
        for session in (plain, derived):
            assert isinstance(session, aiohttp.ClientSession)
            assert isinstance(session, ORIGINALS["ClientSession"])
            assert isinstance(session.connector, aiohttp.TCPConnector)
            assert type(session.explain("GET", server.url("/ok"))) is not None  # type: ignore[attr-defined]
            async with session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
            await session.close()
            assert session.closed
        assert isinstance(derived, EarlySession)
    assert len({exchange.connection for exchange in server.exchanges}) <= 3


async def test_session_that_exists_is_closed_after_uninstall() -> None:
    async with LocalServer() as server:
        wirespeed.install()
        session = aiohttp.ClientSession()
        wirespeed.uninstall()
        assert isinstance(session, aiohttp.ClientSession)
        assert_accelerated(await lane(session, server))


def test_calling_twice_changes_nothing_and_one_uninstall_undoes_it() -> None:
    first = wirespeed.install()
    second = wirespeed.install()
    assert set(second.replaced) == set(first.replaced)
    wirespeed.uninstall()
    assert aiohttp.ClientSession is ORIGINALS["ClientSession"]
    wirespeed.uninstall()
    assert aiohttp.ClientSession is ORIGINALS["ClientSession"]


def test_blocks_nest_and_keep_what_install_did() -> None:
    with wirespeed.installed():
        with wirespeed.installed() as installation:
            assert installation.replaced
        assert aiohttp.ClientSession is wirespeed.ClientSession
        wirespeed.uninstall()
        assert aiohttp.ClientSession is wirespeed.ClientSession
    assert aiohttp.ClientSession is ORIGINALS["ClientSession"]
    wirespeed.install()
    with wirespeed.installed():
        pass
    assert aiohttp.ClientSession is wirespeed.ClientSession


def test_block_that_raises_is_undone() -> None:
    with pytest.raises(LookupError), wirespeed.installed():
        raise LookupError
    assert aiohttp.ClientSession is ORIGINALS["ClientSession"]


def test_threads_may_install_and_uninstall_at_once() -> None:
    errors = []

    def work() -> None:
        try:
            for _ in range(20):
                with wirespeed.installed():
                    assert aiohttp.ClientSession is wirespeed.ClientSession
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def _import_module(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = __import__(name)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_module_imported_meanwhile_gets_aiohttps_names_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wirespeed.install()
    module = _import_module("from aiohttp import ClientSession", tmp_path, monkeypatch, "late_aiohttp_user")
    assert module.ClientSession is wirespeed.ClientSession
    wirespeed.uninstall()
    assert module.ClientSession is ORIGINALS["ClientSession"]


def test_module_that_imports_wirespeed_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wirespeed.install()
    module = _import_module(
        "from wirespeed import ClientSession", tmp_path, monkeypatch, "late_wirespeed_user"
    )
    wirespeed.uninstall()
    assert module.ClientSession is wirespeed.ClientSession


def test_name_that_a_program_replaced_since_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wirespeed.install()
    other = object()
    vars(aiohttp.test_utils)["ClientSession"] = other
    wirespeed.uninstall()
    assert vars(aiohttp.test_utils)["ClientSession"] is other
    vars(aiohttp.test_utils)["ClientSession"] = ORIGINALS["ClientSession"]


def test_classes_may_be_derived_while_installed() -> None:
    wirespeed.install()

    class Meta(type):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Late(aiohttp.ClientSession, ABC):
            pass

        class LateWithMeta(aiohttp.ClientSession, metaclass=Meta):
            pass

    assert issubclass(Late, wirespeed.ClientSession)
    assert issubclass(LateWithMeta, ORIGINALS["ClientSession"])


def test_class_with_a_new_of_its_own(loop: asyncio.AbstractEventLoop) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Single(ORIGINALS["ClientSession"]):  # type: ignore[misc]
            def __new__(cls, *args: Any, **kwargs: Any) -> Any:
                return super().__new__(cls)

    async def main() -> None:
        for _ in range(2):
            async with Single(raise_for_status=True) as session:
                assert type(session) is Single
            wirespeed.install()

    loop.run_until_complete(main())


def test_class_that_cannot_be_derived_anew_is_named(caplog: pytest.LogCaptureFixture) -> None:
    # Both of two bases are aiohttp's and ours in an order that Python cannot reconcile.
    cls = type("Odd", (EarlyConnector,), {})
    odd = types.new_class("Stubborn", (ORIGINALS["TCPConnector"],), {"metaclass": _Stubborn})
    with caplog.at_level(logging.WARNING, "wirespeed"):
        installation = wirespeed.install()
        wirespeed.install()
    assert installation.unreached == (f"{odd.__module__}.Stubborn",)
    assert caplog.text.count("could not reach") == 1
    assert issubclass(cls, wirespeed.TCPConnector)


class _Stubborn(type):
    def __setattr__(cls, name: str, value: object) -> None:
        if name == "__bases__":
            raise TypeError("no")
        super().__setattr__(name, value)


@pytest.mark.parametrize("first", ["aiohttp", "wirespeed", "user"])
def test_import_order_makes_no_difference(first: str, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text("from aiohttp import ClientSession, TCPConnector\n")
    code = f"""
import {first}
import wirespeed
import user
wirespeed.install()
assert user.ClientSession is wirespeed.ClientSession
assert user.TCPConnector is wirespeed.TCPConnector
import aiohttp
assert aiohttp.ClientSession is wirespeed.ClientSession
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


async def test_method_patched_on_the_installed_class_is_called() -> None:
    class Mocked(Exception):
        pass

    async def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Mocked

    async with LocalServer() as server:
        wirespeed.install()
        for owner, name in (
            (aiohttp.ClientSession, "_request"),
            (aiohttp.TCPConnector, "connect"),
            (aiohttp.TCPConnector, "_create_connection"),
            (aiohttp.ClientResponse, "start"),
        ):
            async with aiohttp.ClientSession() as session:
                with mock.patch.object(owner, name, refuse, create=True), pytest.raises(Mocked):
                    await session.get(server.url("/ok"))
        assert len(server.exchanges) <= 1  # `start` comes after the request was sent


def test_mock_in_the_place_of_a_method_is_left_alone() -> None:
    with mock.patch.object(ORIGINALS["ClientSession"], "_request") as mocked:
        wirespeed.install()
        assert vars(ORIGINALS["ClientSession"])["_request"] is mocked


class Wrapper:
    """As wrapt's FunctionWrapper: calls the wrapper with the function it wraps."""

    def __init__(self, wrapped: Any, wrapper: Any) -> None:
        self.__wrapped__ = wrapped
        self._self_wrapper = wrapper

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        bound = self.__wrapped__.__get__(instance, owner)
        return lambda *args, **kwargs: self._self_wrapper(bound, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


@pytest.mark.parametrize("unwraps", [True, False], ids=["tool takes it off", "tool leaves it on"])
async def test_wrapper_put_on_before_wraps_ours_while_installed(unwraps: bool) -> None:
    calls = []

    def note(wrapped: Any, args: Any, kwargs: Any) -> Any:
        calls.append(args)
        return wrapped(*args, **kwargs)

    theirs = ORIGINALS["ClientSession"]
    original, ours = vars(theirs)["_request"], vars(wirespeed.ClientSession)["_request"]
    wrapper = Wrapper(Wrapper(original, note), note)
    async with LocalServer() as server:
        with mock.patch.object(theirs, "_request", wrapper):
            wirespeed.install()
            assert vars(theirs)["_request"] is original
            assert_accelerated(await lane(aiohttp.ClientSession(), server))
            assert len(calls) == 2
            if unwraps:
                aiohttp.ClientSession._request = aiohttp.ClientSession._request.__wrapped__.__wrapped__
                assert_accelerated(await lane(aiohttp.ClientSession(), server))
                assert len(calls) == 2
            wirespeed.uninstall()
            assert vars(wirespeed.ClientSession)["_request"] is ours
            assert vars(theirs)["_request"] is (original if unwraps else wrapper)


class _Refusing(types.ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("read-only")


class _Unhashable(type):
    __hash__ = None  # type: ignore[assignment]


class _Referrer(metaclass=_Unhashable):
    def __init__(self, held: object) -> None:
        self.held = held


def test_what_refuses_to_be_changed_is_named_and_the_rest_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = _Refusing("read_only_module")
    vars(module)["ClientSession"] = ORIGINALS["ClientSession"]
    monkeypatch.setitem(sys.modules, "read_only_module", module)
    referrer = _Referrer(ORIGINALS["ClientSession"])
    installation = wirespeed.install()
    assert installation.unreached == ("read_only_module.ClientSession",)
    assert aiohttp.ClientSession is wirespeed.ClientSession
    assert referrer.held is ORIGINALS["ClientSession"]
