"""Very many requests at constant memory: `session.batch(requests)`, and what it takes and gives."""

from .api import Batch, Progress
from .request import Request
from .result import BodyTooLarge, Result

__all__ = ["Batch", "BodyTooLarge", "Progress", "Request", "Result"]
