"""The rows of the audit tables, and the audit of a run that was killed, made from its ledger alone.

Every reference resolves: a call's batch_id and run_id, a member's batch_id and request_id.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallType
from transforms.records.errors import InternalError
from transforms.records.failure import SETTLED, FailureKind
from transforms.records.row import RowOutcome
from transforms.rules.run_totals import CallTotals
from transforms.storage.arrow_types import BATCH_MEMBERS, BATCHES, CALLS
from transforms.storage.ledger import read_segment, segments
from transforms.storage.objects import join, list_files, remove
from transforms.storage.parts import drop_pending
from transforms.storage.runs import CRASHED, RUNNING, RunFolder, close_run, read_manifest
from transforms.storage.tables import ParquetWriter

#: Status of a batch that was taken up and never ended.
INTERRUPTED = "interrupted"

_SEALED = "sealed.parquet"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def call_row(record: CallRecord) -> dict[str, Any]:
    """Return the row of the audit table calls; times are microseconds since the epoch."""
    return {
        "call_id": record.call_id,
        "run_id": record.run_id,
        "batch_id": record.batch_id,
        "call_index": record.call_index,
        "call_type": record.call_type,
        "custom_id": record.custom_id,
        "request_id": record.request_id,
        "root_request_id": record.root_request_id,
        "lane": record.lane,
        "attempt": record.attempt,
        "status": record.status,
        "outcome": record.kind,
        "http_status": record.http_status,
        "provider_request_id": record.provider_request_id,
        "started_at": record.started_at_us,
        "latency_ms": record.latency_ms,
        "waited_ms": record.waited_ms,
        "request_json": record.request_json,
        "response_json": record.response_json,
        "error_json": record.error_json,
        "provider_name": record.provider_name,
        "request_model": record.request_model,
        "response_model": record.response_model,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "cache_read_input_tokens": record.cache_read_input_tokens,
        "cache_write_input_tokens": record.cache_write_input_tokens,
        "reasoning_output_tokens": record.reasoning_output_tokens,
        "finish_reasons": record.finish_reasons,
        "cost_usd": record.cost_usd,
        "cost_source": record.cost_source,
        "cost_reason": record.cost_reason,
        "prompt_sha256": record.prompt_sha256,
        "template_sha256": record.template_sha256,
        "variables_sha256": record.variables_sha256,
        "lookup_sha256": record.lookup_sha256,
    }


def batch_row(
    opened: BatchOpened, request_count: int, ended: BatchEnded | None, succeeded: int = 0, failed: int = 0
) -> dict[str, Any]:
    """Return the row of the audit table batches.

    Args:
        opened: the batch; its members are not looked at.
        request_count: how many there are.
        ended: its end, with the counts; None: the batch was INTERRUPTED, and what did not end is pending.
        succeeded: how many of an interrupted batch's requests were answered.
        failed: how many of them failed.
    """
    return {
        "batch_id": opened.batch_id,
        "run_id": opened.run_id,
        "batch_key": opened.batch_key,
        "mode": opened.mode,
        "provider_name": opened.provider_name,
        "request_model": opened.request_model,
        "provider_batch_id": ended.provider_batch_id if ended else None,
        "input_file_id": ended.input_file_id if ended else None,
        "output_file_id": ended.output_file_id if ended else None,
        "error_file_id": ended.error_file_id if ended else None,
        "status": ended.status if ended else INTERRUPTED,
        "submitted_at": opened.submitted_at_us,
        "ended_at": ended.ended_at_us if ended else None,
        "request_count": request_count,
        "succeeded_count": ended.succeeded if ended else succeeded,
        "failed_count": ended.failed if ended else failed,
        "pending_count": ended.pending if ended else request_count - succeeded - failed,
    }


def member_rows(opened: BatchOpened) -> list[dict[str, Any]]:
    """Return the rows of the audit table batch_members, in sending order."""
    return [
        {"batch_id": opened.batch_id, "ordinal": ordinal, "custom_id": custom_id, "request_id": request_id}
        for ordinal, (custom_id, request_id) in enumerate(opened.members)
    ]


def row_row(outcome: RowOutcome, run_id: str) -> dict[str, Any]:
    """Return the row of the audit table rows; its source reads path:line."""
    return {
        "row_id": outcome.row_id,
        "run_id": run_id,
        "request_id": outcome.request_id,
        "outcome": outcome.outcome,
        "call_id": outcome.call_id,
        "answered_in_run_id": outcome.answered_in_run_id,
        "source": f"{outcome.path}:{outcome.line}",
    }


def seal_run(output: str, run_id: str) -> dict[str, Any]:
    """Give a run that was killed its audit tables, and a manifest and summary of status "crashed".

    Ask while holding the lease. Sealing again writes the same files. What the run's own stages had written of the
    tables calls, batches and batch_members is replaced; its enriched rows and dead letters stay as they are, listed
    in the manifest. latest.json is left alone.

    Returns:
        What was found: {"calls", "batches", "interrupted", "cost_usd" (text)}.

    Raises:
        InternalError: the run ended by itself, or its ledger or manifest is damaged.
        FileNotFoundError: there is no such run.
    """
    folder = RunFolder(output, run_id)
    manifest = read_manifest(folder)
    if manifest["status"] not in (RUNNING, CRASHED):
        raise InternalError(f"run {run_id} ended with status {manifest['status']}; only a killed run can be sealed")
    for table in (folder.enriched, folder.dead_letters, folder.table("rows"), folder.table("calls")):
        drop_pending(table)
    story = write_tables(folder, segments(join(output, "ledger"), only_run=run_id))
    started_at = datetime.fromisoformat(manifest["started_at"])
    ended_at = max(started_at, _EPOCH + timedelta(microseconds=story.last_us))
    close_run(folder, status=CRASHED, summary=_summary(run_id, story.totals), ended_at=ended_at)
    return {
        "calls": story.totals.sent,
        "batches": story.batch_count,
        "interrupted": story.interrupted_count,
        "cost_usd": format(story.totals.cost_usd, "f"),
    }


def _summary(run_id: str, totals: CallTotals) -> dict[str, Any]:
    is_cost_known = totals.unknown_cost < totals.sent or totals.sent == 0
    return {
        "run_id": run_id,
        "status": CRASHED,
        "rows": dict.fromkeys(("in", "enriched", "dead_lettered", "pending")),
        "calls": {"sent": totals.sent, "succeeded": totals.succeeded, "failed": totals.failed, "reused": None},
        "tokens": {"input": totals.input_tokens, "output": totals.output_tokens},
        "cost_usd": format(totals.cost_usd, "f") if is_cost_known else None,
        "calls_of_unknown_cost": totals.unknown_cost,
    }


def _when(ended: BatchEnded) -> int:
    return ended.ended_at_us


@dataclass(slots=True)
class _Batch:
    """What is known of one batch so far; `opened` goes without its members, which would fill the memory."""

    opened: BatchOpened | None = None
    request_count: int = 0
    ended: BatchEnded | None = None
    succeeded: int = 0
    failed: int = 0


class Story:
    """A run's ledger read in order: keeps sums and batches, and writes members, and calls if told where, as they come."""

    def __init__(self, members: ParquetWriter, calls: ParquetWriter | None = None) -> None:
        self.totals = CallTotals()
        self.last_us = 0
        self._batches: defaultdict[str, _Batch] = defaultdict(_Batch)
        self._calls = calls
        self._members = members

    def take(self, record: CallRecord | BatchOpened | BatchEnded) -> None:
        """Take the next record."""
        match record:
            case CallRecord():
                self._take_call(record)
            case BatchOpened():
                self._take_opened(record)
            case BatchEnded():
                self._take_ended(record)

    @property
    def batch_count(self) -> int:
        """How many batches were taken up."""
        return len(self._batches)

    @property
    def interrupted_count(self) -> int:
        """How many of them never ended."""
        return sum(1 for batch in self._batches.values() if batch.ended is None)

    def batch_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the table batches, when all records are taken."""
        for batch_id, batch in self._batches.items():
            if batch.opened is None:
                raise InternalError(
                    f"the ledger holds calls of batch {batch_id} but not the batch; put back the segment that is missing"
                )
            yield batch_row(batch.opened, batch.request_count, batch.ended, batch.succeeded, batch.failed)

    def _take_call(self, record: CallRecord) -> None:
        if self._calls is not None:
            self._calls.append(call_row(record))
        self.totals.add(record)
        self._see(record.started_at_us + round(record.latency_ms * 1000))
        batch = self._batches[record.batch_id]
        if record.call_type is CallType.HTTP:
            return
        if record.kind is FailureKind.OK:
            batch.succeeded += 1
        elif record.kind in SETTLED:
            batch.failed += 1

    def _take_opened(self, record: BatchOpened) -> None:
        batch = self._batches[record.batch_id]
        if batch.opened is None:
            self._see(record.submitted_at_us)
            self._members.extend(member_rows(record))
            batch.opened = replace(record, members=())
            batch.request_count = len(record.members) if record.request_count is None else record.request_count

    def _take_ended(self, record: BatchEnded) -> None:
        batch = self._batches[record.batch_id]
        batch.ended = record if batch.ended is None else max(batch.ended, record, key=_when)
        self._see(record.ended_at_us)

    def _see(self, moment_us: int) -> None:
        self.last_us = max(self.last_us, moment_us)


def write_tables(folder: RunFolder, paths: list[str]) -> Story:
    """Write the tables calls, batches and batch_members from segments, in place of whatever was there."""
    with (
        ParquetWriter(_sealed(folder, "calls"), CALLS) as calls,
        ParquetWriter(_sealed(folder, "batch_members"), BATCH_MEMBERS) as members,
        ParquetWriter(_sealed(folder, "batches"), BATCHES) as batches,
    ):
        story = Story(members, calls)
        for path in paths:
            for record in read_segment(path):
                story.take(record)
        batches.extend(story.batch_rows())
    for table in ("calls", "batch_members", "batches"):
        for path in list_files(folder.table(table)):
            if path != _sealed(folder, table):
                remove(path)
    return story


def _sealed(folder: RunFolder, table: str) -> str:
    return join(folder.table(table), _SEALED)
