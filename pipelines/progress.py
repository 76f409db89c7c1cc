"""How a run is getting on: a bar on a terminal, a line every ten seconds elsewhere.

A thread reads the run's meter (`run_meter.py`) and never touches the pipeline. A run on another runner has no counts
here: it gets a spinner only.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self

import structlog
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipelines.batch_display import BatchLines, describe_batches, facts_of, is_over, settled_of
from pipelines.run_meter import Meter, Snapshot
from pipelines.screen import make_console
from pipelines.text import duration, number, plural

Form = Literal["bar", "lines", "events", "none"]

_POLL_S = 0.25
_LINE_EVERY_S = 10.0


def choose_form(*, as_json: bool, log_format: str) -> Form:
    """Choose how to show progress: a bar on a terminal; else events for machines, lines for people, neither for JSON."""
    if sys.stderr.isatty() and log_format != "json":
        return "bar"
    if log_format == "json":
        return "events"
    return "none" if as_json else "lines"


@contextmanager
def shown_progress(form: Form, *, is_local: bool) -> Iterator[Callable[[str], None]]:
    """Show progress on standard error until the block ends; gives a function that takes the ledger's folder."""
    if form == "none":
        yield lambda _: None
        return
    display = _Bar(is_local=is_local) if form == "bar" else _Lines(is_local=is_local, events=form == "events")
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(display, stop), name="rowbeam-progress", daemon=True)
    with display:
        thread.start()
        try:
            yield display.follow
        finally:
            stop.set()
            thread.join()


def _watch(display: "_Bar | _Lines", stop: threading.Event) -> None:
    while not stop.wait(_POLL_S):
        display.update()


class _Lines:
    """A line of text, or a log event, now and then; none for a run that is over before the first is due."""

    def __init__(self, *, is_local: bool, events: bool, every_s: float = _LINE_EVERY_S) -> None:
        self._meter = Meter(is_local=is_local)
        self.follow = self._meter.follow
        self._events = events
        self._every_s = every_s
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self) -> None:
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        seen = self._meter.read()
        if self._events:
            structlog.get_logger("rowbeam").info(
                "progress",
                stage=seen.stage,
                rows_read=seen.read,
                requests=seen.total,
                settled=seen.done,
                in_flight=seen.in_flight,
                failed=seen.failed,
                retried=seen.retried,
                **({"batches": facts_of(seen.batches, seen.at_s)} if seen.batches else {}),
            )
            return
        sys.stderr.write(f"{duration(now - self._started)}: {describe(seen)}\n")
        sys.stderr.flush()


def describe(seen: Snapshot) -> str:
    """Return a snapshot in words."""
    if seen.stage == "reading":
        return f"reading rows, {number(seen.read)} so far" if seen.read else "reading rows"
    if seen.stage == "running":
        return "the pipeline is running"
    if seen.stage == "waiting":
        return describe_batches(seen.batches, seen.at_s)
    words = f"{number(seen.done)} of {number(seen.total)} requests answered" if seen.total else "no requests to send"
    extra = [f"{number(seen.in_flight)} in flight"] if seen.stage == "calling" else []
    extra += [f"{number(seen.failed)} failed"] if seen.failed else []
    extra += [f"{number(seen.retried)} retried"] if seen.retried else []
    tail = "; joining and writing" if seen.stage == "writing" else ""
    return ", ".join([words, *extra]) + tail


class _RateColumn(ProgressColumn):
    """Requests a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = None if task.fields["is_waiting"] else task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="dim")


class _Bar:
    """The display for a terminal."""

    def __init__(self, *, is_local: bool, console: Console | None = None) -> None:
        self._meter = Meter(is_local=is_local)
        self.follow = self._meter.follow
        self._console = console or make_console(sys.stderr)
        self._progress = BatchLines(
            SpinnerColumn(style="cyan", finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None if self._console.width < 100 else 40),
            TextColumn("{task.fields[counts]}"),
            _RateColumn(),
            TextColumn("{task.fields[extra]}", style="dim"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            speed_estimate_period=30.0,
        )
        self._task = self._progress.add_task("Starting", total=None, counts="", extra="", is_waiting=False)
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []

    def __enter__(self) -> Self:
        self._progress.start()
        # Log lines go above the bar: rich has put its own stream in the place of sys.stderr.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler):
                self._handlers.append((handler, handler.setStream(sys.stderr)))
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        for handler, stream in self._handlers:
            if stream is not None:
                handler.setStream(stream)

    def update(self) -> None:
        seen = self._meter.read()
        is_waiting = seen.stage == "waiting"
        has_counts = seen.stage != "running" and not (is_waiting and settled_of(seen.batches) is None)
        self._progress.sights, self._progress.now_s = seen.batches if _shows_batches(seen) else (), seen.at_s
        if not has_counts:
            # To rich's update None means "as before"; without a total the bar pulses.
            self._progress.tasks[0].total = None
        self._progress.update(
            self._task,
            description="Collecting" if is_waiting and is_over(seen.batches) else _WORDS[seen.stage],
            total=seen.total or None if has_counts else None,
            # A full bar would stop the spinner and the clock while there is still something to wait for.
            completed=min(seen.done, seen.total - 0.5) if is_waiting and seen.total else seen.done,
            counts=_counts(seen, has_counts=has_counts),
            extra=self._extra(seen),
            is_waiting=is_waiting,
        )

    def _extra(self, seen: Snapshot) -> str:
        extra = f"{number(seen.in_flight)} in flight" if seen.stage == "calling" else ""
        if seen.stage == "waiting" and seen.batches:
            extra = plural(len(seen.batches), "batch", "batches")
        if seen.failed and self._console.width >= 72:
            extra += f"  {number(seen.failed)} failed"
        if seen.retried and self._console.width >= 90:
            extra += f"  {number(seen.retried)} retried"
        return extra.strip()


_WORDS = {
    "reading": "Reading",
    "waiting": "Waiting",
    "calling": "Calling",
    "writing": "Writing",
    "running": "Running",
}


def _shows_batches(seen: Snapshot) -> bool:
    return seen.stage == "waiting" or any(sight.is_open for sight in seen.batches)


def _counts(seen: Snapshot, *, has_counts: bool) -> str:
    if not seen.total:
        return f"{number(seen.read)} rows" if seen.read else ""
    return f"{number(seen.done)}/{number(seen.total)}" if has_counts else plural(seen.total, "request")
