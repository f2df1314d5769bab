"""Parts that somebody began and did not end: a worker that died, or a session that was killed.

A shard's records are in `shard-NAME.WRITER.writing` until it is done; then the file is renamed, and is a
part. Whoever goes on with it takes the file away first. A writer that was only taken for dead goes on writing
to a file that nobody reads, and has nothing to rename in the end: what it did is done again, and counts once.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "shard-"
_WRITING = ".writing"
_HELD = ".held"


def new_writing(directory: Path, shard: str) -> Path:
    """Where somebody is to write the records of a shard: a name that nobody else has."""
    return directory / f"{_PREFIX}{shard}.{uuid.uuid4().hex[:12]}{_WRITING}"


def part_of(directory: Path, shard: str) -> Path:
    """Where the records of a shard are when it is done."""
    return directory / f"part-{shard}.ndjson"


def leftovers(directory: Path, shard: str = "*") -> list[Path]:
    """The files that somebody began, of one shard or of all."""
    found = (directory.glob(f"{_PREFIX}{shard}.*{mark}") for mark in (_WRITING, _HELD))
    return sorted(path for paths in found for path in paths)


def adopt(directory: Path, shard: str, target: Path) -> None:
    """Append the whole records of what others began to a file, and remove what they began.

    A crash on the way leaves records twice, never none: whoever reads parts counts each line once.

    Args:
        directory: of the state.
        shard: whose.
        target: where to; not made where there is nothing to adopt. One of the leftovers it is not.

    Raises:
        OSError: the records could not be read or written.
    """
    for path in leftovers(directory, shard):
        if path == target or (held := _hold(path)) is None:
            continue
        with open(target, "ab") as file:
            file.writelines(_whole(held))
        written = held.stat()
        # Of the last record, which sessions are told apart by.
        os.utime(target, ns=(written.st_atime_ns, written.st_mtime_ns))
        held.unlink()


def adopt_all(directory: Path) -> None:
    """Make parts of all that earlier sessions left. Only for who has the lock.

    Raises:
        OSError: see `adopt`.
    """
    for shard in {path.name.removeprefix(_PREFIX).partition(".")[0] for path in leftovers(directory)}:
        adopt(directory, shard, part_of(directory, f"{shard}.{uuid.uuid4().hex[:12]}"))


def remove_all(directory: Path) -> None:
    """Remove all that earlier sessions left."""
    for path in leftovers(directory):
        path.unlink(missing_ok=True)


def _hold(path: Path) -> Path | None:
    """Take a file away from its writer; None where somebody was faster, or the system does not let go."""
    if path.suffix == _HELD:
        return path
    held = path.with_name(path.name + _HELD)
    with contextlib.suppress(FileNotFoundError, PermissionError):
        os.rename(path, held)
        return held
    return None


def _whole(path: Path) -> Iterator[bytes]:
    """The records of a file but for the last, torn one."""
    with open(path, "rb") as file:
        yield from (raw for raw in file if raw.endswith(b"\n"))
