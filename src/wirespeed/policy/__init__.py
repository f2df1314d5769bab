"""Traffic policies: they keep faith with the servers, as the limits of a pool protect the client.

Each decides only, and is used in three ways: as a middleware of a session, wirespeed's or aiohttp's own
(`ClientSession(middlewares=[...])`), in a batch, or by hand. `Policies` composes several in one middleware.
"""

from .budget import BudgetFigures, BudgetStats, RetryBudget
from .bulkhead import Bulkhead, BulkheadKeyStats, BulkheadStats
from .classify import Classifier
from .errors import BulkheadFull, PolicyError
from .gates import QUEUED, Gate, Metric, Permit, Policy
from .hedge import Hedge, HedgeFigures, HedgeStats
from .outcome import Observation, Outcome
from .passage import Passage, overall, per_origin
from .policies import Policies, PoliciesStats
from .retry import Refusal, Retry, RetryFigures, RetryRecord, RetryState, RetryStats

__all__ = (
    "QUEUED",
    "BudgetFigures",
    "BudgetStats",
    "Bulkhead",
    "BulkheadFull",
    "BulkheadKeyStats",
    "BulkheadStats",
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
