"""`rowbeam batches`: what is listed of a ledger in every state, and what a person can say about a batch in doubt."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipelines.batches import read_batches
from pipelines.batches_text import draw_batches
from pipelines.cli import app
from tests.unit.batch_file_builders import NOW, RUN
from tests.unit.batch_phase_ledgers import JOB, KEYS, key_of, provider_id_of, write_all_phases, write_submitted
from transforms.storage.batch_claims import disown
from transforms.storage.batch_entry import BatchEntry, Phase
from transforms.storage.batch_ledger import read_entry
from transforms.storage.lease import Lease

ROOT = Path(__file__).resolve().parents[2]
DOUBT = key_of("in doubt")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output with a batch in each phase."""
    write_all_phases(tmp_path)
    return tmp_path


def batches(output: Path, *arguments: str) -> Any:
    """Run the command."""
    return CliRunner().invoke(app, ["batches", str(output), *arguments])


def entry_of(output: Path, key: str) -> BatchEntry:
    """Return what the ledger knows of a batch."""
    entry = read_entry(str(output / "ledger"), key)
    assert entry is not None
    return entry


def drawn(output: Path, width: int) -> str:
    """Return the list as a terminal of that width shows it."""
    console = Console(width=width, markup=False)
    with console.capture() as text:
        draw_batches(read_batches(str(output)), console)
    return text.get()


