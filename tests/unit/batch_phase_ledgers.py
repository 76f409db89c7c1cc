"""Outputs with provider batches in every phase, written by the ledger's own writers: what `rowbeam batches` looks at.

A batch has all its records here and no request file, which the command never opens.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.unit.batch_file_builders import (
    NOW,
    RUN,
    make_cancel,
    make_collected,
    make_ended,
    make_handle,
    make_intent,
    make_staged,
)
from transforms.records.failure import FailureKind
from transforms.records.settings import Job
from transforms.storage.batch_entry import Void
from transforms.storage.batch_ledger import (
    create_intent,
    give_up,
    read_entry,
    record_cancel,
    record_collected,
    record_ended,
    record_handle,
    record_upload,
    record_void,
    write_staged,
)
from transforms.storage.runs import RunFolder, finish_run, start_run

#: Where the batches are unless a test says otherwise; no such host exists.
ADDRESS = "https://batches.example/v1"
#: A job as its author writes it.
JOB: dict[str, Any] = {
    "name": "reviews",
    "input": {"path": "rows.csv", "key": ["id"]},
    "output": "out",
    "prompt": {"template": "Rate: {{ row.text }}"},
    "answer": {"field": "label"},
    "model": {"provider": "openai", "name": "gpt-4o-mini", "base_url": ADDRESS},
    "batching": {"mode": "provider_batch_api"},
}
_WORDS = {
    "staged": "57a9ed",
    "in doubt": "d0b7ed",
    "submitted": "5b317d",
    "ended": "e4ded0",
    "collected": "c013c7",
    "given up": "9be40d",
}
#: Phase, in people's words -> key of the batch that `write_all_phases` leaves in it; the youngest batch first.
KEYS = {phase: (word * 11)[:64] for phase, word in _WORDS.items()}
#: Seconds from the staging of one batch to that of the next younger.
_APART_S = 60.0


def key_of(phase: str) -> str:
    """Return the key of the batch in a phase."""
    return KEYS[phase]


def provider_id_of(phase: str) -> str:
    """Return what the provider calls the batch in a phase, as long as OpenAI's ids are."""
    return f"batch_{key_of(phase)[:32]}"


def write_job_run(output: Path, run_id: str = RUN, **model: Any) -> None:
    """Write a finished run that left its rows pending; `model` replaces settings of its job's model."""
    job = Job.model_validate(JOB | {"output": str(output), "model": JOB["model"] | model})
    folder = RunFolder(str(output), run_id)
    began = datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    shown = job.model_dump(mode="json", by_alias=True)
    start_run(folder, job=shown, job_sha256="d" * 64, runner="FnApiRunner", started_at=began)
    summary = {
        "run_id": run_id,
        "status": "pending",
        "rows": {"in": 3, "enriched": 0, "dead_lettered": 0, "pending": 3},
        "calls": {"sent": 0, "succeeded": 0, "failed": 0, "reused": 0},
        "tokens": {"input": 0, "output": 0},
        "cost_usd": None,
    }
    finish_run(folder, status="pending", summary=summary, ended_at=began + timedelta(seconds=90))


def write_submitted(output: Path, *, provider_batch_id: str | None = None, proven: bool = True, **staged: Any) -> None:
    """Write the batch that the provider has.

    Args:
        output: the job's output folder.
        provider_batch_id: the provider's id of it; `provider_id_of("submitted")`, if not given.
        proven: False: time and count led to it.
        staged: fields of its staged.json.
    """
    _write_handed_over(output, "submitted", provider_batch_id, proven=proven, **staged)


def write_all_phases(output: Path) -> None:
    """Write a run, and a batch in each phase of KEYS; the one submitted is being cancelled."""
    ledger = _ledger(output)
    write_job_run(output)
    _write_staged(output, "staged")
    _write_begun(output, "in doubt")
    write_submitted(output)
    record_cancel(ledger, key_of("submitted"), 0, make_cancel())
    for phase in ("ended", "collected"):
        _write_handed_over(output, phase)
        record_ended(ledger, key_of(phase), 0, make_ended())
    record_collected(ledger, key_of("collected"), make_collected())
    _write_given_up(output)


def _ledger(output: Path) -> str:
    return str(output / "ledger")


def _write_staged(output: Path, phase: str, **changes: Any) -> None:
    key = key_of(phase)
    staged_at_s = NOW - _APART_S * list(KEYS).index(phase)
    facts: dict[str, Any] = {"batch_id": f"b{key[:20]}", "address": ADDRESS, "staged_at_s": staged_at_s}
    write_staged(_ledger(output), make_staged(key, **facts | changes))


def _write_begun(output: Path, phase: str, **staged: Any) -> None:
    """Write a batch whose create was begun, and nothing of what became of it."""
    _write_staged(output, phase, **staged)
    record_upload(_ledger(output), key_of(phase), 0, "file-0")
    create_intent(_ledger(output), make_intent(key=key_of(phase)))


def _write_handed_over(
    output: Path, phase: str, provider_batch_id: str | None = None, *, proven: bool = True, **staged: Any
) -> None:
    """Write a batch whose create is known to exist."""
    _write_begun(output, phase, **staged)
    handle = replace(make_handle(proven=proven), provider_batch_id=provider_batch_id or provider_id_of(phase))
    record_handle(_ledger(output), key_of(phase), 0, handle)


def _write_given_up(output: Path) -> None:
    """Write a batch whose one create was refused, and which a later step then gave up."""
    ledger, key = _ledger(output), key_of("given up")
    _write_begun(output, "given up")
    record_void(ledger, key, 0, Void("the queue is full", str(FailureKind.ENQUEUED_LIMIT), NOW + 2))
    entry = read_entry(ledger, key)
    assert entry is not None
    give_up(ledger, entry, RUN, NOW + 5)
