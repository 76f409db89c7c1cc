"""What the desk keeps: files, batches, and what a batch is at a moment."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipelines.sandbox.batch_clock import ENDED, BatchStatus
from pipelines.sandbox.batch_faults import BatchWhims
from pipelines.sandbox.batch_rows import Dialect, Order, RowProblem, Rows
from pipelines.sandbox.batch_run import Run
from pipelines.sandbox.batch_spool import Spool


class Part(StrEnum):
    """Which results: OpenAI and Azure have an output and an error file, the others all in one."""

    OUTPUT = "output"  # status 200
    ERROR = "error"  # any other status, expired, cancelled
    ALL = "all"


@dataclass(slots=True)
class StoredFile:
    """An uploaded file. extra: what the provider's part wants to find again (expiry)."""

    id: str
    provider: str
    name: str
    purpose: str
    spool: Spool
    created_s: float
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Batch:
    """An accepted batch; `Desk.view` says where it is now.

    Attributes:
        id: prefix given to accept, then 32 hexadecimal digits.
        provider: the dialect's.
        spool: its request lines.
        created_s, expires_s: Unix seconds; expires_s is math.inf for never.
        cancel_s: when it was cancelled, or None.
        problems: why it is rejected; () until the check is done.
        rows: what the check found, None until it is done.
        model: the model of its rows; "" until the check is done.
        whims: the faults it was accepted with.
    """

    id: str
    dialect: Dialect
    spool: Spool
    order: Order
    whims: BatchWhims
    created_s: float
    expires_s: float
    cancel_s: float | None = None
    checked_s: float | None = None
    problems: tuple[RowProblem, ...] = ()
    rows: Rows | None = None
    run: Run | None = None
    check: asyncio.Task[None] | None = None
    is_deleted: bool = False

    @property
    def provider(self) -> str:
        """Whose batch it is."""
        return self.dialect.provider

    @property
    def model(self) -> str:
        """The model of its rows."""
        return self.order.model or (self.rows.model if self.rows else "")


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch at a moment.

    Attributes:
        total: rows in it; 0 until the check is done, and for a rejected batch.
        completed, failed: rows that have run, by outcome; status_zero rows count as completed.
        unfinished: the rest.
        times: Unix seconds at which it came into each of the states it has been in.
        has_output, has_error: whether there is a result of that part; False before the end.
    """

    status: BatchStatus
    total: int
    completed: int
    failed: int
    unfinished: int
    times: dict[BatchStatus, float]
    has_output: bool
    has_error: bool

    @property
    def has_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in ENDED
