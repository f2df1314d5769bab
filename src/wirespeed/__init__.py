"""wirespeed: aiohttp's client API on a native core.

`import wirespeed as aiohttp` works for a whole program: the names below are ours, and
every other name resolves to aiohttp's own object, submodules included.
"""

import importlib
from typing import TYPE_CHECKING, Any

import aiohttp as _aiohttp

from ._switch import NATIVE
from ._version import __version__
from .client import ClientSession, request
from .lanes import FullLaneError, LaneReason
from .loops import new_event_loop, run
from .patching import install, installed, uninstall

if TYPE_CHECKING or NATIVE:
    from .connector import TCPConnector, UnixConnector
    from .response import ClientResponse
else:
    from aiohttp import ClientResponse, TCPConnector, UnixConnector

_OURS = (
    "NATIVE",
    "ClientResponse",
    "ClientSession",
    "FullLaneError",
    "LaneReason",
    "TCPConnector",
    "UnixConnector",
    "__version__",
    "install",
    "installed",
    "new_event_loop",
    "request",
    "run",
    "uninstall",
)
__all__ = tuple(dict.fromkeys((*_aiohttp.__all__, *_OURS)))


def __getattr__(name: str) -> Any:
    """Resolve what is not ours to aiohttp's object or submodule (PEP 562)."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(_aiohttp, name)
    except AttributeError:
        pass
    try:
        return importlib.import_module(f"aiohttp.{name}")
    except ModuleNotFoundError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_aiohttp)})
