"""The pytest plugin: its fixture and marker in a run of their own, and what loading it costs."""

import re
from pathlib import Path

import pytest
from support.inner_pytest import run_pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS = """
import asyncio
import aiohttp
import pytest

async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as resp:
        return await resp.text()

async def try_to_get(url):
    try:
        return await get(url)
    except aiohttp.ClientError:
        return "swallowed"

def test_answers(wirespeed_mock):
    wirespeed_mock.get("http://api.example/").respond(text="mocked")
    assert asyncio.run(get("http://api.example/")) == "mocked"

def test_unmatched_fails_at_the_end(wirespeed_mock):
    assert asyncio.run(try_to_get("http://api.example/")) == "swallowed"

def test_failure_is_reported_once(wirespeed_mock):
    asyncio.run(get("http://api.example/"))

@pytest.mark.wirespeed_mock(base_url="http://api.example", assert_all_mocked=False)
def test_marker(wirespeed_mock):
    wirespeed_mock.get("/a").respond(text="a")
    assert asyncio.run(get("http://api.example/a")) == "a"
    assert asyncio.run(try_to_get("http://api.example/b")) == "swallowed"

@pytest.mark.wirespeed_mock(assert_all_called=True)
def test_idle_route(wirespeed_mock):
    wirespeed_mock.get("http://api.example/idle")
"""


def test_fixture_and_marker(tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers -rA\n")
    output = run_pytest(tmp_path)
    for line in (
        "PASSED test_program.py::test_answers",
        "ERROR test_program.py::test_unmatched_fails_at_the_end - ",
        "FAILED test_program.py::test_failure_is_reported_once - ",
        "PASSED test_program.py::test_marker",
        "ERROR test_program.py::test_idle_route - ",
        "AssertionError: no route for GET http://api.example/: the mock has no routes",
        "AssertionError: not called:",
        "1 failed, 4 passed, 2 errors",
    ):
        assert line in output, output
    assert "ERROR test_program.py::test_failure_is_reported_once" not in output


def test_loading_the_plugin_imports_neither_wirespeed_nor_aiohttp(tmp_path: Path) -> None:
    (tmp_path / "test_empty.py").write_text(
        "import sys\n\ndef test_empty():\n"
        "    assert '_wirespeed_pytest' in sys.modules\n"
        "    assert not {'aiohttp', 'wirespeed'} & set(sys.modules)\n"
    )
    output = run_pytest(tmp_path)
    assert "1 passed" in output, output


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="the sources are not here")
def test_installing_registers_the_plugin() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '[project.entry-points.pytest11]\nwirespeed = "_wirespeed_pytest"\n' in text
    assert re.search(r'^py-modules = \[.*"_wirespeed_pytest".*\]$', text, re.MULTILINE)
