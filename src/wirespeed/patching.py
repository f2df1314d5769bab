"""`install()` and `uninstall()`: programs and libraries written for aiohttp run on the core.

Our objects take the place of aiohttp's under every name that a module has for them; classes
derived from aiohttp's are derived from ours; and aiohttp's classes, when called through any
reference that is left (a default, a closure, a `functools.partial`), make instances of ours.
Each change is remembered and undone. Called by users, and by `wirespeed run`.
"""

import contextlib
import functools
import gc
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from ._switch import NATIVE
from .client import ClientSession, request

_logger = logging.getLogger("wirespeed")

if TYPE_CHECKING or NATIVE:
    from .connector import TCPConnector, UnixConnector
    from .response import ClientResponse
else:
    from .fallback import ClientResponse, TCPConnector, UnixConnector

# aiohttp's classes as they are when wirespeed is imported, and ours in their place.
_CLASSES: dict[type, type] = {
    aiohttp.client.ClientSession: ClientSession,
    aiohttp.connector.TCPConnector: TCPConnector,
    aiohttp.connector.UnixConnector: UnixConnector,
    aiohttp.client_reqrep.ClientResponse: ClientResponse,
}

_PAIRS: tuple[tuple[Any, Any], ...] = (*_CLASSES.items(), (aiohttp.client.request, request))
_OURS = {id(theirs): ours for theirs, ours in _PAIRS}
_THEIRS = {id(ours): theirs for theirs, ours in _PAIRS}


class Installation(NamedTuple):
    """What `install()` has done so far."""

    replaced: tuple[str, ...]
    """Where aiohttp's objects were replaced: `module.name`, and `module.Class.__bases__`."""
    unreached: tuple[str, ...]
    """Classes, and names in modules, that go on with aiohttp's own code."""


class _Installer:
    """The replacements in this process, and who wants them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._wanted_by: set[object] = set()
        self._undo: dict[str, Callable[[], None]] = {}
        self._unreached: tuple[str, ...] = ()
        self._redirected = False

    @property
    def is_active(self) -> bool:
        return bool(self._wanted_by)

    def hold(self, holder: object) -> Installation:
        with self._lock:
            self._wanted_by.add(holder)
            self._replace()
            return Installation(tuple(self._undo), self._unreached)

    def let_go(self, holder: object) -> None:
        with self._lock:
            if holder in self._wanted_by:
                self._wanted_by.remove(holder)
                if not self._wanted_by:
                    self._restore()

    def _replace(self) -> None:
        refusing = []
        for module in _modules():
            for name, value in list(vars(module).items()):
                if id(value) in _OURS:
                    try:
                        self._set(module, name, value)
                    except Exception:  # a module may have opinions on who sets what
                        refusing.append(f"{module.__name__}.{name}")
        derived = [cls for theirs in _CLASSES for cls in _subclasses(theirs)]
        unreached = refusing + [
            _name(cls) for cls in derived if not _is_wirespeeds(cls.__module__) and not self._rebase(cls)
        ]
        for theirs, ours in _CLASSES.items():
            self._move_wrappers(theirs, ours)
        self._redirect()
        for name in unreached:
            if name not in self._unreached:
                _logger.warning("install() could not reach %s: it goes on with aiohttp's own code", name)
        self._unreached = tuple(unreached)

    def _set(self, module: ModuleType, name: str, old: Any) -> None:
        new = _OURS[id(old)]
        setattr(module, name, new)

        def undo() -> None:
            if vars(module).get(name) is new:
                setattr(module, name, old)

        self._undo[f"{module.__name__}.{name}"] = undo

    def _rebase(self, cls: type) -> bool:
        """Derive from ours what is derived from aiohttp's; false where Python does not allow it."""
        old = cls.__bases__
        try:
            cls.__bases__ = tuple(_OURS.get(id(base), base) for base in old)
        except TypeError:
            return False

        def undo() -> None:
            cls.__bases__ = old

        self._undo[f"{_name(cls)}.__bases__"] = undo
        return True

    def _move_wrappers(self, theirs: type, ours: type) -> None:
        """Have tracers that wrapped a method of aiohttp's class wrap the one of ours.

        OpenTelemetry's and ddtrace's wrappers (wrapt's) are taken off by looking the method up
        under aiohttp's name, which is ours now.
        """
        for name, member in list(vars(theirs).items()):
            wrappers = list(_wrappers(member))
            if not wrappers:
                continue
            is_own = name in vars(ours)
            inner = moved = getattr(ours, name)
            for wrapper in reversed(wrappers):
                moved = type(wrapper)(moved, wrapper._self_wrapper)
            setattr(theirs, name, wrappers[-1].__wrapped__)
            setattr(ours, name, moved)
            undo = functools.partial(_move_back, theirs, ours, name, member, moved, inner if is_own else None)
            self._undo[f"{_name(theirs)}.{name}"] = undo

    def _redirect(self) -> None:
        """Make aiohttp's classes make ours, and the instances that exist be ours.

        `__new__` stays for good: once it was set, Python's own does not come back (a class
        that had one refuses arguments after its deletion).
        """
        if not self._redirected:
            self._redirected = True
            for theirs, ours in _CLASSES.items():
                theirs.__new__ = self._new(theirs, ours)  # type: ignore[method-assign]
        for instance in gc.get_referrers(*_CLASSES):
            # By identity: a metaclass may make its classes unhashable.
            if (new := _OURS.get(id(type(instance)))) is not None:
                # Not through the class's own __setattr__, which has opinions on names.
                object.__setattr__(instance, "__class__", new)

    def _new(self, theirs: type, ours: type) -> Any:
        def __new__(cls: type, *args: object, **kwargs: object) -> Any:
            return object.__new__(ours if cls is theirs and self._wanted_by else cls)

        # inspect.signature() looks here before it looks at __init__.
        __new__.__signature__ = inspect.signature(theirs.__init__)  # type: ignore[attr-defined, misc]
        return __new__

    def _restore(self) -> None:
        for undo in reversed(self._undo.values()):
            undo()
        self._undo.clear()
        self._unreached = ()
        # Modules imported meanwhile found our objects under aiohttp's names.
        for module in _modules():
            held = [(name, value) for name, value in list(vars(module).items()) if id(value) in _THEIRS]
            if held and not _imports_wirespeed(module):
                for name, value in held:
                    setattr(module, name, _THEIRS[id(value)])


