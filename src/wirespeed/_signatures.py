"""Our functions look like the ones of aiohttp that they take the place of.

As `functools.wraps`, but without `__wrapped__`: tools that take their patches off again
(ddtrace, wrapt) follow it, and would put aiohttp's function in the place of ours.
"""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def like(original: Callable[..., Any], **more: Any) -> Callable[[_Function], _Function]:
    """Give a function the name, documentation and signature of another.

    Args:
        original: the function to look like; a coroutine function makes the other look like one,
            too, since mocks ask.
        more: keyword-only parameters that the signature has beside those of the original, with
            their defaults.
    """

    def dress(function: _Function) -> _Function:
        dressed: Any = functools.update_wrapper(function, original)
        del dressed.__wrapped__
        signature = inspect.signature(original)
        own = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=more[name]) for name in more]
        dressed.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *own])
        if inspect.iscoroutinefunction(original) and not inspect.iscoroutinefunction(function):
            if sys.version_info >= (3, 12):
                inspect.markcoroutinefunction(dressed)
            else:
                from asyncio import coroutines

                try:
                    dressed._is_coroutine = vars(coroutines)["_is_coroutine"]
                except AttributeError:
                    # A function of Cython's, which cannot be marked.
                    return dress(_in_python(function))
        return function

    return dress


def _in_python(function: _Function) -> _Function:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    dressed: Any = call
    return dressed  # type: ignore[no-any-return]
