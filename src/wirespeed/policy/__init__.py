"""Traffic policies: they keep faith with the servers, as the limits of a pool protect the client.

Each decides only. It is a middleware of sessions, wirespeed's or aiohttp's own
(`ClientSession(middlewares=[...])`), and can be driven by hand. `Policies` composes several in one.
"""

from .adaptive import AdaptiveConcurrency, AdaptiveFigures
from .aimd import AIMD
from .breaker import CircuitBreaker
from .budget import BudgetFigures, RetryBudget
from .bulkhead import Bulkhead
from .circuit import Cause, CircuitFigures, CircuitState, Reason
from .classify import Classifier
from .errors import AdaptiveLimitFull, BulkheadFull, CircuitOpenError, PolicyError, QueueFull, RateExceeded
from .gates import QUEUED, Gate, Metric, Permit, Policy
from .gradient import Gradient2
from .hedge import Hedge, HedgeFigures
from .keyed import KeyedStats
from .limits import LimitAlgorithm, LimitReason
from .outcome import Observation, Outcome
from .pacing import Algorithm, FixedWindow, LeakyBucket, SlidingWindow, TokenBucket
from .passage import Passage, overall, per_origin
from .policies import Policies, PoliciesStats
from .queueing import SlotFigures
from .rate import RateFigures, RateLimit
from .retry import Refusal, Retry, RetryFigures, RetryRecord, RetryState

__all__ = (
    "AIMD",
    "QUEUED",
    "AdaptiveConcurrency",
    "AdaptiveFigures",
    "AdaptiveLimitFull",
    "Algorithm",
    "BudgetFigures",
    "Bulkhead",
    "BulkheadFull",
    "Cause",
    "CircuitBreaker",
    "CircuitFigures",
    "CircuitOpenError",
    "CircuitState",
    "Classifier",
    "FixedWindow",
    "Gate",
    "Gradient2",
    "Hedge",
    "HedgeFigures",
    "KeyedStats",
    "LeakyBucket",
    "LimitAlgorithm",
    "LimitReason",
    "Metric",
    "Observation",
    "Outcome",
    "Passage",
    "Permit",
    "Policies",
    "PoliciesStats",
    "Policy",
    "PolicyError",
    "QueueFull",
    "RateExceeded",
    "RateFigures",
    "RateLimit",
    "Reason",
    "Refusal",
    "Retry",
    "RetryBudget",
    "RetryFigures",
    "RetryRecord",
    "RetryState",
    "SlidingWindow",
    "SlotFigures",
    "TokenBucket",
    "overall",
    "per_origin",
)
