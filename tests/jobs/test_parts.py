"""Parts: what was written stays, what is torn goes."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checks import eventually

from wirespeed.jobs import parts
from wirespeed.jobs.lineset import LineSet
from wirespeed.jobs.parts import PartWriter, records, recover, write_all
from wirespeed.jobs.summary import Summary

from .samples import record


def recovered(path: Path) -> tuple[list[int], Summary, int]:
    done, summary = LineSet(), Summary()
    torn = recover(path, done, summary)
    return list(done), summary, torn


def test_a_part_that_is_torn_at_any_byte_keeps_its_whole_records(tmp_path: Path) -> None:
    whole = [record(number, body="bödy\n".encode()) for number in (3, 1, 2)]
    data = b"".join(whole)
    path = tmp_path / "part"
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        ends = [sum(map(len, whole[:count])) for count in range(4)]
        count = sum(end <= size for end in ends) - 1
        done, summary, torn = recovered(path)
        assert done == sorted([3, 1, 2][:count])
        assert summary.done == count
        assert torn == size - ends[count]
        assert path.read_bytes() == data[: ends[count]]


def test_the_time_of_a_torn_part_stays(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(record(1) + b"{")
    os.utime(path, (1000.0, 1000.0))
    assert recovered(path)[2] == 1
    assert path.stat().st_mtime == 1000.0


def test_what_follows_something_else_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(record(1) + bytes(100) + b"\n" + record(2))
    assert recovered(path)[0] == [1]
    assert path.read_bytes() == record(1)


@given(st.permutations(list(range(1, 9))), st.lists(st.integers(0, 8), max_size=3), st.integers(0, 200))
def test_crash_after_crash_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], crashes: list[int], cut: int
) -> None:
    """Records in random order over several sessions, each of which is torn somewhere."""
    path = tmp_path_factory.mktemp("parts")
    written: list[bytes] = []
    for session, count in enumerate([*crashes, len(order)]):
        done = LineSet()
        for part in sorted(path.iterdir()):
            recover(part, done, Summary())
        assert len(done) >= len(written)
        rest = [number for number in order if number not in done][:count]
        data = [record(number) for number in rest]
        torn = b"".join(data)
        if session < len(crashes):
            torn = torn[: max(0, len(torn) - cut)]
        (path / f"part-{session}").write_bytes(torn)
        size = 0
        for raw in data:
            size += len(raw)
            if size <= len(torn):
                written.append(raw)
    found = [raw for part in sorted(path.iterdir()) for raw in records(part)]
    assert found == written
    assert sorted(found) == sorted(record(number) for number in order)


class Slow:
    """A file that takes little at a time, or fails."""

    def __init__(self, path: Path, error_after: int | None = None) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._left = error_after
        self.writes = 0

    def write(self, data: Any, /) -> int | None:
        self.writes += 1
        data = data[:100]
        if self._left is not None:
            if not self._left:
                raise OSError(28, "No space left on device")
            data = data[: self._left]
            self._left -= len(data)
        return self._file.write(data)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


async def test_a_record_is_in_the_file_before_long(tmp_path: Path) -> None:
    path = tmp_path / "part"
    writer = PartWriter(open(path, "ab", buffering=0))  # noqa: SIM115, ASYNC230
    writer.add(record(1))
    writer.add(record(2))
    assert path.read_bytes() == b""
    await eventually(lambda: path.read_bytes() == record(1) + record(2), "records written")
    writer.add(record(3))
    await writer.close()
    await writer.close()
    assert [*records(path)] == [record(1), record(2), record(3)]


async def test_much_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "FLUSH_SIZE", 1000)
    path = tmp_path / "part"
    file = Slow(path)
    writer = PartWriter(file)
    while file.writes == 0:
        writer.add(record(1))
    assert path.stat().st_size >= 1000
    await writer.close()


async def test_a_full_disk_is_told_at_the_next_record_and_keeps_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "part"
    first = record(1)
    writer = PartWriter(Slow(path, len(first) + 10))
    writer.add(first)
    writer.add(record(2))
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    assert writer.error is not None
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    with pytest.raises(OSError, match="No space left"):
        await writer.close()
    await writer.close()
    assert recovered(path)[0] == [1]


async def test_an_error_on_the_timer_is_kept_for_whom_it_concerns(tmp_path: Path) -> None:
    writer = PartWriter(Slow(tmp_path / "part", 0))
    writer.add(record(1))
    await eventually(lambda: writer.error is not None, "an error")
    with pytest.raises(OSError, match="No space left"):
        await writer.close()


async def test_a_part_is_synced_at_times_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(parts, "SYNC_INTERVAL", 0.0)
    monkeypatch.setattr(os, "fsync", synced.append)
    writer = PartWriter(open(tmp_path / "part", "ab", buffering=0))  # noqa: SIM115, ASYNC230
    writer.add(record(1))
    await eventually(lambda: synced, "synced")
    await writer.close()
    assert len(synced) == 2


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = bytes(range(256)) * 2000
    taken = bytearray()
    with open(writing, "wb", buffering=0) as file, open(reading, "rb", buffering=0) as other:

        def take() -> None:
            while len(taken) < len(data):
                taken.extend(other.read(65536))

        thread = threading.Thread(target=take)
        thread.start()
        write_all(file, data)
        thread.join(10)
    assert taken == data
