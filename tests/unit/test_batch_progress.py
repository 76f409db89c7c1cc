"""Progress of batches: what is told of each, when an ETA is given, and how it fits on a terminal or a line."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pipelines import progress, run_meter
from pipelines.batch_display import choose, describe_batches, draw_batches, eta_words, facts_of
from pipelines.batch_progress import BatchMeter, BatchSight
from pipelines.progress import describe
from pipelines.run_meter import Meter
from tests.unit.batch_file_builders import KEY, WRITERS, make_staged
from transforms._batch_board import BatchBoard, BatchView
from transforms.records.batch import BatchRef, BatchState, BatchStatus, BatchTurn, Turn
from transforms.storage.batch_entry import Void
from transforms.storage.batch_ledger import record_void, write_staged

NOW = 1_795_000_000.0
REF = BatchRef(KEY, "b0123456789", "run", "asked", 1000, 1, 1)


def make_view(**changes: Any) -> BatchView:
    """Return a batch of 1,000 requests, submitted 100 s ago and looked at just now."""
    view = BatchView("b0123456789", 1000, "running", 200, 50, NOW - 100, NOW, True, "batch_67f7bfc50b2881901a2b3c4d")
    return replace(view, **changes)


def see(*views: BatchView, provider: str | None = "openai", now_s: float = NOW) -> list[BatchSight]:
    """Return what a display sees that looks for the first time."""
    return list(BatchMeter().read(views, provider, now_s))


def test_an_eta_needs_counts_that_have_moved() -> None:
    """The first look says nothing of the pace; the second does: linear from submission and the share settled."""
    meter = BatchMeter()
    assert meter.read([make_view()], "openai", NOW)[0].eta_s is None
    same = meter.read([make_view(seen_at_s=NOW + 30)], "openai", NOW + 30)[0]
    assert (same.eta_s, same.has_moved) == (None, False)
    moved = meter.read([make_view(completed=450, seen_at_s=NOW + 60)], "openai", NOW + 60)[0]
    assert (moved.settled, moved.eta_s, moved.has_moved) == (500, 160.0, True)
    later = meter.read([make_view(completed=450, seen_at_s=NOW + 60)], "openai", NOW + 100)[0]
    assert later.eta_s == 120.0
    overdue = meter.read([make_view(completed=450, seen_at_s=NOW + 60)], "openai", NOW + 900)[0]
    assert overdue.eta_s is None


def test_a_batch_that_is_done_has_no_eta() -> None:
    """Neither while it waits to be collected nor after."""
    meter = BatchMeter()
    meter.read([make_view()], "openai", NOW)
    for status in ("ended", "collected", "left for the next run"):
        view = make_view(completed=500, seen_at_s=NOW + 9, status=status)
        assert meter.read([view], "openai", NOW + 9)[0].eta_s is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "ETA 1 s"), (59.4, "ETA 59 s"), (60, "ETA 1 min"), (745, "ETA 12 min"), (7500, "ETA 2 h 05 min")],
)
def test_an_eta_is_no_finer_than_a_forecast_can_be(seconds: float, words: str) -> None:
    """Seconds below a minute, minutes below an hour."""
    assert eta_words(seconds) == words


def test_a_provider_without_counts_gets_words_and_no_bar() -> None:
    """Anthropic counts when the batch has ended; nothing is made up before."""
    view = make_view(completed=None, failed=None, shows_progress=False)
    (sight,) = see(view, provider="anthropic")
    assert sight.settled is None
    assert sight.standing == "running, Anthropic gives no counts before the end"
    text = drawn([sight], 80)
    assert "1,000 requests, running, Anthropic gives no counts before the end" in text
    assert "━" not in text


def drawn(sights: list[BatchSight], width: int) -> str:
    """Return the batches as a terminal of that width shows them."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, highlight=False)
    console.print(draw_batches(sights, NOW, console))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_batch_takes_one_line_of_the_terminal(width: int) -> None:
    """What matters least is left out where there is no room."""
    text = drawn([replace(see(make_view())[0], eta_s=745.0)], width)
    assert text.count("\n") == 1
    assert len(text.rstrip("\n")) <= width
    assert ("250 of 1,000, 50 failed, running, ETA 12 min" in text) is (width >= 80)
    assert ("submitted 1 min ago, at 11:05:00 UTC" in text) is (width >= 120)


