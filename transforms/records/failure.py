"""Failures as data: what happened to a row, and what an operator should do about it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """The stage that gave a row up."""

    READ = "read"
    IDENTIFY = "identify"
    RENDER = "render"
    CALL = "call"
    PARSE = "parse"


class FailureKind(StrEnum):
    """What became of a row or a call. Row outcomes of calls follow providers.md 12.3."""

    OK = "ok"
    # reading and rendering
    UNDECODABLE = "undecodable"
    MALFORMED_ROW = "malformed_row"
    DAMAGED_FILE = "damaged_file"
    WRONG_TYPE = "wrong_type"
    MISSING_KEY = "missing_key"
    DUPLICATE_KEY = "duplicate_key"
    MISSING_COLUMN = "missing_column"
    TEMPLATE_ERROR = "template_error"
    # calls
    TRUNCATED = "truncated"
    REFUSAL = "refusal"
    CONTENT_FILTERED = "content_filtered"
    INVALID_OUTPUT = "invalid_output"
    INVALID_RESPONSE = "invalid_response"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"
    CONFLICT = "conflict"
    QUOTA_EXHAUSTED = "quota_exhausted"
    AUTH = "auth"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    REQUEST_TOO_LARGE = "request_too_large"
    # the run's own
    BUDGET = "budget"
    # batches
    ENQUEUED_LIMIT = "enqueued_limit"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    MISSING_RESULT = "missing_result"
    RESULTS_GONE = "results_gone"
    RESULTS_WITHHELD = "results_withheld"
    BATCH_REJECTED = "batch_rejected"


#: Kind by its word; quicker than calling the enum.
KINDS = {str(kind): kind for kind in FailureKind}

#: Kinds that end the whole run: nothing sent after them could succeed (exit 6).
RUN_STOPPING = frozenset({FailureKind.QUOTA_EXHAUSTED, FailureKind.AUTH, FailureKind.PERMISSION, FailureKind.NOT_FOUND})

#: Kinds that another try, now or in a later run, may cure.
RETRYABLE = frozenset(
    {
        FailureKind.INVALID_RESPONSE,
        FailureKind.RATE_LIMITED,
        FailureKind.OVERLOADED,
        FailureKind.SERVER_ERROR,
        FailureKind.TIMEOUT,
        FailureKind.CONNECTION_ERROR,
        FailureKind.CONFLICT,
        FailureKind.ENQUEUED_LIMIT,
        FailureKind.EXPIRED,
        FailureKind.CANCELLED,
        FailureKind.MISSING_RESULT,
        FailureKind.BATCH_REJECTED,
    }
)

#: Kinds of a call whose result stays what it is for the same request: a later run does not ask again.
SETTLED = frozenset(
    {
        FailureKind.OK,
        FailureKind.TRUNCATED,
        FailureKind.REFUSAL,
        FailureKind.CONTENT_FILTERED,
        FailureKind.INVALID_REQUEST,
        FailureKind.CONTEXT_LENGTH_EXCEEDED,
        FailureKind.REQUEST_TOO_LARGE,
    }
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that got no valid answer, in the form of the dead-letter files (DESIGN section 4).

    Attributes:
        row: the whole original row as an object, or the raw text where it could not be read.
        attempts: calls made for it in this run and those it reused; 0 when none was made.
        retryable: another try with the same job may succeed.
        call_id, run_id: the call that settled it and the run that made the call, or None.
    """

    row_id: str
    stage: Stage
    kind: FailureKind
    reason: str
    attempts: int
    retryable: bool
    path: str
    line: int
    row: dict[str, object] | str
    request_id: str | None = None
    call_id: str | None = None
    run_id: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat, see records/request.py."""
        return _letter, (
            self.stage.value,
            self.kind.value,
            self.row_id,
            self.reason,
            self.attempts,
            self.retryable,
            self.path,
            self.line,
            self.row,
            self.request_id,
            self.call_id,
            self.run_id,
        )


def _letter(stage: str, kind: str, row_id: str, *rest: Any) -> DeadLetter:
    return DeadLetter(row_id, Stage(stage), KINDS[kind], *rest)
