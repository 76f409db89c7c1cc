"""What travels about provider batches: references to files, states of batches, and lines of their results.

A batch's requests and results stay in files; these records are small whatever the batch holds. They pickle flat
enough as they are: there is one per batch, not one per row.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpResponse


class BatchStatus(StrEnum):
    """What a provider's batch is doing, in our words (providers.md 12.2); the provider's own word is kept beside it."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    GONE = "gone"


#: States that a batch never leaves; its results, whatever there are, can be fetched. GONE: the provider knows no such
#: batch any more, or has deleted its results.
TERMINAL = frozenset(
    {
        BatchStatus.COMPLETED,
        BatchStatus.REJECTED,
        BatchStatus.FAILED,
        BatchStatus.EXPIRED,
        BatchStatus.CANCELLED,
        BatchStatus.GONE,
    }
)


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """One reason why a provider rejected a batch. line: 1-based line of the request file, or None."""

    code: str | None
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as its provider describes it.

    Attributes:
        provider_batch_id: the provider's id.
        status: in our words; raw_status: the provider's; is_known: False when the provider's word was new to us
            (status is then RUNNING).
        total, completed, failed: requests; None where the provider gives no count now (Anthropic before the end).
        created_at_s, expires_at_s: Unix seconds, or None.
        input_file_id, output_file_id, error_file_id: None where there is none (an empty string counts as none).
        results_url: where results are (Anthropic), or None.
        problems: why the whole batch was rejected.
        metadata: what we gave at creation, where the provider keeps it.
        model: the one model of the batch, where the provider says it.
        withheld: why the provider holds finished results back (OpenRouter's 402), or None. Not terminal: ask again.
        has_inline_results: the status reply itself holds the results (OpenRouter).
    """

    provider_batch_id: str
    status: BatchStatus
    raw_status: str
    is_known: bool = True
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    created_at_s: float | None = None
    expires_at_s: float | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    results_url: str | None = None
    problems: tuple[BatchProblem, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    withheld: str | None = None
    has_inline_results: bool = False

    @property
    def is_terminal(self) -> bool:
        """Whether the batch never changes again and nothing of it is withheld."""
        return self.status in TERMINAL and self.withheld is None


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One line of a batch's results.

    Exactly one of response and error is set, unless the line can't be read at all: then custom_id is None and
    error says why.

    Attributes:
        custom_id: which request it answers.
        response: the row's HTTP response, to be read by the provider like one in real time.
        error: what came instead of a response: expired, cancelled, a failure without an HTTP status.
        provider_request_id: the provider's id of the row's exchange, or None.
    """

    custom_id: str | None
    response: HttpResponse | None
    error: CallError | None
    provider_request_id: str | None = None


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold, headroom taken off already. max_requests, max_bytes: of the whole request file."""

    max_requests: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class BatchRef:
    """A staged batch: what travels between the batch stages.

    Attributes:
        batch_key: hash of its request ids, provider and model; names its files in the ledger.
        batch_id: its execution record in the audit; made by the run that staged it.
        staged_run_id: that run.
        asked_path: file with this run's requests of the batch (`storage/asked_file.py`).
        request_count, byte_count: of the request file.
        token_estimate: prompt tokens of all its requests, estimated.
        is_adopted: an earlier run staged it; this run picks it up.
    """

    batch_key: str
    batch_id: str
    staged_run_id: str
    asked_path: str
    request_count: int
    byte_count: int
    token_estimate: int
    is_adopted: bool = False


class Turn(StrEnum):
    """Where a batch stands between the batch stages."""

    WAITING = "waiting"
    UNSENT = "unsent"
    LEFT = "left"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class BatchTurn:
    """A batch on its way through the stages.

    Attributes:
        turn: WAITING: to be watched (submitted, held back, or in doubt). UNSENT: nothing of it ran and nothing will:
            its requests go another way. LEFT: it stays with the provider, the next run takes it up. ENDED: its
            results can be collected.
        reason: one sentence for people, for UNSENT and LEFT.
        kind: for LEFT: the refusal that stops the run, or None.
        next_index: the call_index of the batch's next call, for whichever process makes it; 0 where that is not told.
    """

    ref: BatchRef
    turn: Turn
    reason: str = ""
    kind: FailureKind | None = None
    next_index: int = 0
