"""Prompts that a kill left in the ledger go when the audit must not show them, and stay for who keeps them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.job import load_job
from pipelines.prepare import PreparedJob, prepare
from pipelines.run import tidy_batches
from tests.unit.batch_file_builders import make_collected, make_handle, make_intent, make_stager, stage
from tests.unit.batch_phase_ledgers import JOB
from transforms.storage.batch_ledger import create_intent, members_path, record_collected, record_handle, requests_path
from transforms.storage.batch_sweep import sweep_prompts


@pytest.fixture
def closed(tmp_path: Path) -> str:
    """Return the key of a batch that was closed by a run killed right after."""
    key = submit(tmp_path, [b"a prompt"])
    record_collected(ledger_of(tmp_path), key, make_collected())
    return key


def ledger_of(output: Path) -> str:
    """Return the ledger's folder."""
    return str(output / "ledger")


def submit(output: Path, lines: list[bytes]) -> str:
    """Stage a batch as a run does, and note that the provider has it; return its key."""
    [files] = stage(make_stager(output), lines)
    key = files.staged.batch_key
    create_intent(ledger_of(output), make_intent(key=key))
    record_handle(ledger_of(output), key, 0, make_handle())
    return key


def prepared_job(output: Path, audit: dict[str, Any]) -> PreparedJob:
    """Write a job beside its output, and prepare it."""
    folder = output.parent / f"{output.name}.job"
    folder.mkdir()
    (folder / "rows.csv").write_text("id,text\nA,good\n", encoding="utf-8")
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB | {"output": str(output), "audit": audit}), encoding="utf-8")
    return prepare(load_job(str(folder / "job.yaml")), "r2")


def test_only_request_files_of_closed_batches_go(tmp_path: Path, closed: str) -> None:
    """Those in flight are still needed; members files tell results apart and hold no prompt. It may be repeated."""
    ledger = ledger_of(tmp_path)
    waiting = submit(tmp_path, [b"a prompt", b"another"])
    assert sweep_prompts(ledger) == [closed]
    kept = [members_path(ledger, closed), members_path(ledger, waiting), requests_path(ledger, waiting)]
    assert sorted(map(str, Path(ledger, "requests").iterdir())) == sorted(kept)
    assert sweep_prompts(ledger) == []


def test_a_ledger_without_batches_is_swept_clean(tmp_path: Path) -> None:
    """Nothing is made there."""
    assert sweep_prompts(ledger_of(tmp_path)) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("audit", "stays"),
    [
        pytest.param({}, True, id="default"),
        pytest.param({"payloads": "full"}, True, id="full"),
        pytest.param({"payloads": "hash"}, False, id="hash"),
        pytest.param({"payloads": "none"}, False, id="none"),
        pytest.param({"redact": ["text"]}, False, id="redact"),
    ],
)
def test_the_next_run_removes_the_prompts_that_audit_must_not_show(
    tmp_path: Path, closed: str, audit: dict[str, Any], stays: bool
) -> None:
    """What a run killed between closing the batch and removing them has left."""
    tidy_batches(prepared_job(tmp_path, audit))
    assert Path(requests_path(ledger_of(tmp_path), closed)).exists() is stays
    assert Path(members_path(ledger_of(tmp_path), closed)).exists()


def test_the_next_run_gives_up_what_was_never_sent(tmp_path: Path) -> None:
    """Whatever the audit shows, its requests are fresh again."""
    stage(make_stager(tmp_path), [b"a prompt"])
    tidy_batches(prepared_job(tmp_path, {}))
    assert not list(Path(ledger_of(tmp_path), "requests").iterdir())
