"""An output of several runs, as big as asked for, written by the storage layer itself: what explain is measured on."""

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.failure import FailureKind
from transforms.records.request import Lane, Prompt
from transforms.rules.prompt_hash import prompt_sha256
from transforms.storage.arrow_types import AUDIT_SCHEMAS
from transforms.storage.audit_rows import batch_row, call_row, member_rows
from transforms.storage.runs import RunFolder, finish_run, start_run
from transforms.storage.tables import ParquetWriter

#: Rows that the runs of a case have together, by share: a run each night, the last one small.
SHARES = (0.5, 0.3, 0.15, 0.05)
GROUP = 500
START = datetime(2026, 11, 17, 2, 0, 0, tzinfo=UTC)

_JOB = {
    "name": "reviews",
    "input": {"path": "rows.csv", "key": ["id"]},
    "prompt": {"system": None, "template": "Label: {{ row.text }}"},
    "answer": {"field": "label", "schema": {"type": "object", "required": ["label"]}},
    "model": {"provider": "openai", "name": "gpt-4o-mini"},
    "audit": {"payloads": "full", "redact": []},
}
_ENRICHED = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("text", pa.string()),
        pa.field("label", pa.struct([pa.field("label", pa.string()), pa.field("why", pa.string())])),
        pa.field("label_model", pa.string()),
        pa.field("label_request_id", pa.string()),
    ]
)
_WORDS = [
    "the",
    "a",
    "this",
    "my",
    "player",
    "camera",
    "remote",
    "sound",
    "picture",
    "works",
    "broke",
    "great",
    "poor",
    "never",
    "again",
    "price",
    "box",
]
_SYSTEM = "You label customer reviews for a shop. " + "Say what the customer felt, and how sure you are. " * 8


def write_case(output: Path, rows: int) -> list[str]:
    """Write an output of as many rows and calls; return the run ids, oldest first.

    A request body is about 1.5 kB of JSON and a response about 1 kB; a row's call is in the run that has the row.
    """
    draw = random.Random(5)
    first, run_ids = 0, []
    for place, share in enumerate(SHARES):
        last = rows if place == len(SHARES) - 1 else first + int(rows * share)
        run_ids.append(_write_run(output, place, range(first, last), draw))
        first = last
    return run_ids


def row_name(number: int) -> str:
    """Return the row_id of a row by its number."""
    return f"r{number:07d}"


def _write_run(output: Path, place: int, numbers: range, draw: random.Random) -> str:
    began = START + timedelta(days=place)
    run_id = f"{began.strftime('%Y%m%dT%H%M%S')}-00000{place}"
    folder = RunFolder(str(output), run_id)
    start_run(folder, job=_JOB, job_sha256="d" * 64, runner="FnApiRunner", started_at=began)
    with (
        _table(folder, "calls") as calls,
        _table(folder, "rows") as ends,
        _table(folder, "batches") as batches,
        _table(folder, "batch_members") as members,
        ParquetWriter(f"{folder.enriched}/part-00000.parquet", _ENRICHED) as enriched,
    ):
        for group in _groups(numbers):
            opened, records = _calls(run_id, group, began, draw)
            batches.append(batch_row(opened, len(group), BatchEnded(opened.batch_id, run_id, "done", 5, 500, 0, 0)))
            members.extend(member_rows(opened))
            calls.extend(map(call_row, records))
            ends.extend(_end(number, record) for number, record in zip(group, records, strict=True))
            enriched.extend(_answer(number, record, draw) for number, record in zip(group, records, strict=True))
    finish_run(folder, status="done", summary=_summary(run_id, len(numbers)), ended_at=began + timedelta(hours=1))
    return run_id


def _table(folder: RunFolder, name: str) -> ParquetWriter:
    return ParquetWriter(f"{folder.table(name)}/part-00000.parquet", AUDIT_SCHEMAS[name])


def _groups(numbers: range) -> Iterator[range]:
    for first in range(numbers.start, numbers.stop, GROUP):
        yield range(first, min(first + GROUP, numbers.stop))


