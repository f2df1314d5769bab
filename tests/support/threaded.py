"""A local server on a loop in a thread of its own, for code that runs its own loop in the test's."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

from .local import LocalServer


@contextlib.contextmanager
def serving(set_up: Callable[[LocalServer], object] = lambda server: None) -> Iterator[LocalServer]:
    """Serve as long as the context lasts.

    Args:
        set_up: called with the server before it listens.
    """
    server = LocalServer()
    set_up(server)
    loop = asyncio.new_event_loop()
    is_up = threading.Event()

    async def serve() -> None:
        async with server:
            is_up.set()
            await over

    over = loop.create_future()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert is_up.wait(10), "the server did not start"
        yield server
    finally:
        loop.call_soon_threadsafe(over.set_result, None)
        thread.join(10)
        loop.close()
