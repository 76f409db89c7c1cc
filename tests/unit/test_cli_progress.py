"""Progress of a run: where it is shown, in which form, and what the counts become in words."""

import io
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pipelines import progress, run_meter
from pipelines.progress import choose_form, describe, shown_progress
from pipelines.run_meter import Meter, Snapshot, is_local_run


@pytest.mark.parametrize(
    ("arguments", "local"),
    [
        pytest.param([], True, id="none"),
        pytest.param(["--runner=DirectRunner"], True, id="direct"),
        pytest.param(["--runner", "FlinkRunner"], False, id="flink"),
        pytest.param(["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"], True, id="full-name"),
        pytest.param(["--direct_running_mode=multi_processing"], False, id="other-processes"),
        pytest.param(["--direct_running_mode", "multi_threading"], True, id="threads"),
        pytest.param(["--direct_num_workers=2"], False, id="workers"),
        pytest.param(["--direct_num_workers", "2", "--direct_running_mode=multi_threading"], True, id="worker-threads"),
        pytest.param(["--direct_num_workers=1"], True, id="one-worker"),
    ],
)
def test_only_runs_in_this_process_have_counts(arguments: list[str], local: bool) -> None:
    """Elsewhere the counts are out of sight."""
    assert is_local_run(arguments) is local


@pytest.mark.parametrize(
    ("as_json", "log_format", "form"),
    [(False, "console", "lines"), (True, "console", "none"), (True, "json", "events"), (False, "json", "events")],
)
def test_without_a_terminal_people_get_lines_and_machines_events(as_json: bool, log_format: str, form: str) -> None:
    """JSON logs stay JSON; `--json` alone keeps standard error for errors."""
    assert choose_form(as_json=as_json, log_format=log_format) == form


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Snapshot("reading"), "reading rows"),
        (Snapshot("reading", read=1200), "reading rows, 1,200 so far"),
        (
            Snapshot("calling", 9, 1000, 250, 50, 2, 7),
            "250 of 1,000 requests answered, 50 in flight, 2 failed, 7 retried",
        ),
        (Snapshot("writing", 9, 9, 9), "9 of 9 requests answered; joining and writing"),
        (Snapshot("writing", 9), "no requests to send; joining and writing"),
        (Snapshot("running"), "the pipeline is running"),
    ],
)
def test_a_snapshot_in_words(seen: Snapshot, words: str) -> None:
    """Counts with separators; nothing that is zero."""
    assert describe(seen) == words


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the stages' counts and the worker, which only a running pipeline has."""
    held = SimpleNamespace(live=Counter(), pool=None)
    monkeypatch.setattr(run_meter, "stage_counts", lambda: held.live)
    monkeypatch.setattr(run_meter, "pool_in_use", lambda: held.pool)
    return held


def make_pool(**values: Any) -> SimpleNamespace:
    """Return what the meter reads of a pool."""
    return SimpleNamespace(**{"accepted": 0, "settled": 0, "in_flight": 0, "stats": {}} | values)


def test_the_meter_follows_a_run_from_reading_to_writing(counts: SimpleNamespace) -> None:
    """Counts of an earlier run in this process don't count."""
    counts.live["ReadRows/rows_read"] = 99
    meter = Meter(is_local=True)
    assert meter.read() == Snapshot("reading")
    counts.live.update({"ReadRows/rows_read": 1000, "ReuseAnswers/requests_fresh": 1000})
    counts.pool = make_pool(accepted=600, settled=10, in_flight=500, stats={"errors_timeout": 3, "retries": 2})
    assert meter.read() == Snapshot("calling", 1000, 1000, 10, 500, 1, 2)
    counts.pool = make_pool(accepted=1000, settled=1000, stats={"errors_timeout": 3, "retries": 2})
    assert meter.read() == Snapshot("writing", 1000, 1000, 1000, 0, 1, 2)
    counts.pool = None
    assert meter.read() == Snapshot("writing", 1000, 1000, 1000, 0, 1, 2)


def test_a_run_on_another_runner_has_no_counts() -> None:
    """Only that it runs is known."""
    assert Meter(is_local=False).read() == Snapshot("running")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_fits_the_terminal(counts: SimpleNamespace, width: int) -> None:
    """Description, bar, counts and rate stay on one line."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with progress._Bar(is_local=True, console=console) as bar:
        counts.live.update({"ReuseAnswers/requests_fresh": 1_000_000})
        stats = {"errors_timeout": 12, "retries": 3}
        counts.pool = make_pool(accepted=600_000, settled=500_000, in_flight=500, stats=stats)
        bar.update()
        with console.capture() as shown:
            console.print(bar._progress.get_renderable())
    lines = [line.removeprefix("\r\x1b[2K") for line in shown.get().split("\n")]
    assert "500,000/1,000,000" in lines[0]
    assert len(lines[0]) <= width


def test_a_short_run_prints_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The first line is due after ten seconds."""
    with shown_progress("lines", is_local=False):
        pass
    assert capsys.readouterr().err == ""