def write_phase(ledger: str, *kinds: str) -> None:
    """Stage the batch and write files of its first attempt."""
    write_staged(ledger, make_staged())
    for kind in kinds:
        WRITERS[kind](ledger, 0)


def write_full_queue(ledger: str) -> None:
    """Stage the batch and have its first create refused for want of room."""
    write_phase(ledger, "intent")
    record_void(ledger, KEY, 0, Void("too many enqueued tokens", "enqueued_limit", NOW))


def write_throttled(ledger: str) -> None:
    """Stage the batch and have its first create answered with a 429."""
    write_phase(ledger, "intent")
    record_void(ledger, KEY, 0, Void("slow down", "rate_limited", NOW))


@pytest.mark.parametrize(
    ("write", "status", "words"),
    [
        pytest.param(write_phase, "staged", "held back, the provider's limits leave no room yet", id="held-back"),
        pytest.param(write_full_queue, "staged", "held back, the provider's queue is full", id="queue-full"),
        pytest.param(write_full_queue, "rejected", "held back, the provider's queue is full", id="late-token-limit"),
        pytest.param(write_throttled, "staged", "throttled, the provider asked to come again later", id="throttled"),
        pytest.param(
            lambda ledger: write_phase(ledger, "intent"),
            "staged",
            "in doubt, its create got no reply; looking for it at the provider",
            id="in-doubt",
        ),
        pytest.param(
            lambda ledger: write_phase(ledger, "intent", "handle"),
            "staged",
            "submitted by an earlier run, not looked at yet",
            id="adopted",
        ),
        pytest.param(
            write_phase, "left for the next run", "not submitted, left for the next run", id="left-before-it-was-sent"
        ),
        pytest.param(
            lambda ledger: write_phase(ledger, "intent"),
            "left for the next run",
            "in doubt, its create got no reply; the next run looks for it",
            id="left-in-doubt",
        ),
        pytest.param(
            lambda ledger: write_phase(ledger, "intent", "handle"),
            "left for the next run",
            "left, the next run collects it",
            id="left",
        ),
    ],
)
def test_what_holds_a_batch_up_is_said_in_plain_words(tmp_path: Path, write: Any, status: str, words: str) -> None:
    """The board knows only that it is not submitted, or left; the ledger knows why."""
    write(str(tmp_path))
    meter = BatchMeter()
    meter.ledger = str(tmp_path)
    view = BatchView(make_staged().batch_id, 1000, status)
    assert meter.read([view], "openai", NOW)[0].standing == words


def test_without_the_ledger_only_what_is_certain_is_said(tmp_path: Path) -> None:
    """Before the ledger is known, and when it is damaged, which the stages complain about."""
    view = BatchView(make_staged().batch_id, 1000)
    assert see(view)[0].standing == "not submitted yet"
    write_phase(str(tmp_path))
    (tmp_path / "batches" / KEY / "staged.json").write_text("{")
    meter = BatchMeter()
    meter.ledger = str(tmp_path)
    assert meter.read([view], "openai", NOW)[0].standing == "not submitted yet"


def test_of_many_batches_the_totals_and_those_that_move_are_shown() -> None:
    """Seven lines at most, the last of which counts the others."""
    views = [make_view(batch_id=f"b{n:010d}", provider_batch_id=None) for n in range(12)]
    views += [make_view(batch_id=f"c{n:010d}", provider_batch_id=None, status="collected") for n in range(8)]
    meter = BatchMeter()
    meter.read(views, "openai", NOW)
    moved = [replace(view, completed=300, seen_at_s=NOW + 9) if n in (3, 11) else view for n, view in enumerate(views)]
    sights = meter.read(moved, "openai", NOW + 9)
    shown, rest = choose(sights)
    assert {"b0000000003", "b0000000011"} < {sight.view.batch_id for sight in shown}
    assert (len(shown), len(rest)) == (6, 14)
    text = drawn(list(sights), 100)
    assert text.count("\n") == 7
    assert "and 14 more: 8 collected, 6 running" in text
    words = describe_batches(sights, NOW + 9)
    assert words.startswith("waiting for 20 batches of 20,000 requests, 5,200 done; ..00000000: 250 of 1,000")


