"""A run of pytest within a test: with our plugin alone, and without the options of the run around it."""

import os
import subprocess
import sys
from pathlib import Path

import wirespeed


def run_pytest(folder: Path, *options: str) -> str:
    """Run the tests of a folder and return what pytest printed."""
    path = os.pathsep.join([str(Path(wirespeed.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {name: value for name, value in os.environ.items() if name != "WIRESPEED_TRACK_LEAKS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "_wirespeed_pytest", *options],
        cwd=folder,
        env={
            **env,
            "PYTEST_ADDOPTS": "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": path.rstrip(os.pathsep),
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout + done.stderr
