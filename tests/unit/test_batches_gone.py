"""`rowbeam batches --resolve KEY --as gone`: a batch that its provider has lost is lost in the ledger too."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from tests.unit.batch_phase_ledgers import key_of, provider_id_of, write_all_phases
from transforms._budget import open_log
from transforms._budget_books import settle_books
from transforms.records.batch import BatchStatus
from transforms.records.settings import BudgetSettings
from transforms.storage.batch_entry import BatchEntry, Phase
from transforms.storage.batch_ledger import open_entries, read_entry, sweep_unsent


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output with a batch in each phase."""
    write_all_phases(tmp_path)
    return tmp_path


def resolve(output: Path, phase: str, verdict: str = "gone") -> Any:
    """Run the command for the batch in a phase."""
    return CliRunner().invoke(app, ["batches", str(output), "--resolve", key_of(phase), "--as", verdict])


def entry_of(output: Path, phase: str) -> BatchEntry:
    """Return what the ledger knows of the batch that was in a phase."""
    entry = read_entry(str(output / "ledger"), key_of(phase))
    assert entry is not None
    return entry


@pytest.mark.parametrize("verdict", ["gone", "Gone"])
def test_a_submitted_batch_ends_as_gone(output: Path, verdict: str) -> None:
    """The next run finds it ended without results; the text says when, and that, it is paid for again."""
    done = resolve(output, "submitted", verdict)
    assert (done.exit_code, done.stderr) == (0, "")
    assert " ".join(done.stdout.split()) == (
        "5b317d5b317d on record: openai has lost it. The next run gives its 3 requests up (results_gone); the one after "
        "that asks them again, and they are paid for again."
    )
    entry = entry_of(output, "submitted")
    assert (entry.phase, entry.attempt) == (Phase.ENDED, 0)
    assert entry.handle is not None
    assert entry.handle.provider_batch_id == provider_id_of("submitted")
    assert entry.ended is not None
    assert (entry.ended.status, entry.ended.raw_status, entry.ended.completed) == (BatchStatus.GONE, "operator", None)
    [line] = (output / "ledger" / "batches" / entry.key / "operator.jsonl").read_bytes().splitlines()
    assert orjson.loads(line) | {"at_s": 0} == {"at_s": 0, "what": "resolve", "as": "gone"}
    assert not (output / "ledger" / "lease.json").exists()


@pytest.mark.parametrize("phase", ["in doubt", "ended"])
def test_a_batch_without_an_id_or_with_lost_results_is_asked_again(output: Path, phase: str) -> None:
    """Its attempt comes to nothing by the operator's word: the next run's sweep makes its requests fresh."""
    done = resolve(output, phase)
    assert done.exit_code == 0
    assert "The next run asks its 3 requests again, and they are paid for again." in " ".join(done.stdout.split())
    entry = entry_of(output, phase)
    assert (entry.phase, entry.attempt, [void.kind for void in entry.voids]) == (Phase.STAGED, 1, ["lost"])
    ledger = str(output / "ledger")
    assert key_of(phase) not in [one.key for one in open_entries(ledger)]
    assert key_of(phase) in sweep_unsent(ledger, "r2", 1_795_000_100.0)


@pytest.mark.parametrize("phase", ["staged", "collected", "given up"])
def test_what_the_provider_does_not_have_can_not_be_gone(output: Path, phase: str) -> None:
    """Exit code 2, one line, and the ledger is as it was."""
    before = entry_of(output, phase)
    done = resolve(output, phase)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"can't be gone: it is {phase}, so openai holds nothing that is missed" in done.stderr
    assert entry_of(output, phase) == before
    assert not list(output.rglob("operator.jsonl"))


def test_it_is_said_once(output: Path) -> None:
    """A second time would free requests that a run is about to give up."""
    assert resolve(output, "submitted").exit_code == 0
    again = resolve(output, "submitted")
    assert (again.exit_code, "is on record as gone already; run the job" in again.stderr) == (2, True)
    assert entry_of(output, "submitted").phase is Phase.ENDED


@pytest.mark.parametrize("verdict", ["absent", "batch_68d0"])
def test_of_a_known_batch_only_its_loss_can_be_said(output: Path, verdict: str) -> None:
    """The refusal names the way out."""
    done = resolve(output, "submitted", verdict)
    assert done.exit_code == 2
    assert f"and openai calls it {provider_id_of('submitted')}; if it is lost there, say --as gone" in done.stderr


@pytest.mark.parametrize(
    ("phase", "share"),
    [pytest.param("ended", 1, id="billed"), pytest.param("in doubt", 1, id="maybe billed"),
     pytest.param("submitted", None, id="collected as gone by the next run")],
)  # fmt: skip
def test_what_is_given_up_for_lost_stays_charged(output: Path, phase: str, share: int | None) -> None:
    """The provider may have billed the batch: its hold comes to all of it, and never to nothing (P6)."""
    ledger = str(output / "ledger")
    entry = entry_of(output, phase)
    log = open_log(ledger, entry.staged.run_id, BudgetSettings(max_usd=Decimal(1)))
    assert log.hold(f"batch:{entry.key}:{entry.staged.run_id}:{entry.attempt}", 1_000, "batch")
    assert resolve(output, phase).exit_code == 0
    sweep_unsent(ledger, "next", 0.0)
    settle_books(ledger, "next", BudgetSettings(max_usd=Decimal(1)), [])
    assert log.charged() == 1_000
    assert len(log.open_holds("batch")) == (share is None)
