"""Awaits other people's coroutines without a frame of Python in between. Called by the session.

aiohttp's deprecation warnings count frames to name the caller's line; a coroutine of Cython
has none. It must not know aiohttp: what to raise is an argument.
"""


async def raise_cause(awaitable, type outer, type inner):
    """Await, and raise an exception's cause in its place where that is the better one.

    Args:
        awaitable: what to await.
        outer: the class of exceptions to look behind.
        inner: the class of causes that are raised instead.
    """
    try:
        return await awaitable
    except BaseException as exc:
        cause = exc.__cause__
        if not isinstance(exc, outer) or not isinstance(cause, inner):
            raise
    raise cause from cause.__cause__
