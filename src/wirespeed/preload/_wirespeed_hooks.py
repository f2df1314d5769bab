"""Acts when a program imports aiohttp or asyncio, so that one which imports neither pays nothing.

aiohttp: `wirespeed.install()`. asyncio: `asyncio.run`, `asyncio.Runner` and
`asyncio.new_event_loop` make uvloop's loops, unless the program sets a policy of its own or
passes a loop factory. Imported by sitecustomize.py under its bare name; must import nothing
that Python has not loaded at its start.
"""

import sys

TYPE_CHECKING = False  # `typing` is not loaded at the start
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any
else:
    ModuleSpec = type(__spec__)

_waiting: "dict[str, Callable[[], None]]" = {}
"""What to do once a module has been imported, by its name."""


class _WatchedSpec(ModuleSpec):
    """A module's spec that tells when the import is over.

    importlib sets `_initializing` to False in the end, whether or not the module could be
    imported. Waiting for that, other than wrapping the loader, leaves the loader as it is and
    puts no frame of ours into tracebacks and warnings of the module's code.
    """

    @property
    def _initializing(self) -> bool:
        return bool(self.__dict__.get("_initializing", False))

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        try:
            if not value:
                self.__class__ = ModuleSpec  # type: ignore[assignment]
                _on_imported(self.name)
        finally:
            # Last: until then, other threads that import the module wait for its lock.
            self.__dict__["_initializing"] = value


_WatchedSpec.__name__ = _WatchedSpec.__qualname__ = ModuleSpec.__name__  # what its repr shows


class _Finder:
    """The first on sys.meta_path: marks the specs of the modules that are waited for."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name not in _waiting or self not in sys.meta_path:  # wrapped by another finder: stand aside
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec: Any = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find_spec and find_spec(name, path, target)
            if spec is not None:
                if type(spec) is ModuleSpec:
                    spec.__class__ = _WatchedSpec
                return spec
        return None


def wait_for_imports(loop: str) -> None:
    """Act on aiohttp and asyncio as soon as they are imported, at once where they are already.

    Args:
        loop: "fast" for uvloop, "asyncio" for asyncio's own loop.
    """
    _waiting.update(aiohttp=_import_wirespeed, wirespeed=_install)
    if loop == "fast":
        _waiting["asyncio"] = _use_fast_loop
    sys.meta_path.insert(0, _Finder())
    for name in list(_waiting):  # a .pth file may have imported them
        _on_imported(name)


def _on_imported(name: str) -> None:
    if name in sys.modules and (act := _waiting.pop(name, None)) is not None:
        try:
            act()
        except Exception as exc:
            import logging

            logging.getLogger("wirespeed").warning(
                "wirespeed run: %s runs without wirespeed: %s: %s", name, type(exc).__name__, exc
            )


def _import_wirespeed() -> None:
    # A program that imports wirespeed itself is in the middle of it: `_install` follows.
    if "wirespeed" not in sys.modules:
        __import__("wirespeed")


def _install() -> None:
    sys.modules["wirespeed"].install()


def _use_fast_loop() -> None:
    """Have asyncio's default policy make uvloop's loops.

    The policy stays asyncio's own object: one that the program sets replaces it, and there is
    no warning on 3.14, where policies are deprecated. All of `asyncio.run`, `asyncio.Runner`
    without a factory, `asyncio.new_event_loop` and `get_event_loop` ask it, on 3.10 to 3.14.
    """
    asyncio: Any = sys.modules["asyncio"]
    events = asyncio.events
    # The public names of 3.10 to 3.13; those of 3.14 that do not warn.
    get_policy = getattr(events, "_get_event_loop_policy", None) or events.get_event_loop_policy
    default = getattr(asyncio, "_DefaultEventLoopPolicy", None) or asyncio.DefaultEventLoopPolicy
    policy = get_policy()
    if type(policy) is not default:
        return
    asyncios_own = policy._loop_factory

    def new_event_loop() -> "Any":
        """Make the first loop; further ones are made by uvloop without us."""
        try:
            if sys.platform == "win32":
                import winloop as fast
            else:
                import uvloop as fast
        except Exception:  # not installed; or a thread makes a loop while Python shuts down
            policy._loop_factory = asyncios_own
        else:
            policy._loop_factory = fast.new_event_loop
        return policy._loop_factory()

    policy._loop_factory = new_event_loop
