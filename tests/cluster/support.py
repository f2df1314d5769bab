"""A server on a thread of its own that remembers what it was asked, and when; and readers of outputs."""

import asyncio
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any


class Recorder:
    """Answers every path with its own text, after a while; a context manager.

    Args:
        delay: seconds before each answer.

    Attributes:
        asked: times (of `time.monotonic`) and paths of all requests.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.asked: list[tuple[float, str]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Recorder":
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(20)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].decode()
                self.asked.append((time.monotonic(), path))
                if self.delay:
                    await asyncio.sleep(self.delay)
                body = path.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def urls(self, count: int) -> list[str]:
        return [f"http://127.0.0.1:{self.port}/{number}" for number in range(1, count + 1)]

    def counts(self) -> Counter[str]:
        return Counter(path for _, path in list(self.asked))


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in path.read_bytes().splitlines()]


def assert_whole(path: Path, count: int) -> None:
    """Each line has one record, with the body that belongs to it."""
    records = records_of(path)
    assert sorted(record["line"] for record in records) == list(range(1, count + 1))
    assert all(record["status"] == 200 and record["body"] == f"/{record['line']}" for record in records)
    assert not path.with_name(path.name + ".partial").exists()