def test_an_event_lists_every_batch_with_its_facts() -> None:
    """A log reader gets numbers and times, not sentences."""
    assert facts_of(see(make_view()), NOW) == [
        {
            "batch_id": "b0123456789",
            "provider_batch_id": "batch_67f7bfc50b2881901a2b3c4d",
            "status": "running",
            "standing": "running",
            "requests": 1000,
            "completed": 200,
            "failed": 50,
            "submitted_at": "2026-11-18T11:05:00Z",
            "submitted_ago_s": 100,
            "eta_s": None,
        }
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the stages' counts, the worker and the board of a running pipeline."""
    held = SimpleNamespace(live=Counter(), pool=None, board=BatchBoard())
    monkeypatch.setattr(run_meter, "stage_counts", lambda: held.live)
    monkeypatch.setattr(run_meter, "pool_in_use", lambda: held.pool)
    monkeypatch.setattr(run_meter, "provider_in_use", lambda: "openai")
    monkeypatch.setattr(run_meter, "board", held.board)
    return held


def make_state(status: BatchStatus, completed: int, failed: int = 0) -> BatchState:
    """Return what a status check gives."""
    return BatchState("batch_1", status, str(status), completed=completed, failed=failed)


def test_the_meter_follows_a_run_through_its_batches_to_the_calls_they_leave(run: SimpleNamespace) -> None:
    """Reading, waiting, calling for what the batches left unanswered, writing."""
    meter = Meter(is_local=True)
    run.live.update({"ReadRows/rows_read": 1000, "ReuseAnswers/requests_fresh": 1000})
    assert meter.read().stage == "reading"
    run.live["StageBatches/groups_staged"] += 1
    assert describe(meter.read()) == "submitting batches"
    run.board.state(REF, make_state(BatchStatus.RUNNING, 0), True, NOW)
    run.board.state(REF, make_state(BatchStatus.RUNNING, 400, 10), True, NOW)
    seen = meter.read()
    assert (seen.stage, seen.total, seen.done, seen.failed) == ("waiting", 1000, 410, 10)
    run.board.turn(REF, BatchTurn(REF, Turn.ENDED))
    assert describe(meter.read()).startswith("collecting the results of 1 batch of 1,000 requests")
    run.board.collected(REF, 980, 20)
    run.pool = SimpleNamespace(accepted=20, settled=5, in_flight=15, stats={})
    seen = meter.read()
    assert (seen.stage, seen.total, seen.done, seen.failed) == ("calling", 20, 5, 0)
    run.pool = SimpleNamespace(accepted=20, settled=20, in_flight=0, stats={})
    assert describe(meter.read()) == "1,000 of 1,000 requests answered; joining and writing"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_batches_stand_under_the_bar_while_the_run_waits(run: SimpleNamespace, width: int) -> None:
    """The main line and a line per batch, none wider than the terminal; nothing but the main line before and after."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with progress._Bar(is_local=True, console=console) as bar:
        bar.update()
        assert len(list(bar._progress.get_renderables())) == 1
        run.board.state(REF, make_state(BatchStatus.RUNNING, 400), True, NOW)
        bar.update()
        with console.capture() as shown:
            console.print(bar._progress.get_renderable())
        run.board.collected(REF, 1000, 0)
        bar.update()
        assert len(list(bar._progress.get_renderables())) == 1
    lines = [line.removeprefix("\r\x1b[2K") for line in shown.get().rstrip("\n").split("\n")]
    assert "Waiting" in lines[0]
    assert "400/1,000" in lines[0]
    assert "400 of 1,000, running" in lines[1]
    assert all(len(line) <= width for line in lines)


def test_the_bar_pulses_while_a_provider_gives_no_counts(run: SimpleNamespace) -> None:
    """The number of requests was known before; it must not become a bar that stands at nothing."""
    console = Console(width=100, file=io.StringIO(), force_terminal=True, color_system=None)
    with progress._Bar(is_local=True, console=console) as bar:
        run.live["ReuseAnswers/requests_fresh"] += 1000
        bar.update()
        assert bar._progress.tasks[0].total == 1000
        run.board.state(REF, make_state(BatchStatus.RUNNING, 0), False, NOW)
        bar.update()
        assert bar._progress.tasks[0].total is None
        run.board.state(REF, make_state(BatchStatus.COMPLETED, 1000), False, NOW)
        bar.update()
        assert bar._progress.tasks[0].total == 1000
        assert not bar._progress.tasks[0].finished
