"""An output that holds all that verify checks: two runs, one of them by batch, one killed; and ways to change it."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.cli_outputs import JOB, make_call, request_id, row_end
from transforms.records.batch import BatchStatus
from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.failure import FailureKind
from transforms.records.request import Lane
from transforms.records.row import Outcome
from transforms.storage.arrow_types import AUDIT_SCHEMAS, ROWS
from transforms.storage.audit_rows import seal_run, write_tables
from transforms.storage.batch_entry import Collected, Ended, Handle, Intent, Staged
from transforms.storage.batch_ledger import (
    create_intent,
    record_collected,
    record_ended,
    record_handle,
    requests_path,
    write_staged,
)
from transforms.storage.batch_members import MemberLine, member_line, members_path
from transforms.storage.ledger import SegmentWriter, segments
from transforms.storage.runs import RunFolder, finish_run, start_run
from transforms.storage.tables import ParquetWriter

RUN_1 = "20261001T053412-000001"
KILLED = "20261002T053412-000002"
RUN_2 = "20261003T053412-000003"
KEY = "5e" * 32
PROMPT = "what was asked"

_BEGAN = {RUN_1: 1, KILLED: 2, RUN_2: 3}
_RESPONSE = '{"choices":[{"message":{"content":"{\\"label\\":\\"good\\"}"}}]}'


def make_output(output: Path) -> Path:
    """Write the output: run 1 asks q1, q2 (a refusal), q3; a run is killed after q4; run 2 asks q5 and q6 by batch."""
    _write_run(output, RUN_1, [_call(RUN_1, 0, "q1"), _refusal(RUN_1, 1, "q2"), _call(RUN_1, 2, "q3")])
    _write_killed(output)
    _write_batch(output)
    calls = [_exchange(0), _call(RUN_2, 1, "q5", batch_id="bb"), _call(RUN_2, 2, "q6", batch_id="bb")]
    reused = {"q1": (RUN_1, 0), "q2": (RUN_1, 1), "q3": (RUN_1, 2), "q4": (KILLED, 0)}
    _write_run(output, RUN_2, calls, reused, is_batch=True)
    return output


def change_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Replace a JSON file's content by what `change` makes of it (in place, or what it returns)."""
    found = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(change(found) or found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def change_table(output: Path, run_id: str, table: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows of an audit table of a run in place."""
    (path,) = (output / "runs" / run_id / "audit" / table).glob("*.parquet")
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, AUDIT_SCHEMAS[table]), path)


def rehash(output: Path, from_run: str = RUN_1) -> None:
    """Make all hashes anew from some run on, as whoever may write files can: the chain holds again."""
    before = None
    for run_id in (RUN_1, KILLED, RUN_2):
        folder = output / "runs" / run_id
        path = folder / "manifest.json"
        if run_id >= from_run:
            manifest = orjson.loads(path.read_bytes())
            manifest["previous"] = before
            for root, files in ((folder, manifest["files"]), (output, manifest["ledger"])):
                for file in files:
                    data = (root / file["path"]).read_bytes()
                    file |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
                    if file["path"].endswith(".parquet"):
                        file["rows"] = pq.read_metadata(root / file["path"]).num_rows
            path.write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        before = {"run_id": run_id, "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    change_json(output / "latest.json", lambda latest: latest.update(manifest_sha256=before["manifest_sha256"]))


def _began(run_id: str) -> datetime:
    return datetime(2026, 10, _BEGAN[run_id], 5, 34, 12, tzinfo=UTC)


def _call(run_id: str, index: int, name: str, **changes: Any) -> CallRecord:
    batch_id = changes.pop("batch_id", f"b{run_id[-1]}")
    values: dict[str, Any] = {
        "batch_id": batch_id,
        "call_id": f"{batch_id}-{index:06d}",
        "started_at_us": int(_began(run_id).timestamp() * 1_000_000) + index,
        "request_json": orjson.dumps({"messages": [{"role": "user", "content": f"{PROMPT}: {name}"}]}).decode(),
        "response_json": _RESPONSE,
    }
    return make_call(index, name, run_id, **(values | changes))


def _refusal(run_id: str, index: int, name: str) -> CallRecord:
    error = orjson.dumps({"kind": "refusal", "message": f"the model refused to answer: no to {PROMPT}"}).decode()
    return _call(run_id, index, name, status=CallStatus.ERROR, kind=FailureKind.REFUSAL, error_json=error, text=None)


def _exchange(index: int) -> CallRecord:
    nothing = dict.fromkeys(
        ("custom_id", "request_id", "root_request_id", "lane", "input_tokens", "output_tokens", "text")
    )
    facts = {
        "call_type": CallType.HTTP,
        "cost_usd": Decimal(0),
        "cost_source": CostSource.NOT_BILLED,
        "finish_reasons": (),
    }
    return _call(RUN_2, index, "q5", batch_id="bb", **{**nothing, **facts})


def _write_run(
    output: Path,
    run_id: str,
    calls: list[CallRecord],
    reused: dict[str, tuple[str, int]] | None = None,
    *,
    is_batch: bool = False,
) -> None:
    folder = RunFolder(str(output), run_id)
    start_run(folder, job=JOB, job_sha256="d" * 64, runner="FnApiRunner", started_at=_began(run_id))
    _write_segment(output, run_id, calls, is_batch=is_batch)
    story = write_tables(folder, segments(str(output / "ledger"), only_run=run_id))
    answered = {name: (run, f"b{run[-1]}-{index:06d}") for name, (run, index) in (reused or {}).items()}
    answered |= {call.custom_id[2:]: (run_id, call.call_id) for call in calls if call.custom_id}
    failed = [name for name in answered if name == "q2"]
    ends = [
        row_end(
            f"row-{name}",
            name,
            Outcome.DEAD_LETTERED if name in failed else Outcome.ENRICHED,
            run_id=run_id,
            call_id=call_id,
            answered_in_run_id=run,
        )
        for name, (run, call_id) in answered.items()
    ]
    with ParquetWriter(str(Path(folder.table("rows")) / "part-00000.parquet"), ROWS) as table:
        table.extend(ends)
    _write_enriched(folder, [name for name in answered if name not in failed])
    _write_letters(folder, failed)
    _finish(folder, story.totals, len(answered), len(failed), len(reused or {}))


def _finish(folder: RunFolder, totals: Any, rows: int, failed: int, reused: int) -> None:
    summary = {
        "rows": {"in": rows, "enriched": rows - failed, "dead_lettered": failed, "pending": 0},
        "calls": {"sent": totals.sent, "succeeded": totals.succeeded, "failed": totals.failed, "reused": reused},
        "tokens": {"input": totals.input_tokens, "output": totals.output_tokens},
        "cost_usd": format(totals.cost_usd, "f"),
        "calls_of_unknown_cost": totals.unknown_cost,
    }
    finish_run(folder, status="done", summary=summary, ended_at=_began(folder.run_id) + timedelta(minutes=5))


def _write_enriched(folder: RunFolder, names: list[str]) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("id", "label", "label_request_id")])
    with ParquetWriter(str(Path(folder.enriched) / "part-00000.parquet"), schema) as table:
        table.extend({"id": f"row-{name}", "label": "good", "label_request_id": request_id(name)} for name in names)


def _write_letters(folder: RunFolder, names: list[str]) -> None:
    Path(folder.dead_letters).mkdir()
    letters = [
        {"row_id": f"row-{name}", "run_id": folder.run_id, "stage": "call", "kind": "refusal",
         "reason": f"no to {PROMPT}", "row": {"id": f"row-{name}", "text": PROMPT}}
        for name in names
    ]  # fmt: skip
    lines = b"".join(orjson.dumps(letter, option=orjson.OPT_APPEND_NEWLINE) for letter in letters)
    (Path(folder.dead_letters) / "part-00000.jsonl").write_bytes(lines)


def _write_segment(output: Path, run_id: str, calls: list[CallRecord], *, is_batch: bool = False) -> None:
    named = [call.custom_id[2:] for call in calls if call.custom_id]
    members = tuple((f"c-{name}", request_id(name)) for name in named)
    batch_id, mode = calls[0].batch_id, "provider_batch_api" if is_batch else "per_request"
    key = KEY if is_batch else batch_id * 16
    at_us = int(_began(run_id).timestamp() * 1_000_000)
    ended = BatchEnded(batch_id, run_id, "completed", at_us + 9, len(named), 0, 0, "batch_1" if is_batch else None)
    with SegmentWriter(str(output / "ledger" / "answers"), run_id) as writer:
        writer.append(BatchOpened(batch_id, key, run_id, mode, "openai", "gpt-4o-mini", at_us, members))
        writer.extend([*calls, ended])


def _write_killed(output: Path) -> None:
    folder = RunFolder(str(output), KILLED)
    start_run(folder, job=JOB, job_sha256="d" * 64, runner="FnApiRunner", started_at=_began(KILLED))
    _write_segment(output, KILLED, [_call(KILLED, 0, "q4")])
    (segment,) = segments(str(output / "ledger"), only_run=KILLED)
    with Path(segment).open("ab") as file:
        file.write(b'{"call_id":"torn","request_json":"' + PROMPT.encode())
    seal_run(str(output), KILLED)


def _write_batch(output: Path) -> None:
    ledger, at_s = str(output / "ledger"), _began(RUN_2).timestamp()
    lines = [orjson.dumps({"custom_id": f"c-{name}", "body": PROMPT}) for name in ("q5", "q6")]
    Path(requests_path(ledger, KEY)).parent.mkdir(parents=True)
    Path(requests_path(ledger, KEY)).write_bytes(b"".join(line + b"\n" for line in lines))
    members = [
        MemberLine(f"c-{name}", request_id(name), request_id(name), Lane.MAIN, "a", "b", "c", None, place, len(line))
        for place, (name, line) in enumerate(zip(("q5", "q6"), lines, strict=True))
    ]
    Path(members_path(ledger, KEY)).write_bytes(b"".join(map(member_line, members)))
    size = Path(requests_path(ledger, KEY)).stat().st_size
    write_staged(ledger, Staged(KEY, "bb", RUN_2, "n", "gpt-4o-mini", "openai", "provider_batch_api", 2, size, 9, at_s))
    create_intent(ledger, Intent(KEY, 0, RUN_2, "n", 2, at_s))
    record_handle(ledger, KEY, 0, Handle("batch_1", None, at_s, RUN_2, proven=True))
    record_ended(ledger, KEY, 0, Ended(BatchStatus.COMPLETED, "completed", 2, 2, 0, None, None, None, at_s + 9))
    record_collected(ledger, KEY, Collected(RUN_2, at_s + 10, 2, 0, 0))
