"""Looking into the pool: figures, timings, leaks, exporters."""

from .observer import Observer as Observer
from .reasons import CloseReason as CloseReason
from .stats import Histogram as Histogram
from .stats import PoolStats as PoolStats
from .stats import Spread as Spread
from .timings import ConnectionInfo as ConnectionInfo
from .timings import Timings as Timings
