"""What travels to workers of one run, beside the data."""

from dataclasses import dataclass, field
from typing import Any

from transforms.records.settings import AuditSettings, BatchingSettings, BudgetSettings, ModelSettings, PoolSettings


@dataclass(frozen=True)
class CallSettings:
    """All a worker must know to make calls, without a secret; travels in the pickled stage (P9).

    Attributes:
        dry_run: leave every request pending instead of sending it.
        budget: what may be spent.
        output_limit: tokens of the model's longest answer, for the worst case of requests that send no limit; None where
            it is unknown.
        shared_limits: other processes may make calls of this run too, so the pool's limits are shared with them.
    """

    run_id: str
    ledger: str
    model: ModelSettings
    schema: dict[str, Any] | None
    pool: PoolSettings
    batching: BatchingSettings
    audit: AuditSettings
    dry_run: bool = False
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    output_limit: int | None = None
    shared_limits: bool = False
