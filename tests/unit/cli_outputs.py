"""An output folder as runs leave it, written by the storage layer itself: what the read-only commands look at."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.failure import FailureKind
from transforms.records.request import Lane
from transforms.records.row import Outcome
from transforms.storage.arrow_types import AUDIT_SCHEMAS
from transforms.storage.audit_rows import batch_row, call_row, member_rows
from transforms.storage.ledger import SegmentWriter
from transforms.storage.runs import RunFolder, finish_run, start_run
from transforms.storage.tables import ParquetWriter

RUN_1 = "20261121T053412-000001"
RUN_2 = "20261121T063412-000002"
START = datetime(2026, 11, 21, 5, 34, 12, tzinfo=UTC)
JOB = {
    "name": "reviews",
    "input": {"path": "rows.csv", "key": ["id"]},
    "answer": {"field": "label"},
    "model": {"provider": "openai", "name": "gpt-4o-mini"},
    "audit": {"payloads": "full", "redact": []},
}
BODY = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q"}],
}


def request_id(name: str) -> str:
    """Return a request id that looks like one."""
    return (name.encode().hex() * 64)[:64]


def make_call(index: int, request: str, run_id: str = RUN_1, **changes: Any) -> CallRecord:
    """Return a good call of a request; `changes` replace its fields."""
    text = changes.pop("text", '{"label":"good"}')
    answer = {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}
    call = CallRecord(
        call_id=f"b{run_id[-1]}-{index:06d}",
        run_id=run_id,
        batch_id=f"b{run_id[-1]}",
        call_index=index,
        call_type=CallType.LLM,
        custom_id=f"c-{request}",
        request_id=request_id(request),
        root_request_id=request_id(request),
        lane=Lane.MAIN,
        attempt=1,
        status=CallStatus.SUCCESS,
        kind=FailureKind.OK,
        http_status=200,
        provider_request_id=f"req_{index}",
        started_at_us=int(START.timestamp() * 1_000_000) + index,
        latency_ms=512.25,
        waited_ms=0.5,
        request_json=orjson.dumps(BODY).decode(),
        response_json=orjson.dumps(answer).decode(),
        error_json=None,
        provider_name="openai",
        request_model="gpt-4o-mini",
        response_model="gpt-4o-mini-2024-07-18",
        input_tokens=100,
        output_tokens=20,
        cache_read_input_tokens=0,
        cache_write_input_tokens=None,
        reasoning_output_tokens=None,
        finish_reasons=("stop",),
        cost_usd=Decimal("0.0000345"),
        cost_source=CostSource.PRICE_TABLE,
        cost_reason=None,
        prompt_sha256="a" * 64,
        template_sha256="b" * 64,
        variables_sha256="c" * 64,
        lookup_sha256=None,
        text=text,
    )
    return replace(call, **changes)


def row_end(row_id: str, request: str | None, outcome: Outcome, **changes: Any) -> dict[str, Any]:
    """Return a line of the audit table rows."""
    asked = None if request is None else request_id(request)
    line = {
        "row_id": row_id,
        "run_id": RUN_1,
        "request_id": asked,
        "outcome": str(outcome),
        "call_id": None,
        "answered_in_run_id": None,
        "source": "rows.csv:2",
    }
    return line | changes


def write_run(
    output: Path,
    run_id: str = RUN_1,
    *,
    rows: list[dict[str, Any]],
    calls: list[CallRecord] = [],  # noqa: B006 - never changed
    enriched: list[dict[str, Any]] = [],  # noqa: B006
    letters: list[dict[str, Any]] = [],  # noqa: B006
    pending_reasons: list[dict[str, Any]] = [],  # noqa: B006
    finish: bool = True,
) -> RunFolder:
    """Write one run's manifest, ledger segment, audit tables, enriched rows and dead letters."""
    folder = RunFolder(str(output), run_id)
    began = START + timedelta(hours=int(run_id[-1]) - 1)
    start_run(folder, job=JOB, job_sha256="d" * 64, runner="FnApiRunner", started_at=began)
    _write_ledger(output, run_id, calls)
    if not finish:
        return folder
    _write_audit(folder, rows, calls)
    if enriched:
        Path(folder.enriched).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(enriched), f"{folder.enriched}/part.parquet")
    if letters:
        Path(folder.dead_letters).mkdir(parents=True)
        Path(folder.dead_letters, "part.jsonl").write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in letters))
    outcomes = [row["outcome"] for row in rows]
    counts = {name: outcomes.count(name) for name in ("enriched", "dead_lettered", "pending")}
    good = sum(1 for call in calls if call.status is CallStatus.SUCCESS)
    summary = {
        "run_id": run_id,
        "status": "pending" if counts["pending"] else "done",
        "rows": {"in": len(rows), **counts},
        "calls": {"sent": len(calls), "succeeded": good, "failed": len(calls) - good, "reused": 0},
        "tokens": {"input": 100, "output": 20},
        "cost_usd": format(sum((call.cost_usd or Decimal(0) for call in calls), Decimal(0)), "f"),
        "pending_reasons": pending_reasons,
    }
    finish_run(folder, status=summary["status"], summary=summary, ended_at=began + timedelta(seconds=90))
    return folder


def _write_ledger(output: Path, run_id: str, calls: list[CallRecord]) -> None:
    with SegmentWriter(str(output / "ledger" / "answers"), run_id) as segment:
        for opened in _batches(run_id, calls):
            segment.append(opened)
        for call in calls:
            segment.append(call)


def _batches(run_id: str, calls: list[CallRecord]) -> list[BatchOpened]:
    found = []
    for batch_id in dict.fromkeys(call.batch_id for call in calls):
        members = {call.custom_id: call.request_id for call in calls if call.batch_id == batch_id}
        facts = (batch_id, "k" + batch_id, run_id, "per_request", "openai", "gpt-4o-mini", 1)
        found.append(BatchOpened(*facts, members=tuple(members.items())))
    return found


def _write_audit(folder: RunFolder, rows: list[dict[str, Any]], calls: list[CallRecord]) -> None:
    tables: dict[str, list[dict[str, Any]]] = {"rows": rows, "calls": [call_row(call) for call in calls]}
    tables |= {"batches": [], "batch_members": []}
    for opened in _batches(folder.run_id, calls):
        ended = BatchEnded(opened.batch_id, folder.run_id, "completed", 2, len(opened.members), 0, 0)
        tables["batches"].append(batch_row(opened, len(opened.members), ended))
        tables["batch_members"] += member_rows(opened)
    for name, found in tables.items():
        with ParquetWriter(f"{folder.table(name)}/part.parquet", AUDIT_SCHEMAS[name]) as writer:
            writer.extend(found)