def _request_id(number: int) -> str:
    return hashlib.sha256(b"request %d" % number).hexdigest()


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(_WORDS, k=words))


def _calls(run_id: str, group: range, began: datetime, draw: random.Random) -> tuple[BatchOpened, list[CallRecord]]:
    batch_id = f"b{hashlib.sha256(f'{run_id} {group.start}'.encode()).hexdigest()[:24]}"
    at_us = int(began.timestamp() * 1_000_000) + group.start * 1_000
    members = tuple((f"c0ffee00-{_request_id(number)[:40]}", _request_id(number)) for number in group)
    facts = (batch_id, batch_id * 2, run_id, "per_request", "openai", "gpt-4o-mini", at_us)
    records = [
        _call(run_id, batch_id, place, members[place], at_us + place * 1_000, draw) for place in range(len(group))
    ]
    return BatchOpened(*facts, members=members), records


def _call(
    run_id: str, batch_id: str, index: int, member: tuple[str, str], at_us: int, draw: random.Random
) -> CallRecord:
    custom_id, request_id = member
    question = _text(draw, 150)
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]
    said = orjson.dumps({"label": "good", "why": _text(draw, 110)}).decode()
    body = {"model": "gpt-4o-mini", "messages": messages, "max_completion_tokens": 200}
    answer = {
        "id": f"chatcmpl-{request_id[:29]}",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": said}}],
        "usage": {"prompt_tokens": 412, "completion_tokens": 91, "total_tokens": 503},
    }
    return CallRecord(
        call_id=f"{batch_id}-{index:06d}",
        run_id=run_id,
        batch_id=batch_id,
        call_index=index,
        call_type=CallType.LLM,
        custom_id=custom_id,
        request_id=request_id,
        root_request_id=request_id,
        lane=Lane.MAIN,
        attempt=1,
        status=CallStatus.SUCCESS,
        kind=FailureKind.OK,
        http_status=200,
        provider_request_id=f"req_{request_id[:24]}",
        started_at_us=at_us,
        latency_ms=draw.uniform(300, 2_000),
        waited_ms=0.2,
        request_json=orjson.dumps(body).decode(),
        response_json=orjson.dumps(answer).decode(),
        error_json=None,
        provider_name="openai",
        request_model="gpt-4o-mini",
        response_model="gpt-4o-mini-2024-07-18",
        input_tokens=412,
        output_tokens=91,
        cache_read_input_tokens=0,
        cache_write_input_tokens=None,
        reasoning_output_tokens=None,
        finish_reasons=("stop",),
        cost_usd=Decimal("0.0001164"),
        cost_source=CostSource.PRICE_TABLE,
        cost_reason=None,
        prompt_sha256=prompt_sha256(Prompt(_SYSTEM, (("user", question),))),
        template_sha256="b" * 64,
        variables_sha256=request_id[32:] + request_id[:32],
        lookup_sha256=None,
        text=said,
    )


def _end(number: int, record: CallRecord) -> dict[str, Any]:
    return {
        "row_id": row_name(number),
        "run_id": record.run_id,
        "request_id": record.request_id,
        "outcome": "enriched",
        "call_id": record.call_id,
        "answered_in_run_id": record.run_id,
        "source": f"rows.csv:{number + 2}",
    }


def _answer(number: int, record: CallRecord, draw: random.Random) -> dict[str, Any]:
    return {
        "id": row_name(number),
        "text": _text(draw, 40),
        "label": orjson.loads(record.text or "{}"),
        "label_model": record.response_model,
        "label_request_id": record.request_id,
    }


def _summary(run_id: str, count: int) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "status": "done",
        "rows": {"in": count, "enriched": count, "dead_lettered": 0, "pending": 0},
        "calls": {"sent": count, "succeeded": count, "failed": 0, "reused": 0},
        "tokens": {"input": 412 * count, "output": 91 * count},
        "cost_usd": format(Decimal("0.0001164") * count, "f"),
        "pending_reasons": [],
    }
