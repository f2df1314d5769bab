"""What a job that cannot run, or cannot go on, raises."""


class JobError(Exception):
    """A job could not run, or had to stop; what was written before is not lost.

    Args:
        message: what happened, on what.
        hint: what to do about it; empty where there is nothing to say.

    Attributes:
        message: as given.
        hint: as given.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message
