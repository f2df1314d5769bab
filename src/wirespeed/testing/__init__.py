"""What tests and benchmarks of programs that use wirespeed need."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .process import ServerProcess
    from .server import EmbeddedServer

__all__ = ("EmbeddedServer", "ServerProcess")


def __getattr__(name: str) -> Any:
    # At first use, since `python -m wirespeed.testing.server` imports this package first.
    if name == "EmbeddedServer":
        from .server import EmbeddedServer

        return EmbeddedServer
    if name == "ServerProcess":
        from .process import ServerProcess

        return ServerProcess
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
