"""What travels to workers of one run, beside the data."""

from dataclasses import dataclass
from typing import Any

from transforms.records.settings import AuditSettings, BatchingSettings, ModelSettings, PoolSettings


@dataclass(frozen=True)
class CallSettings:
    """All a worker must know to make calls, without a secret; travels in the pickled stage (P9).

    dry_run: leave every request pending instead of sending it.
    """

    run_id: str
    ledger: str
    model: ModelSettings
    schema: dict[str, Any] | None
    pool: PoolSettings
    batching: BatchingSettings
    audit: AuditSettings
    dry_run: bool = False
