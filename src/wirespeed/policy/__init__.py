"""Traffic policies: they keep faith with the servers, as the limits of a pool protect the client.

Each decides only. It is a middleware of sessions, wirespeed's or aiohttp's own
(`ClientSession(middlewares=[...])`), and can be driven by hand. `Policies` composes several in one.
"""

from .adaptive import AdaptiveConcurrency, AdaptiveKeyStats, AdaptiveStats
from .aimd import AIMD
from .breaker import CircuitBreaker
from .budget import BudgetFigures, BudgetStats, RetryBudget
from .bulkhead import Bulkhead, BulkheadKeyStats, BulkheadStats
from .circuit import BreakerStats, Cause, CircuitFigures, CircuitState, Reason
from .classify import Classifier
from .errors import AdaptiveLimitFull, BulkheadFull, CircuitOpenError, PolicyError, QueueFull, RateExceeded
from .gates import QUEUED, Gate, Metric, Permit, Policy
from .gradient import Gradient2
from .hedge import Hedge, HedgeFigures, HedgeStats
from .limits import LimitAlgorithm, LimitReason
from .outcome import Observation, Outcome
from .pacing import Algorithm, FixedWindow, LeakyBucket, SlidingWindow, TokenBucket
from .passage import Passage, overall, per_origin
from .policies import Policies, PoliciesStats
from .rate import RateFigures, RateLimit, RateStats
from .retry import Refusal, Retry, RetryFigures, RetryRecord, RetryState, RetryStats

__all__ = (
    "AIMD",
    "QUEUED",
    "AdaptiveConcurrency",
    "AdaptiveKeyStats",
    "AdaptiveLimitFull",
    "AdaptiveStats",
    "Algorithm",
    "BreakerStats",
    "BudgetFigures",
    "BudgetStats",
    "Bulkhead",
    "BulkheadFull",
    "BulkheadKeyStats",
    "BulkheadStats",
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
    "HedgeStats",
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
    "RateStats",
    "Reason",
    "Refusal",
    "Retry",
    "RetryBudget",
    "RetryFigures",
    "RetryRecord",
    "RetryState",
    "RetryStats",
    "SlidingWindow",
    "TokenBucket",
    "overall",
    "per_origin",
)
