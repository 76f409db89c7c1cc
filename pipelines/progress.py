"""How a run is getting on: a bar on a terminal, a line every ten seconds elsewhere.

A thread looks at the counts that the stages keep in this process (`_stage.live`) and at the pool of calls; it never
touches the pipeline. A run on another runner has no counts here: it gets a spinner only.
"""

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, Self

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipelines.screen import make_console
from pipelines.text import duration, number

Form = Literal["bar", "lines", "events", "none"]

_POLL_S = 0.25
_LINE_EVERY_S = 10.0
_LOCAL_RUNNERS = {"", "directrunner", "fnapirunner", "bundlebaseddirectrunner"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is.

    Attributes:
        stage: reading, calling, writing, or running (elsewhere).
        read: rows read so far; 0 until the first file is through.
        total: requests to send, as far as known; done: of these, settled.
        in_flight: at most; failed: requests given up; retried: tries made again.
    """

    stage: Literal["reading", "calling", "writing", "running"]
    read: int = 0
    total: int = 0
    done: int = 0
    in_flight: int = 0
    failed: int = 0
    retried: int = 0


class Meter:
    """Reads the counts of this process; what was there before it was made does not count."""

    def __init__(self, *, is_local: bool) -> None:
        self._is_local = is_local
        self._pool_done = self._pool_accepted = 0
        self._calls: Counter[str] = Counter()
        self._before = Counter(stage_counts()) if is_local else Counter()

    def read(self) -> Snapshot:
        """Return the counts as they are now."""
        if not self._is_local:
            return Snapshot("running")
        now = Counter(stage_counts())
        now.subtract(self._before)
        pool = pool_in_use()
        in_flight = 0
        if pool is not None:
            self._pool_done, self._pool_accepted = pool.settled, pool.accepted
            in_flight = pool.in_flight
            self._calls = Counter(dict(pool.stats))
        errors = _errors(self._calls, "errors_")
        retried = self._calls["retries"]
        total = max(now["ReuseAnswers/requests_fresh"], self._pool_accepted)
        done = self._pool_done
        return Snapshot(
            stage=_stage(now, total, done, self._pool_accepted),
            read=now["ReadRows/rows_read"],
            total=total,
            done=done,
            in_flight=max(0, in_flight),
            failed=max(0, errors - retried),
            retried=retried,
        )


def stage_counts() -> Counter[str]:
    """Return the live counts of this process's stages."""
    # Imported here: stages bring Beam, which nothing but a run has to wait for.
    from transforms._stage import live

    return live


def pool_in_use() -> Any:
    """Return this process's pool of calls, or None before and after there is one."""
    from transforms import _worker

    worker = _worker.current()
    return None if worker is None else worker.pool


def _errors(counts: Counter[str], prefix: str) -> int:
    return sum(count for name, count in counts.items() if name.startswith(prefix))


def _stage(now: Counter[str], total: int, done: int, accepted: int) -> Literal["reading", "calling", "writing"]:
    if now["JoinAnswers/rows_enriched"] or now["JoinAnswers/rows_failed"] or (total and done >= total):
        return "writing"
    return "calling" if accepted else "reading"


def is_local_run(beam_args: Sequence[str]) -> bool:
    """Say whether these Beam options run the pipeline in this process, where its counts can be seen."""
    runner, mode = "", ""
    for word, following in zip_longest(beam_args, beam_args[1:], fillvalue=""):
        name, _, value = word.partition("=")
        if name == "--runner":
            runner = value or following
        elif name == "--direct_running_mode":
            mode = value or following
    return runner.rsplit(".", 1)[-1].lower() in _LOCAL_RUNNERS and mode in ("", "in_memory", "multi_threading")


def choose_form(*, as_json: bool, log_format: str) -> Form:
    """Choose how to show progress: a bar on a terminal; else events for machines, lines for people, neither for JSON."""
    if sys.stderr.isatty() and log_format != "json":
        return "bar"
    if log_format == "json":
        return "events"
    return "none" if as_json else "lines"


@contextmanager
def shown_progress(form: Form, *, is_local: bool) -> Iterator[None]:
    """Show progress on standard error until the block ends."""
    if form == "none":
        yield
        return
    display = _Bar(is_local=is_local) if form == "bar" else _Lines(is_local=is_local, events=form == "events")
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(display, stop), name="rowbeam-progress", daemon=True)
    with display:
        thread.start()
        try:
            yield
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
    words = f"{number(seen.done)} of {number(seen.total)} requests answered" if seen.total else "no requests to send"
    extra = [f"{number(seen.in_flight)} in flight"] if seen.stage == "calling" else []
    extra += [f"{number(seen.failed)} failed"] if seen.failed else []
    extra += [f"{number(seen.retried)} retried"] if seen.retried else []
    tail = "; joining and writing" if seen.stage == "writing" else ""
    return ", ".join([words, *extra]) + tail


class _RateColumn(ProgressColumn):
    """Requests a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="dim")


class _Bar:
    """The display for a terminal."""

    def __init__(self, *, is_local: bool, console: Console | None = None) -> None:
        self._meter = Meter(is_local=is_local)
        self._console = console or make_console(sys.stderr)
        self._progress = Progress(
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
        self._task = self._progress.add_task("Starting", total=None, counts="", extra="")
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
        extra = f"{number(seen.in_flight)} in flight" if seen.stage == "calling" else ""
        if seen.failed and self._console.width >= 72:
            extra += f"  {number(seen.failed)} failed"
        if seen.retried and self._console.width >= 90:
            extra += f"  {number(seen.retried)} retried"
        self._progress.update(
            self._task,
            description=_WORDS[seen.stage],
            total=seen.total or None if seen.stage != "running" else None,
            completed=seen.done,
            counts=f"{number(seen.done)}/{number(seen.total)}" if seen.total else _read_words(seen),
            extra=extra.strip(),
        )


_WORDS = {"reading": "Reading", "calling": "Calling", "writing": "Writing", "running": "Running"}


def _read_words(seen: Snapshot) -> str:
    return f"{number(seen.read)} rows" if seen.read else ""
