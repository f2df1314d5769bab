"""Lines on their way into a batch: one at a time, never waited for in the loop, and ended when asked."""

import asyncio
import os
import queue
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.checks import eventually

from wirespeed.batch import Request
from wirespeed.jobs.intake import AHEAD_MAX, Intake, Waiting
from wirespeed.jobs.lines import Line

from .samples import line


def test_results_find_their_lines_and_bad_lines_keep_their_place() -> None:
    lines = [line(2), Line(5, None, "no host"), line(9)]
    intake = Intake(lines)
    taken = list(intake.requests())
    assert taken == [lines[0].request, lines[1], lines[2].request]
    assert intake.has_ended
    assert not intake.is_done
    assert [intake.pop(index).number for index in (2, 0, 1)] == [9, 2, 5]
    assert intake.is_done


def test_a_stopped_intake_gives_no_more_and_is_not_done() -> None:
    intake = Intake([line(1), line(2), line(3)])
    requests = intake.requests()
    next(requests)
    intake.stop()
    assert list(requests) == []
    intake.pop(0)
    assert not intake.is_done


async def test_lines_that_come_late_are_waited_for_without_the_loop() -> None:
    given: queue.Queue[Line | None] = queue.Queue()
    intake = Intake(Waiting(iter(given.get, None)))
    taken: list[Any] = []

    async def take() -> None:
        async for request in intake.requests():
            taken.append(request)

    taking = asyncio.ensure_future(take())
    for number in range(1, 4):
        await asyncio.sleep(0.01)
        given.put(line(number))
        await eventually(lambda count=number: len(taken) == count, "taken")  # type: ignore[misc]
    given.put(None)
    await taking
    assert [type(request) for request in taken] == [Request] * 3
    assert intake.has_ended


async def test_no_more_is_read_ahead_than_there_is_room_for() -> None:
    numbers: list[int] = []

    def lines() -> Iterator[Line]:
        for number in range(1, 5000):
            numbers.append(number)
            yield line(number)

    intake = Intake(Waiting(lines()))
    requests = intake.requests()
    await anext(requests)
    await eventually(lambda: len(numbers) > AHEAD_MAX, "read ahead")
    await asyncio.sleep(0.05)
    assert len(numbers) <= AHEAD_MAX + 2
    count = 1
    async for _ in requests:
        count += 1
    assert count == 4999
    await eventually(lambda: not any(thread.name == "wirespeed-input" for thread in threading.enumerate()))


async def test_a_stop_ends_the_wait_for_a_line() -> None:
    given: queue.Queue[Line | None] = queue.Queue()
    intake = Intake(Waiting(iter(given.get, None)))

    async def take() -> list[Any]:
        return [request async for request in intake.requests()]

    taking = asyncio.ensure_future(take())
    await asyncio.sleep(0.02)
    intake.stop()
    assert await taking == []
    assert not intake.has_ended
    given.put(None)


async def test_what_reading_raises_comes_after_the_lines_before() -> None:
    def lines() -> Iterator[Line]:
        yield line(1)
        raise OSError("gone")

    requests = Intake(Waiting(lines())).requests()
    assert await anext(requests) == line(1).request
    with pytest.raises(OSError, match="gone"):
        await anext(requests)


@pytest.mark.skipif(sys.platform == "win32", reason="of pipes")
def test_a_process_ends_while_its_input_is_waited_for() -> None:
    program = """
        import asyncio
        from wirespeed.jobs.inputs import Source
        from wirespeed.jobs.intake import Intake, Waiting

        async def main():
            requests = Intake(Waiting(Source("-", method="GET", dedup=False).lines())).requests()
            print((await anext(requests)).url)

        asyncio.run(main())
    """
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(reading)
        os.write(writing, b"http://host/\n")
        out, err = process.communicate(timeout=30)
    finally:
        os.close(writing)
    assert (out, err, process.returncode) == (b"http://host/\n", b"", 0)
