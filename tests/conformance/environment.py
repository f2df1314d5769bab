"""What a run needs: aiohttp's tests, a Python that has their requirements, and wirespeed.

The archive and the environments are kept by version in a cache directory; wirespeed is
copied anew for each run, so that a run tests one state of it. Called by `__main__`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from conformance.suite import CONSTRAINTS, DIGESTS, PINNED, REQUIREMENTS

ROOT = Path(__file__).resolve().parents[2]
_PROBE = """
import importlib.metadata, importlib.util, json, sys
tag = sys.implementation.cache_tag + getattr(sys, "abiflags", "")
found = {"tag": tag, "aiohttp": "", "wirespeed": ""}
try:
    found["aiohttp"] = importlib.metadata.version("aiohttp")
except importlib.metadata.PackageNotFoundError:
    pass
try:
    import wirespeed
    if wirespeed.NATIVE:
        found["wirespeed"] = wirespeed.__path__[0]
except ImportError:
    pass
print(json.dumps(found))
"""


class Environment(NamedTuple):
    """Where everything is."""

    python: Path
    tests: Path
    """The unpacked archive of aiohttp."""
    library: Path
    """A directory to import wirespeed from."""
    aiohttp: str
    """aiohttp's version."""
    origin: str
    """Where wirespeed was taken from, for the report."""


def set_up(python: str, aiohttp: str | None, cache: Path, work: Path) -> Environment:
    """Make or find everything.

    Args:
        python: the interpreter to run the tests with.
        aiohttp: the version; None for the one that this interpreter has, else the pinned one.
        cache: what is kept between runs.
        work: what is not.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    found = _probe(python)
    version = aiohttp or found["aiohttp"] or PINNED
    archive = _archive(python, version, cache)
    venv = _venv(python, found["tag"], version, archive, cache)
    library = work / "lib"
    if found["wirespeed"]:
        origin = found["wirespeed"]
        shutil.copytree(origin, library / "wirespeed", ignore=shutil.ignore_patterns("__pycache__"))
    else:
        origin = f"built from {ROOT}"
        env = {**os.environ, "WIRESPEED_REQUIRE_EXTENSIONS": "1"}
        _pip(venv, "install", "--no-deps", "--target", str(library), str(ROOT), env=env)
    return Environment(venv, archive, library, version, origin)


def _probe(python: str) -> dict[str, str]:
    # Away from the checkout: `-c` puts the current directory on the path.
    env = dict(os.environ)
    if path := env.get("PYTHONPATH"):
        env["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    with tempfile.TemporaryDirectory() as elsewhere:
        command = [python, "-c", _PROBE]
        output = subprocess.run(command, cwd=elsewhere, env=env, check=True, stdout=subprocess.PIPE)
    found: dict[str, str] = json.loads(output.stdout)
    return found


def _archive(python: str, version: str, cache: Path) -> Path:
    """Unpack aiohttp's source archive; pip checks it against the digest, ours or the index's."""
    target = cache / f"aiohttp-{version}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as name:
        work = Path(name)
        wanted = f"aiohttp=={version}"
        if version in DIGESTS:
            wanted += f" --hash={DIGESTS[version]}"
        (work / "wanted.txt").write_text(wanted + "\n", "utf-8")
        _pip(
            Path(python), "download", "--no-deps", "--no-binary", "aiohttp",
            "--dest", name, "--requirement", str(work / "wanted.txt"),
        )  # fmt: skip
        with tarfile.open(next(work.glob("aiohttp-*.tar.gz"))) as archive:
            if sys.version_info >= (3, 12):
                archive.extractall(work, filter="data")
            else:
                archive.extractall(work)
        (work / target.name).rename(target)
    return target


def _venv(python: str, tag: str, version: str, archive: Path, cache: Path) -> Path:
    """Make an environment with aiohttp and what its tests and wirespeed require."""
    constraints = archive / CONSTRAINTS
    wanted = [f"aiohttp=={version}", *REQUIREMENTS, *_own_requirements()]
    text = json.dumps([wanted, constraints.read_text("utf-8")])
    target = cache / f"venv-{tag}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    executable = target / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (target / "complete").is_file():
        return executable
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(target)], check=True)
    _pip(executable, "install", "--prefer-binary", "--constraint", str(constraints), *wanted)
    (target / "complete").touch()
    return executable


def _own_requirements() -> list[str]:
    """What wirespeed requires besides aiohttp, as its project file says."""
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    start = lines.index("dependencies = [") + 1
    block = [line.strip().strip('",') for line in lines[start : lines.index("]", start)]]
    return [line for line in block if not line.startswith("aiohttp")]


def _pip(python: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check", "--no-input"]
    run([*command, *arguments], env=env)


def run(command: Sequence[str], env: dict[str, str] | None = None) -> None:
    """Run a command; its output is printed only when it fails."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.stdout.write(done.stdout.decode(errors="replace"))
        raise subprocess.CalledProcessError(done.returncode, list(command))