def _wrappers(member: Any) -> Iterator[Any]:
    """Yield the wrapt wrappers around a function, outermost first; tools carry copies of wrapt."""
    # A mock has every attribute that one asks for.
    while hasattr(member, "_self_wrapper") and not hasattr(member, "_self_no_such_attribute"):
        yield member
        member = member.__wrapped__


def _move_back(theirs: type, ours: type, name: str, member: Any, moved: Any, inner: Any) -> None:
    if vars(ours).get(name) is not moved:
        return  # taken off, or wrapped once more: the tool will find it where it is
    setattr(theirs, name, member)
    if inner is None:
        delattr(ours, name)
    else:
        setattr(ours, name, inner)


def _modules() -> Iterator[ModuleType]:
    """Yield the modules that are loaded, without this package's own."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not _is_wirespeeds(name):
            yield module


def _subclasses(cls: type) -> list[type]:
    return cls.__subclasses__()


def _is_wirespeeds(module_name: str) -> bool:
    return module_name.partition(".")[0] == "wirespeed"


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _imports_wirespeed(module: ModuleType) -> bool:
    """Whether a module has our objects by our name, as its code tells; true when there is no code to ask."""
    try:
        code = module.__loader__.get_code(module.__name__)  # type: ignore[union-attr]
    except (AttributeError, ImportError, OSError, SyntaxError):
        return True
    return not isinstance(code, CodeType) or any(map(_is_wirespeeds, _names(code)))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


_installer = _Installer()


def install() -> Installation:
    """Put wirespeed's classes in the place of aiohttp's, for the whole process.

    `aiohttp.ClientSession`, `TCPConnector`, `UnixConnector`, `ClientResponse` and `request`
    become ours in every module that is loaded, aiohttp's own included; classes derived from
    them are derived from ours; and aiohttp's classes make instances of ours through whatever
    reference they are called. Sessions that exist already pass for ours (`isinstance`) and
    go on with aiohttp's own code. May be called again and from any thread.

    Returns:
        What was replaced, and what could not be: classes whose base Python refuses to
        replace, modules that refuse to be changed. These are also logged, as a warning of the
        logger `wirespeed`.
    """
    return _installer.hold(install)


def uninstall() -> None:
    """Undo `install()`; without effect where it was not called.

    aiohttp's names are aiohttp's again, also in modules that were imported meanwhile (those
    that import wirespeed by its name keep it). Sessions that exist go on on the core, and
    classes that were derived meanwhile stay derived from ours. While an `installed()` block
    is open somewhere, the replacements stay until it ends.
    """
    _installer.let_go(install)


@contextlib.contextmanager
def installed() -> Iterator[Installation]:
    """Install for a `with` block; blocks may nest and overlap, and the last one to end undoes it.

    Yields:
        What `install()` returns.
    """
    block = object()
    try:
        yield _installer.hold(block)
    finally:
        _installer.let_go(block)


def is_installed() -> bool:
    """Tell whether aiohttp's classes are replaced at present."""
    return _installer.is_active
