"""`rowbeam status`: runs, lease, waiting rows and ledger of an output."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.status import read_status
from pipelines.status_text import draw_status
from pipelines.text import money
from tests.unit.batch_file_builders import WRITERS, make_staged
from tests.unit.cli_outputs import RUN_1, RUN_2, make_call, row_end, write_run
from transforms.records.errors import ConfigError
from transforms.records.row import Outcome
from transforms.storage.batch_ledger import write_staged
from transforms.storage.lease import Lease


def now() -> datetime:
    """Return the time of the test."""
    return datetime.now(UTC)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return the output of one finished run with a pending row."""
    rows = [row_end("R1", "q1", Outcome.ENRICHED, call_id="b1-000000"), row_end("R2", "q2", Outcome.PENDING)]
    write_run(tmp_path, rows=rows, calls=[make_call(0, "q1")])
    return tmp_path


def test_a_finished_run_is_told_with_counts_cost_and_time(output: Path) -> None:
    """The manifest's counts are shown as they are; money stays text."""
    status = read_status(str(output), now())
    run = status["runs"][0]
    assert run["rows"] == {"in": 2, "enriched": 1, "dead_lettered": 0, "pending": 1}
    assert run["cost_usd"] == "0.0000345"
    assert run["duration_s"] == 90.0
    assert status["latest_run_id"] == RUN_1
    assert status["pending_rows"] == 1
    assert status["lease"] is None


def test_the_ledger_is_counted_in_settled_requests(output: Path) -> None:
    """One call settled one request, in one segment."""
    ledger = read_status(str(output), now())["ledger"]
    assert (ledger["segments"], ledger["settled_requests"]) == (1, 1)
    assert ledger["bytes"] > 0


def test_a_run_under_way_is_running_while_it_holds_the_lease_and_killed_after(output: Path) -> None:
    """A manifest that says running means a live run only as long as its lease does."""
    write_run(output, RUN_2, rows=[], finish=False)
    with Lease(str(output / "ledger"), RUN_2):
        status = read_status(str(output), now())
        assert status["lease"]["run_id"] == RUN_2
        assert status["lease"]["alive"] is True
        assert status["runs"][-1]["status"] == "running"
    assert read_status(str(output), now())["runs"][-1]["status"] == "killed"
    assert read_status(str(output), now())["latest_run_id"] == RUN_1


def test_an_expired_lease_holds_nobody(output: Path) -> None:
    """After its expiry a lease is shown as left behind."""
    with Lease(str(output / "ledger"), RUN_2):
        later = datetime.fromtimestamp(now().timestamp() + 3600, UTC)
        assert read_status(str(output), later)["lease"]["alive"] is False


def test_open_batches_are_told_with_their_phase_and_the_provider_s_id(output: Path) -> None:
    """One that was collected is not open any more."""
    ledger = str(output / "ledger")
    assert read_status(str(output), now())["batches"] == []
    write_staged(ledger, make_staged(request_count=1200))
    for kind in ("intent", "handle"):
        WRITERS[kind](ledger, 0)
    status = read_status(str(output), now())
    (batch,) = status["batches"]
    assert (batch["phase"], batch["provider_batch_id"], batch["requests"]) == ("submitted", "batch_0", 1200)
    for width in (80, 120):
        console = Console(width=width, markup=False)
        with console.capture() as shown:
            draw_status(status, console)
        assert "1 open batch: 1 submitted" in shown.get()
        assert f"{batch['short_key']}  submitted     1,200" in shown.get()
        assert all(len(line) <= width for line in shown.get().splitlines())
    for kind in ("ended", "collected"):
        WRITERS[kind](ledger, 0)
    assert read_status(str(output), now())["batches"] == []


def test_a_folder_that_is_no_output_is_an_error(tmp_path: Path) -> None:
    """The sentence says what to name instead."""
    with pytest.raises(ConfigError, match="not the output of a job"):
        read_status(str(tmp_path), now())


@pytest.mark.parametrize(("width", "shown"), [(80, False), (120, True)])
def test_the_table_fits_the_terminal(output: Path, width: int, shown: bool) -> None:
    """A narrow terminal gets fewer columns, and whole run ids all the same."""
    console = Console(width=width, markup=False)
    with console.capture() as shown_text:
        draw_status(read_status(str(output), now()), console)
    text = shown_text.get()
    assert RUN_1 in text
    assert ("calls" in text) is shown


def test_a_very_narrow_terminal_cuts_no_cost(output: Path) -> None:
    """The cost is what is looked for; a run's id goes on in the next line."""
    console = Console(width=40, markup=False)
    with console.capture() as shown:
        draw_status(read_status(str(output), now()), console)
    text = shown.get()
    assert "…" not in text
    assert money(read_status(str(output), now())["runs"][-1]["cost_usd"]) in text
    assert all(len(line) <= 40 for line in text.splitlines())
