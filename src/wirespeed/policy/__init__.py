"""Traffic policies: they keep faith with the servers, as the limits of a pool protect the client.

Each decides only, and is used in three ways: as a middleware of a session, wirespeed's or aiohttp's own
(`ClientSession(middlewares=[...])`), in a batch, or by hand. `Policies` composes several in one middleware.
"""

from .breaker import CircuitBreaker
from .budget import BudgetFigures, BudgetStats, RetryBudget
from .bulkhead import Bulkhead, BulkheadKeyStats, BulkheadStats
from .circuit import BreakerStats, Cause, CircuitFigures, CircuitState, Reason
from .classify import Classifier
from .errors import BulkheadFull, CircuitOpenError, PolicyError
from .gates import QUEUED, Gate, Metric, Permit, Policy
from .hedge import Hedge, HedgeFigures, HedgeStats
from .outcome import Observation, Outcome
from .passage import Passage, overall, per_origin
from .policies import Policies, PoliciesStats
from .retry import Refusal, Retry, RetryFigures, RetryRecord, RetryState, RetryStats

__all__ = (
    "QUEUED",
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
    "Gate",
    "Hedge",
    "HedgeFigures",
    "HedgeStats",
    "Metric",
    "Observation",
    "Outcome",
    "Passage",
    "Permit",
    "Policies",
    "PoliciesStats",
    "Policy",
    "PolicyError",
    "Reason",
    "Refusal",
    "Retry",
    "RetryBudget",
    "RetryFigures",
    "RetryRecord",
    "RetryState",
    "RetryStats",
    "overall",
    "per_origin",
)
