"""Outputs of runs for the tests of facts and diffs: any job, any rows, written by the storage layer itself."""

from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.cli_outputs import JOB, RUN_1, START, make_call, request_id, row_end
from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus
from transforms.records.failure import FailureKind
from transforms.records.row import Outcome
from transforms.storage.arrow_types import AUDIT_SCHEMAS
from transforms.storage.audit_rows import batch_row, call_row
from transforms.storage.runs import RunFolder, finish_run, start_run
from transforms.storage.tables import ParquetWriter


def facts_job(schema: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a job whose answers have this schema; None: plain text."""
    return {**JOB, "answer": {"field": "label", "schema": schema, "python": None}, **changes}


def answered(
    run_id: str,
    name: str,
    answer: Any,
    index: int,
    request: str | None = None,
    call: bool = True,
    template: str = "t1",
    **changes: Any,
) -> tuple[CallRecord | None, dict[str, Any], dict[str, Any]]:
    """Return the call, the outcome and the enriched row of a row that was answered; no call where it was reused."""
    asked = request or name
    made = make_call(index, asked, run_id, batch_id=f"b{run_id[-1]}", **changes) if call else None
    end = row_end(name, asked, Outcome.ENRICHED, run_id=run_id, answered_in_run_id=run_id if call else RUN_1)
    row = {"id": name, "label": answer, "label_template_hash": template, "label_request_id": request_id(asked)}
    return made, end, row


def died(
    run_id: str, name: str, kind: FailureKind, index: int, **changes: Any
) -> tuple[CallRecord, dict[str, Any], dict[str, Any]]:
    """Return the call, the outcome and the dead letter of a row that got no answer."""
    reply = kind in (FailureKind.TRUNCATED, FailureKind.REFUSAL, FailureKind.CONTENT_FILTERED)
    facts: dict[str, Any] = {"status": CallStatus.ERROR, "kind": kind, "text": None}
    facts |= {"finish_reasons": ("length",) if reply else (), "error_json": '{"message":"so it was"}'}
    call = make_call(index, name, run_id, **(facts | changes))
    end = row_end(name, name, Outcome.DEAD_LETTERED, run_id=run_id, answered_in_run_id=run_id)
    letter = {
        "row_id": name,
        "stage": "call",
        "kind": str(kind),
        "reason": f"why {name}",
        "call_id": call.call_id,
        "source": {"path": "rows.csv", "line": index},
        "row": {"id": name},
    }
    return call, end, letter


def write_facts_run(
    output: Path,
    run_id: str = RUN_1,
    *,
    job: dict[str, Any],
    calls: list[CallRecord | None] = [],  # noqa: B006 - never changed
    rows: list[dict[str, Any]] = [],  # noqa: B006
    enriched: list[dict[str, Any]] = [],  # noqa: B006
    letters: list[dict[str, Any]] = [],  # noqa: B006
    jsonl: bool = False,
    mode: str = "per_request",
    summary: dict[str, Any] | None = None,
) -> RunFolder:
    """Write one run that came to its end."""
    folder = RunFolder(str(output), run_id)
    began: datetime = START + timedelta(hours=int(run_id[-1]) - 1)
    start_run(folder, job=job, job_sha256="d" * 64, runner="FnApiRunner", started_at=began)
    made = [call for call in calls if call]
    tables: dict[str, list[dict[str, Any]]] = {"rows": rows, "calls": [call_row(call) for call in made], "batches": []}
    for batch_id in dict.fromkeys(call.batch_id for call in made):
        opened = BatchOpened(batch_id, "k", run_id, mode, "openai", "gpt-4o-mini", 1, ())
        ended = BatchEnded(batch_id, run_id, "completed", 2, len(made), 0, 0)
        tables["batches"].append(batch_row(opened, len(made), ended))
    for name, found in tables.items():
        with ParquetWriter(f"{folder.table(name)}/part.parquet", AUDIT_SCHEMAS[name]) as writer:
            writer.extend(found)
    if enriched:
        _write_enriched(folder, enriched, jsonl=jsonl)
    if letters:
        Path(folder.dead_letters).mkdir(parents=True)
        Path(folder.dead_letters, "part.jsonl").write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in letters))
    outcomes = [row["outcome"] for row in rows]
    counts = {name: outcomes.count(name) for name in ("enriched", "dead_lettered", "pending")}
    good = sum(1 for call in made if call.status is CallStatus.SUCCESS)
    ending = {
        "run_id": run_id,
        "rows": {"in": len(rows), **counts},
        "calls": {"sent": len(made), "succeeded": good, "failed": len(made) - good, "reused": len(rows) - len(made)},
        "tokens": {"input": 100, "output": 20},
        "cost_usd": format(sum((call.cost_usd or Decimal(0) for call in made), Decimal(0)), "f"),
        "pending_reasons": [],
        **(summary or {}),
    }
    finish_run(
        folder,
        status="pending" if counts["pending"] else "done",
        summary=ending,
        ended_at=began + timedelta(seconds=90),
    )
    return folder


def write_answers(output: Path, answers: list[Any], run_id: str = RUN_1, **how: Any) -> RunFolder:
    """Write a run in which every row, r0, r1, ..., got the answer at its place."""
    job = how.pop("job", facts_job())
    called = how.pop("called", True)
    made = [answered(run_id, f"r{n}", answer, n, call=called) for n, answer in enumerate(answers)]
    calls, rows, enriched = (list(part) for part in zip(*made, strict=True)) if made else ([], [], [])
    return write_facts_run(output, run_id, job=job, calls=calls, rows=rows, enriched=enriched, **how)


def _write_enriched(folder: RunFolder, enriched: list[dict[str, Any]], *, jsonl: bool) -> None:
    Path(folder.enriched).mkdir(parents=True)
    if jsonl:
        lines = b"".join(orjson.dumps(row) + b"\n" for row in enriched)
        Path(folder.enriched, "part.jsonl").write_bytes(lines)
    else:
        pq.write_table(pa.Table.from_pylist(enriched), f"{folder.enriched}/part.parquet")
