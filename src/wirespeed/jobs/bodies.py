"""Bodies in a directory: a file each, whole or not there."""

import functools
import mimetypes
import os
import threading
from pathlib import Path

from ..batch import Result
from .parts import write_all

TEMPORARY = ".wirespeed-body"
"""How the names of files begin that are not whole yet."""
_USUAL = {
    "text/html": ".html",
    "text/plain": ".txt",
    "application/json": ".json",
    "image/jpeg": ".jpg",
    "application/octet-stream": ".bin",
}
"""Where the system's table has several suffixes, or none, or another on another system."""
_NUMBER_WIDTH = 9
"""Digits of a line number, so that names sort: 10**9 lines."""


def write_body(directory: Path, number: int, result: Result) -> str:
    """Write the body of a result to a file of its own.

    It is written under a temporary name and renamed: a file with a body's name is whole.

    Args:
        directory: where to.
        number: of the line, which names the file: nothing in it is the server's or the input's word.
        result: the result.

    Returns:
        The name of the file.

    Raises:
        OSError: it could not be written.
    """
    name = f"{number:0{_NUMBER_WIDTH}}{suffix_of(result.headers.get('Content-Type', ''))}"
    # A thread of a process writes one at a time.
    temporary = directory / f"{TEMPORARY}-{os.getpid()}-{threading.get_ident()}"
    try:
        with open(temporary, "wb", buffering=0) as file:
            write_all(file, result.body)
        os.replace(temporary, directory / name)
    except OSError:
        # A disk that is full has more use for the space.
        temporary.unlink(missing_ok=True)
        raise
    return name


@functools.lru_cache(maxsize=256)
def suffix_of(content_type: str) -> str:
    """The suffix of a file with such a body; `.bin` where nobody knows."""
    kind = content_type.partition(";")[0].strip().lower()
    return _USUAL.get(kind) or mimetypes.guess_extension(kind) or ".bin"
