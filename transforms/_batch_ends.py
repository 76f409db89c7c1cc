"""The ends of requests that a batch was asked: pure shapes for `_batch_collect`."""

from transforms.records.answer import ModelAnswer
from transforms.records.batch import BatchState
from transforms.records.call import CallRecord
from transforms.records.failure import FailureKind
from transforms.records.reply import Reply
from transforms.records.request import ModelRequest
from transforms.records.usage import Usage
from transforms.storage.batch_entry import Ended, Handle


def state_of(handle: Handle, ended: Ended) -> BatchState:
    """Return the terminal state that the ledger keeps, for fetching its results."""
    return BatchState(
        handle.provider_batch_id,
        ended.status,
        ended.raw_status,
        total=ended.total,
        completed=ended.completed,
        failed=ended.failed,
        output_file_id=ended.output_file_id,
        error_file_id=ended.error_file_id,
        results_url=ended.results_url,
        has_inline_results=ended.has_inline_results,
    )


def answered(request: ModelRequest, reply: Reply, reason: str | None, record: CallRecord) -> ModelAnswer:
    """Return the end of a request that was answered; reason: why the answer is not OK, if it is not."""
    return ModelAnswer(
        request, reply.kind, reply.text, reason, 1, record.call_id, record.run_id, False,
        reply.response_model, reply.usage, record.cost_usd,
    )  # fmt: skip


def failed(
    request: ModelRequest, kind: FailureKind, reason: str, record: CallRecord | None, run_id: str
) -> ModelAnswer:
    """Return the end of a request that failed, with the call that settled it, if there was one."""
    call_id, cost = (None, None) if record is None else (record.call_id, record.cost_usd)
    return ModelAnswer(
        request, kind, None, reason, 1, call_id, run_id if call_id else None, False, None, Usage(), cost,
    )  # fmt: skip
