"""What the package says about itself: metadata, versions, licence, changelog, top level."""

import fnmatch
import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import wirespeed

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).resolve().parent.parent
# The rest of the house lives below one of these.
TOP_LEVEL = {
    ".ci",
    ".github",
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "benchmarks",
    "pyproject.toml",
    "setup.py",
    "src",
    "tests",
}
GITS_OWN = {".git", ".gitignore", ".gitattributes", ".git-blame-ignore-revs"}

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="the sources are not here")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with CPython 3.11")
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def project(pyproject: dict[str, Any]) -> dict[str, Any]:
    table: dict[str, Any] = pyproject["project"]
    return table


def test_the_versions_agree(project: dict[str, Any]) -> None:
    assert project["version"] == wirespeed.__version__


def test_the_installed_version_is_the_one_that_is_imported() -> None:
    assert importlib.metadata.version("wirespeed") == wirespeed.__version__


def test_the_extras_of_the_readme_exist(project: dict[str, Any]) -> None:
    named = {"cli", "prometheus", "opentelemetry", "test", "bench", "lint"}
    assert named <= project["optional-dependencies"].keys()


def test_classifiers_name_every_supported_version(project: dict[str, Any], pyproject: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: 3."
    named = {int(name.removeprefix(prefix)) for name in project["classifiers"] if name.startswith(prefix)}
    oldest = int(project["requires-python"].removeprefix(">=3."))
    assert named == set(range(oldest, max(named) + 1))
    wheels = pyproject["tool"]["cibuildwheel"]["build"].split()
    assert {f"cp3{minor}-*" for minor in named} == {name for name in wheels if not name.endswith("t-*")}
    assert pyproject["tool"]["ruff"]["target-version"] == f"py3{oldest}"
    assert pyproject["tool"]["mypy"]["python_version"] == f"3.{oldest}"


def test_aiohttp_is_bounded_above(project: dict[str, Any]) -> None:
    assert "aiohttp>=3.14,<4" in project["dependencies"]


def test_no_classifier_repeats_the_licence(project: dict[str, Any]) -> None:
    assert project["license"] == "Apache-2.0"
    assert not [name for name in project["classifiers"] if name.startswith("License ::")]


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)


def test_the_changelog_has_an_entry_for_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    heading = rf"^## \[?{re.escape(wirespeed.__version__)}\]? - (?:unreleased|\d{{4}}-\d\d-\d\d)$"
    assert re.search(heading, text, re.MULTILINE | re.IGNORECASE), f"no heading matches {heading}"


def test_the_package_is_typed() -> None:
    assert (Path(wirespeed.__file__).parent / "py.typed").is_file()


@pytest.mark.skipif((ROOT / "PKG-INFO").exists(), reason="a source archive, with the files of its build")
def test_the_top_level_holds_only_what_it_may() -> None:
    ignore = ROOT / ".gitignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.is_file() else []
    patterns = [line.rstrip("/") for line in lines if line]
    found = {path.name for path in ROOT.iterdir()} - GITS_OWN
    ignored = {name for name in found if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    assert found - ignored <= TOP_LEVEL