def test_json_has_stable_keys_and_every_phase(output: Path) -> None:
    """One line of JSON, oldest batch first; what is not so yet is null."""
    done = batches(output, "--json")
    assert done.stdout.count("\n") == 1
    found = orjson.loads(done.stdout)
    assert list(found) == ["output", "job", "phases", "batches"]
    assert found["phases"] == dict.fromkeys(reversed(KEYS), 1)
    assert [batch["phase"] for batch in found["batches"]] == list(reversed(KEYS))
    by_phase = {batch["phase"]: batch for batch in found["batches"]}
    assert list(by_phase["ended"]) == [
        "key", "short_key", "batch_id", "provider", "address", "model", "provider_batch_id", "proven", "phase", "status",
        "provider_status", "requests", "staged_at", "staged_by", "submitted_at", "submitted_by", "cancel_asked_at",
        "cancel_why", "ended_at", "succeeded", "failed", "missing", "closed_at", "closed_by", "not_taken", "to_do",
    ]  # fmt: skip
    collected = by_phase["collected"]
    assert collected["provider_batch_id"] == provider_id_of("collected")
    assert [collected[name] for name in ("status", "succeeded", "failed", "missing")] == ["completed", 2, 1, 0]
    assert (collected["submitted_by"], collected["closed_by"], collected["to_do"]) == (RUN, RUN, None)
    assert collected["submitted_at"] == "2026-11-18T11:06:41Z"
    doubt, given_up = by_phase["in doubt"], by_phase["given up"]
    assert (doubt["provider_batch_id"], doubt["submitted_at"], doubt["proven"]) == (None, None, None)
    assert f"--resolve {doubt['short_key']} --as absent" in doubt["to_do"]
    assert (given_up["succeeded"], given_up["not_taken"][0]["reason"]) == (None, "the queue is full")


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_fits_the_terminal(output: Path, width: int) -> None:
    """Every batch is there with its key, ids, phase and run, whole, in both widths; the one in doubt says what to do."""
    text = drawn(output, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for phase in KEYS:
        assert key_of(phase)[:12] in text
        assert f" {phase} " in text
    for said in (provider_id_of("submitted"), RUN, "2026-11-18 11:06", "2 ok", "1 failed", "cancelling"):
        assert said in text
    assert f"--resolve {DOUBT[:12]} --as absent" in " ".join(text.split())


def test_a_found_batch_is_shown_as_unproven(tmp_path: Path) -> None:
    """Nobody should take a batch for ours that time and size led to."""
    write_submitted(tmp_path, proven=False)
    assert "its time and size" in drawn(tmp_path, 120)


def test_an_output_without_batches_says_so(tmp_path: Path) -> None:
    """An empty table would look like a fault."""
    (tmp_path / "ledger").mkdir()
    assert batches(tmp_path).stdout.endswith("No batch was ever made for a provider's batch API.\n")


def test_listing_changes_nothing(output: Path) -> None:
    """No file is made or touched, the lease included."""
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert batches(output).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_no_part_of_the_command_imports_beam(output: Path) -> None:
    """A second's import is spared."""
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app\n"
        "import pipelines.batches_cancel, pipelines.batches_resolve\n"
        f"assert CliRunner().invoke(app, ['batches', {str(output)!r}]).exit_code == 0\n"
        "assert 'apache_beam' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [DOUBT, DOUBT[:12], DOUBT[:4], "b" + ("d0b7ed" * 4)[:20]])
@pytest.mark.parametrize("verdict", ["absent", "Absent"])
def test_absent_lets_the_next_run_ask_again(output: Path, name: str, verdict: str) -> None:
    """The attempt comes to nothing by the operator's word, which is on record."""
    done = batches(output, "--resolve", name, "--as", verdict)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "d0b7edd0b7ed  on record: openai has no such batch."
    entry = entry_of(output, DOUBT)
    assert (entry.phase, entry.attempt, [void.kind for void in entry.voids]) == (Phase.STAGED, 1, ["operator"])
    [line] = (output / "ledger" / "batches" / DOUBT / "operator.jsonl").read_bytes().splitlines()
    assert orjson.loads(line) | {"at_s": 0} == {"at_s": 0, "what": "resolve", "as": "absent"}
    assert not (output / "ledger" / "lease.json").exists()


def test_an_id_makes_the_batch_known(output: Path) -> None:
    """The next run asks for its state; its deadline counts from the create, not from now."""
    done = batches(output, "--resolve", DOUBT[:12], "--as", "batch_68d0", "--json")
    found = orjson.loads(done.stdout)
    assert list(found) == [
        "output", "key", "short_key", "batch_id", "provider", "provider_batch_id", "phase", "says", "next",
    ]  # fmt: skip
    assert (found["provider_batch_id"], found["phase"]) == ("batch_68d0", "submitted")
    handle = entry_of(output, DOUBT).handle
    assert handle is not None
    assert (handle.provider_batch_id, handle.proven, handle.submitted_at_s, handle.run_id) == (
        "batch_68d0", True, NOW, RUN,
    )  # fmt: skip
    assert handle.input_file_id == "file-0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--resolve", DOUBT], "--resolve and --as go together", id="no-verdict"),
        pytest.param(["--as", "absent"], "--resolve and --as go together", id="no-batch"),
        pytest.param(["--resolve", DOUBT, "--as", "absent", "--cancel", "x"], "don't go together", id="cancel-too"),
        pytest.param(["--resolve", DOUBT, "--as", ""], "--as: '' is no batch id", id="empty-id"),
        pytest.param(["--resolve", DOUBT, "--as", "no such"], "--as: 'no such' is no batch id", id="words"),
        pytest.param(["--resolve", "", "--as", "absent"], "no batch goes by ''", id="empty-key"),
        pytest.param(["--resolve", "d0b", "--as", "absent"], "no batch goes by 'd0b'", id="short-key"),
        pytest.param(["--resolve", "feed", "--as", "absent"], "no batch goes by 'feed'", id="unknown"),
        pytest.param(["--resolve", "5b31", "--as", "absent"], "batch 5b317d5b317d is not in doubt: it is submitted, "
                     "and openai calls it batch_5b31", id="submitted"),
        pytest.param(["--resolve", "57a9", "--as", "absent"], "is not in doubt: it is staged;", id="staged"),
        pytest.param(["--resolve", "9be4", "--as", "absent"], "is not in doubt: it is given up;", id="given-up"),
        pytest.param(["--resolve", DOUBT, "--as", provider_id_of("ended")], "is batch e4ded0e4ded0 already", id="taken"),
        pytest.param(["--resolve", DOUBT, "--as", "batch_foreign"], "a batch that is not this one", id="foreign"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused_in_one_line(output: Path, arguments: list[str], said: str) -> None:
    """Exit code 2, and the ledger is as it was."""
    disown(str(output / "ledger"), DOUBT, 0, "batch_foreign")
    done = batches(output, *arguments)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert entry_of(output, DOUBT).phase is Phase.IN_DOUBT
    assert not list(output.rglob("operator.jsonl"))


def test_a_batch_is_not_resolved_while_a_run_is_at_work(output: Path) -> None:
    """That run may be looking for it at this moment."""
    with Lease(str(output / "ledger"), RUN):
        done = batches(output, "--resolve", DOUBT, "--as", "absent")
    assert done.exit_code == 2
    assert f"is in use by run {RUN}" in done.stderr
    assert entry_of(output, DOUBT).phase is Phase.IN_DOUBT


def test_two_batches_by_one_prefix_are_told_apart(output: Path) -> None:
    """No guess is made."""
    twin = DOUBT[:20] + "0" * 44
    folder = output / "ledger" / "batches"
    (folder / twin).mkdir()
    staged = orjson.loads((folder / DOUBT / "staged.json").read_bytes())
    (folder / twin / "staged.json").write_bytes(orjson.dumps(staged | {"batch_key": twin, "batch_id": "b7"}))
    done = batches(output, "--resolve", DOUBT[:12], "--as", "absent")
    assert done.exit_code == 2
    assert "2 batches go by" in done.stderr
    assert batches(output, "--resolve", DOUBT, "--as", "absent").exit_code == 0


def test_no_output_is_an_error(tmp_path: Path) -> None:
    """The sentence says what to name instead, and nothing is made there."""
    done = batches(tmp_path / "nowhere", "--resolve", "d0b7", "--as", "absent")
    assert (done.exit_code, "is not the output of a job" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_detach_is_an_override_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused where the job's mode has no batches, in the check's own words."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none-0123456789abcdef")
    (tmp_path / "rows.csv").write_text("id,text\nA,good\n", encoding="utf-8")
    job: dict[str, Any] = JOB | {"batching": {"mode": "per_request"}}
    (tmp_path / "job.yaml").write_bytes(orjson.dumps(job))
    done = CliRunner().invoke(app, ["run", str(tmp_path / "job.yaml"), "--set", "batching.detach=false", "--detach"])
    assert done.exit_code == 2
    assert done.stderr == (
        "rowbeam: batching.detach: there is no batch to leave behind in mode per_request; remove it, or set "
        "batching.mode to provider_batch_api or auto\n"
    )
