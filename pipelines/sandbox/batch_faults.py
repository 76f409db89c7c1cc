"""What goes wrong with batches: the `batch` section of a fault plan, and what is left of its counts.

As text: `batch_lost_create=1,batch_expire_at=0.6`; as YAML: `batch: {lost_create: 1, expire_at: 0.6}`.

Whole numbers are counts ("the next n") unless their line says otherwise; they run down and start anew when a plan is
put in place. What concerns a batch as a whole is fixed when the batch is accepted and stays with it: late_token_limit,
reject, stuck, expire_at, out_of_order and all that is said of result lines. The rest is looked up at
each request.

Kinds of the plan itself (`rate_limit`, `wrong_json`, ...) meet the rows of a batch as they meet requests in real time:
a refused row is a line with its status code in the results; reset, hang, cut_body and slow have no meaning for a row.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]

#: The fields that count down, one per request or batch that meets them.
_COUNTED = (
    "hold_upload", "fail_upload", "lost_create", "hold_create", "hold_before_create", "create_error",
    "late_token_limit", "reject", "stuck", "status_error", "unknown_status", "withheld", "cut_download",
    "hold_download",
)  # fmt: skip


class BatchFaults(BaseModel):
    """The `batch` section of a fault plan.

    Attributes:
        hold_upload: uploads that are stored, and whose reply is held until the client goes away or a release.
        fail_upload: uploads answered 503; nothing is stored.
        lost_create: creates that are accepted, and whose connection is reset before the reply.
        hold_create: creates that are accepted, and whose reply is held until the client goes away or a release.
        hold_before_create: creates that are held before they are accepted; a release lets them go on.
        create_error: creates answered 500 without being accepted.
        unavailable: the status, 404 or 403, that all file and batch endpoints answer; None for none.
        late_token_limit: batches that are accepted and then fail with token_limit_exceeded (providers.md 2.5).
        enqueued_limit: prompt tokens per provider and model that unfinished batches may hold together, not a count; a
            batch that goes over it fails late with token_limit_exceeded.
        fail_fast: Azure says token_limit_exceeded at the create, with a 400, instead of late (providers.md 3.4).
        reject: batches that fail validation, in line `reject_line`.
        reject_line: 1-based line that `reject` names.
        stuck: batches that come half-way and never leave in_progress (cancelling ends them).
        expire_at: share of the rows that is finished when a batch expires; None: batches expire by the clock alone.
        gone: every status check is answered 404.
        status_error: status checks answered 503.
        unknown_status: status checks that say a status nobody knows.
        withheld: status checks of finished batches that are answered 402 without results (OpenRouter).
        missing: share of finished rows that no result mentions.
        duplicate: share of finished rows that have their result twice.
        unknown: share of finished rows beside whose result there is one with an id that nobody sent.
        status_zero: share of finished rows whose result has status 0 and no body; counted as completed, as seen live.
        malformed_line: result lines per batch that are no JSON, in place of a row's result; not a running count.
        out_of_order: rows run, and results come, in an order of their own.
        empty_string_ids: file ids that are not there are empty strings instead of null (OpenAI; Azure always).
        cut_download: downloads whose connection is closed half-way.
        slow_download: bytes per second of downloads; None for no limit.
        hold_download: downloads that stop half-way until the client goes away or a release.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hold_upload: _Count = 0
    fail_upload: _Count = 0
    lost_create: _Count = 0
    hold_create: _Count = 0
    hold_before_create: _Count = 0
    create_error: _Count = 0
    unavailable: Annotated[int, Field(ge=403, le=404)] | None = None
    late_token_limit: _Count = 0
    enqueued_limit: Annotated[int, Field(ge=1)] | None = None
    fail_fast: bool = False
    reject: _Count = 0
    reject_line: Annotated[int, Field(ge=1)] = 1
    stuck: _Count = 0
    expire_at: _Share | None = None
    gone: bool = False
    status_error: _Count = 0
    unknown_status: _Count = 0
    withheld: _Count = 0
    missing: _Share = 0
    duplicate: _Share = 0
    unknown: _Share = 0
    status_zero: _Share = 0
    malformed_line: _Count = 0
    out_of_order: bool = True
    empty_string_ids: bool = False
    cut_download: _Count = 0
    slow_download: Annotated[float, Field(gt=0)] | None = None
    hold_download: _Count = 0


@dataclass(frozen=True, slots=True)
class BatchWhims:
    """The faults that one batch was accepted with.

    Attributes:
        plan: the section in place at acceptance.
        is_late, is_rejected, is_stuck: late_token_limit, reject and stuck chose this batch.
    """

    plan: BatchFaults
    is_late: bool
    is_rejected: bool
    is_stuck: bool


class FaultCounts:
    """A section made ready: its counts run down as they are met."""

    def __init__(self, plan: BatchFaults) -> None:
        self.plan = plan
        self._left: dict[str, int] = {name: getattr(plan, name) for name in _COUNTED}

    def take(self, name: str) -> bool:
        """Tell whether a fault that is counted happens now, and count it down."""
        if self._left[name] <= 0:
            return False
        self._left[name] -= 1
        return True

    def whims(self) -> BatchWhims:
        """Return the faults of a batch that is being accepted."""
        is_rejected = self.take("reject")
        is_late = not is_rejected and self.take("late_token_limit")
        return BatchWhims(self.plan, is_late, is_rejected, self.take("stuck"))
