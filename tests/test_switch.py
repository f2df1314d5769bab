"""The native/pure switch and the names that the package offers."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

import wirespeed

PURE = {**os.environ, "WIRESPEED_NO_EXTENSIONS": "1"}


def test_every_public_name_of_aiohttp_resolves() -> None:
    for name in aiohttp.__all__:
        assert hasattr(wirespeed, name), name


def test_aiohttp_submodules_resolve() -> None:
    import aiohttp.web

    assert wirespeed.web is aiohttp.web
    assert wirespeed.client_exceptions is aiohttp.client_exceptions


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        wirespeed.no_such_name  # noqa: B018


def test_switched_off_the_names_are_aiohttps_own_or_derived_and_the_core_is_left_alone() -> None:
    code = (
        "import aiohttp, sys, wirespeed as w; assert not w.NATIVE;"
        "names = 'ClientSession', 'ClientResponse', 'TCPConnector', 'UnixConnector';"
        "assert all(issubclass(getattr(w, name), getattr(aiohttp, name)) for name in names);"
        "assert w.BaseConnector is aiohttp.BaseConnector;"
        "assert not [name for name in sys.modules if name.startswith('wirespeed._core')]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=PURE, check=True)


async def test_session_counts_requests_by_lane() -> None:
    async with wirespeed.ClientSession() as session:
        assert session.native_stats() == {"express": 0, "full": {}}


def test_type_checkers_are_told_every_name() -> None:
    source = Path(wirespeed.__file__).read_text("utf-8")
    told = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(wirespeed.__all__) <= told
