"""Jobs: requests from a file, through a batch, to an output that survives crashes."""

from .errors import JobError
from .job import Job, OpenJob, Report, run
from .lines import Line, read
from .sending import run_part
from .settings import Settings
from .summary import Summary

__all__ = ["Job", "JobError", "Line", "OpenJob", "Report", "Settings", "Summary", "read", "run", "run_part"]
