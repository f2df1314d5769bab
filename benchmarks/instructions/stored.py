"""The stored figures, and the comparison with them.

Figures hold for one kind of interpreter: version, machine, compiler and how it was optimised. `key` names
the kind. The floor is counted and stored, too: it is none of our code, so when it has moved, something
below us has, and the other figures say nothing about us.
"""

import contextlib
import enum
import json
import platform
import re
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from .exchanges import FLOOR

FILE: Final = Path(__file__).resolve().parents[1] / "instructions.json"
TOLERANCE: Final = 3.0
"""Percent. Countings of one kind of interpreter differ by less than 0.5 (2 where it has no symbols)."""
PACKAGES: Final = ("aiohttp", "httptools", "multidict", "uvloop", "yarl")


class Verdict(enum.Enum):
    """What a figure says, compared with the stored one."""

    SAME = "within the tolerance"
    MORE = "MORE"
    LESS = "less"
    NEW = "new"


@dataclass(frozen=True)
class Comparison:
    """A scenario's figure beside the stored one.

    Attributes:
        scenario: its name.
        counted: instructions per exchange, now.
        stored: instructions per exchange when it was stored; None when it was not.
        tolerance: percent.
    """

    scenario: str
    counted: float
    stored: float | None
    tolerance: float = TOLERANCE

    @property
    def change(self) -> float | None:
        """Percent more than stored; negative for less."""
        return None if self.stored is None else 100 * (self.counted - self.stored) / self.stored

    @property
    def verdict(self) -> Verdict:
        change = self.change
        if change is None:
            return Verdict.NEW
        if change > self.tolerance:
            return Verdict.MORE
        return Verdict.LESS if change < -self.tolerance else Verdict.SAME


def key() -> str:
    """Name the kind of interpreter that runs: `cpython-3.13-x86_64-gcc12-shared`."""
    version = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"
    config = sysconfig.get_config_vars()
    return key_of(version, platform.machine(), platform.python_compiler(), config)


def key_of(version: str, machine: str, compiler: str, config: Mapping[str, Any]) -> str:
    """Name a kind of interpreter.

    Args:
        version: implementation and version.
        machine: the processor's architecture.
        compiler: as `platform.python_compiler` has it.
        config: as `sysconfig.get_config_vars` has it.
    """
    name = re.match(r"(\w+)\D*(\d+)", compiler)
    parts = [version, machine, (name[1] + name[2]).lower() if name else "unknown"]
    arguments = str(config.get("CONFIG_ARGS") or "")
    parts += ["freethreaded"] if config.get("Py_GIL_DISABLED") else []
    parts += ["shared"] if config.get("Py_ENABLE_SHARED") else []
    parts += ["pgo"] if "--enable-optimizations" in arguments else []
    parts += ["lto"] if re.search(r"--with-lto(?!=no)", arguments) else []
    return "-".join(parts)


def versions() -> dict[str, str]:
    """What else may move a figure; stored for whoever wonders."""
    found = {"python": platform.python_version(), "compiler": platform.python_compiler()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def load(file: Path | None = None) -> dict[str, Any]:
    """Read the stored figures of all kinds of interpreter, by key."""
    file = file or FILE
    stored: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return stored


def update(counted: Mapping[str, float]) -> None:
    """Store figures for the running interpreter; those of scenarios that were not counted stay."""
    stored = load()
    figures = stored.get(key(), {}).get("instructions", {})
    figures |= {name: round(value) for name, value in counted.items()}
    stored[key()] = {"versions": versions(), "instructions": figures}
    FILE.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n", "utf-8")


def compare(
    counted: Mapping[str, float], figures: Mapping[str, float], tolerance: float = TOLERANCE
) -> list[Comparison]:
    """Put each counted figure beside the stored one."""
    return [Comparison(name, value, figures.get(name), tolerance) for name, value in counted.items()]


def is_comparable(comparisons: list[Comparison]) -> bool:
    """Whether the floor is where it was; without a floor there is nothing to say against it."""
    floors = [comparison.verdict for comparison in comparisons if comparison.scenario == FLOOR]
    return all(verdict in (Verdict.SAME, Verdict.NEW) for verdict in floors)
