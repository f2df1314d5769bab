"""What tests and benchmarks of programs that use wirespeed or aiohttp need."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mocking.api import HTTPMock, UnmatchedRequest
    from .mocking.replies import CLOSE, RESET, Response
    from .mocking.request import Request
    from .mocking.routes import Route
    from .process import ServerProcess
    from .server import EmbeddedServer

    mock = HTTPMock

# Where each name is; imported at first use, since `python -m wirespeed.testing.server` imports
# this package first.
_HOMES = {
    "CLOSE": ("mocking.replies", "CLOSE"),
    "EmbeddedServer": ("server", "EmbeddedServer"),
    "HTTPMock": ("mocking.api", "HTTPMock"),
    "RESET": ("mocking.replies", "RESET"),
    "Request": ("mocking.request", "Request"),
    "Response": ("mocking.replies", "Response"),
    "Route": ("mocking.routes", "Route"),
    "ServerProcess": ("process", "ServerProcess"),
    "UnmatchedRequest": ("mocking.api", "UnmatchedRequest"),
    "mock": ("mocking.api", "HTTPMock"),
}

__all__ = (
    "CLOSE",
    "RESET",
    "EmbeddedServer",
    "HTTPMock",
    "Request",
    "Response",
    "Route",
    "ServerProcess",
    "UnmatchedRequest",
    "mock",
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
