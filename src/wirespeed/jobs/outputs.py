"""Where the records of a job end up: made of its parts, all at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class Output:
    """An output. Made by `output_of`.

    Attributes:
        kind: "ndjson", "parquet", "directory" or "stdout".
        path: as given.
        bodies: the directory that bodies are written to while the job runs; None for bodies in the records.
    """

    kind: ClassVar[str]
    path: Path
    bodies: Path | None = None

    def check(self) -> None:
        """See that it can be written; called before anything is sent.

        Raises:
            JobError: it cannot, or a package is missing.
        """
        raise NotImplementedError

    def finish(self, parts: Sequence[Path], *, ordered: bool = False) -> None:
        """Make the output of the parts; it appears whole or not at all. The parts stay.

        Args:
            parts: the parts of the job.
            ordered: by line number; each part is already.

        Raises:
            JobError: it could not be written.
        """
        raise NotImplementedError


def output_of(where: str) -> Output:
    """The output that is meant by a name.

    `*.parquet` is Parquet, an existing directory or a name with a slash at the end a directory of bodies, `-`
    the standard output, anything else NDJSON.
    """
    raise NotImplementedError
