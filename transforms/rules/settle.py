"""How a row ends: what its request's end makes of it."""

from typing import Any

from transforms.records.answer import PendingRequest, RequestResult
from transforms.records.failure import RETRYABLE, DeadLetter, FailureKind, Stage
from transforms.records.row import AskedRow, Outcome, RowOutcome
from transforms.rules.answer_columns import AnswerColumns


def enriched_row(asked: AskedRow, result: RequestResult, columns: AnswerColumns) -> dict[str, Any]:
    """Return the input's columns and the answer's."""
    return {**asked.row.values, **columns.values(result, asked.variables_sha256, asked.row.row_id)}


def enriched_outcome(asked: AskedRow, result: RequestResult) -> RowOutcome:
    """Return the outcome of a row that got a checked answer."""
    row = asked.row
    return RowOutcome(
        row.row_id, row.path, row.line, Outcome.ENRICHED, result.request_id, result.call_id, result.run_id
    )


def pending_outcome(asked: AskedRow, pending: PendingRequest) -> RowOutcome:
    """Return the outcome of a row whose request was left unsent."""
    row = asked.row
    return RowOutcome(row.row_id, row.path, row.line, Outcome.PENDING, pending.root_request_id, reason=pending.reason)


def dead_letter(asked: AskedRow, result: RequestResult) -> DeadLetter:
    """Return the dead letter of a row whose request failed."""
    row = asked.row
    return DeadLetter(
        row_id=row.row_id,
        stage=result.stage or Stage.CALL,
        kind=result.kind,
        reason=result.reason or str(result.kind),
        attempts=result.attempts,
        retryable=result.kind in RETRYABLE,
        path=row.path,
        line=row.line,
        row=row.values,
        request_id=result.request_id,
        call_id=result.call_id,
        run_id=result.run_id,
    )


def lost_outcome(failure: DeadLetter) -> RowOutcome:
    """Return the outcome of a dead-lettered row."""
    # What fits no batch was put into none, so no table of the audit knows the request.
    is_unknown = failure.kind is FailureKind.REQUEST_TOO_LARGE and failure.call_id is None
    return RowOutcome(
        failure.row_id,
        failure.path,
        failure.line,
        Outcome.DEAD_LETTERED,
        None if is_unknown else failure.request_id,
        failure.call_id,
        failure.run_id,
    )


def kept_row(failure: DeadLetter, columns: AnswerColumns) -> dict[str, Any]:
    """Return the enriched row of a row that could be read but never became a request (`on_failure: keep`)."""
    values = failure.row if isinstance(failure.row, dict) else {}
    return {**values, **columns.failed(failure.kind, failure.reason, failure.row_id)}


def is_failed(result: RequestResult) -> bool:
    """Say whether a result is a failure."""
    return result.kind is not FailureKind.OK
