"""Runs with provider batches at rest, written by the storage layer itself: what explain and the summary look at."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.unit.cli_outputs import JOB, RUN_1, RUN_2, START, make_call, request_id
from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.failure import FailureKind
from transforms.storage.arrow_types import ROWS
from transforms.storage.audit_rows import write_tables
from transforms.storage.ledger import SegmentWriter, segments
from transforms.storage.runs import RunFolder, finish_run, start_run
from transforms.storage.tables import ParquetWriter

RUN_3 = "20261121T073412-000003"
BATCH = "bbatch1"
KEY = "5e" * 32
PROVIDER_ID = "batch_abc"

_HOURS = {RUN_1: 0, RUN_2: 1, RUN_3: 2}


def began(run_id: str) -> datetime:
    """Return when a run began."""
    return START + timedelta(hours=_HOURS[run_id])


def at_us(run_id: str, seconds: float) -> int:
    """Return a moment of a run, microseconds since the epoch."""
    return int((began(run_id).timestamp() + seconds) * 1_000_000)


def make_opened(run_id: str = RUN_1, requests: Sequence[str] = ("q1", "q2"), **changes: Any) -> BatchOpened:
    """Return a batch taken up by a run; the members stand with RUN_1, which staged it."""
    members = tuple((f"c-{name}", request_id(name)) for name in requests) if run_id == RUN_1 else ()
    opened = BatchOpened(
        BATCH, KEY, run_id, "provider_batch_api", "openai", "gpt-4o-mini", at_us(run_id, 1), members, len(requests)
    )
    return replace(opened, **changes)


def make_ended(run_id: str, status: str = "submitted", **changes: Any) -> BatchEnded:
    """Return how a run left the batch."""
    pending = 2 if status == "submitted" else 0
    values: dict[str, Any] = {"provider_batch_id": PROVIDER_ID, "input_file_id": "file-in", **changes}
    return BatchEnded(BATCH, run_id, status, at_us(run_id, 60), 2 - pending, 0, pending, **values)


def make_exchange(index: int, what: str, run_id: str = RUN_1, **changes: Any) -> CallRecord:
    """Return an HTTP exchange of the batch."""
    call = make_call(
        index,
        "q1",
        run_id,
        call_id=f"{BATCH}-{index:06d}",
        batch_id=BATCH,
        call_type=CallType.HTTP,
        custom_id=None,
        request_id=None,
        root_request_id=None,
        lane=None,
        started_at_us=at_us(run_id, 2 + index),
        response_json='{"id":"batch_abc"}',
        cost_usd=Decimal(0),
        cost_source=CostSource.NOT_BILLED,
        cost_reason=f"{what} of a batch; providers bill answers only",
        latency_ms=100.0,
        finish_reasons=(),
        input_tokens=None,
        output_tokens=None,
        provider_request_id=f"req_{index}",
    )
    return replace(call, **changes)


def make_failed_exchange(index: int, what: str, run_id: str = RUN_1) -> CallRecord:
    """Return an exchange that got a 500."""
    told = '{"kind":"server_error","message":"try later"}'
    return make_exchange(
        index, what, run_id, status=CallStatus.ERROR, kind=FailureKind.SERVER_ERROR, http_status=500, error_json=told
    )


def make_answer(index: int, request: str, run_id: str = RUN_3, **changes: Any) -> CallRecord:
    """Return the answer of one request of the batch."""
    values: dict[str, Any] = {"call_id": f"{BATCH}-{index:06d}", "batch_id": BATCH, "latency_ms": 7_200_000.0}
    return make_call(index, request, run_id, **{**values, "started_at_us": at_us(RUN_1, 3), **changes})


def write_run(
    output: Path,
    run_id: str,
    *,
    rows: Sequence[dict[str, Any]],
    records: Sequence[BatchOpened | BatchEnded | CallRecord],
    pending_reasons: Sequence[dict[str, Any]] = (),
) -> RunFolder:
    """Write a run: its ledger segment, the audit tables made from that, its rows, manifest and summary."""
    folder = RunFolder(str(output), run_id)
    start_run(folder, job=JOB, job_sha256="d" * 64, runner="FnApiRunner", started_at=began(run_id))
    with SegmentWriter(str(output / "ledger" / "answers"), run_id) as segment:
        for record in records:
            segment.append(record)
    write_tables(folder, segments(str(output / "ledger"), only_run=run_id))
    with ParquetWriter(f"{folder.table('rows')}/part.parquet", ROWS) as writer:
        writer.extend({**row, "run_id": run_id} for row in rows)
    outcomes = [row["outcome"] for row in rows]
    counts = {name: outcomes.count(name) for name in ("enriched", "dead_lettered", "pending")}
    summary = {
        "run_id": run_id,
        "status": "pending" if counts["pending"] else "done",
        "rows": {"in": len(rows), **counts},
        "calls": {"sent": 0, "succeeded": 0, "failed": 0, "reused": 0},
        "tokens": {"input": 0, "output": 0},
        "cost_usd": "0",
        "pending_reasons": list(pending_reasons),
    }
    finish_run(folder, status=summary["status"], summary=summary, ended_at=began(run_id) + timedelta(seconds=90))
    return folder
