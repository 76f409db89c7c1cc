"""Batches under way in words, as lines under a bar, and as facts of a log event; draws what `batch_progress.py` found."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.batch_progress import BatchSight
from pipelines.text import cells, duration, number, one_line, plural

#: Batches that get a line of their own; with more, those that move.
MOST_LINES = 6
_BAR_CELLS = 16
_WIDE_CELLS = 100
_ID_CELLS = 10
_DAY_S = 86_400


def settled_of(sights: Sequence[BatchSight]) -> int | None:
    """Return how many requests of all batches are done with; None while a provider gives no counts."""
    counts = [sight.settled for sight in sights]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def is_over(sights: Sequence[BatchSight]) -> bool:
    """Say whether there are batches and none has anything more to wait for than being collected."""
    return bool(sights) and all(not sight.is_open or sight.is_ended for sight in sights)


def describe_batches(sights: Sequence[BatchSight], now_s: float) -> str:
    """Return all batches in words, on one line: totals, then the batches one by one, or those that move."""
    if not sights:
        return "submitting batches"
    requests = sum(sight.view.requests for sight in sights)
    settled = settled_of(sights)
    many = f"{plural(len(sights), 'batch', 'batches')} of {plural(requests, 'request')}"
    words = f"collecting the results of {many}" if is_over(sights) else f"waiting for {many}"
    if settled:
        words += f", {number(settled)} done"
    shown, rest = choose(sights)
    parts = [f"{short_id(sight)}: {', '.join(_parts(sight, now_s))}" for sight in shown]
    if rest:
        parts.append(_rest_words(rest))
    return "; ".join([words, *parts])


def choose(sights: Sequence[BatchSight]) -> tuple[list[BatchSight], list[BatchSight]]:
    """Choose the batches to show one by one and, of more than MOST_LINES, those that only count: (shown, rest)."""
    if len(sights) <= MOST_LINES:
        return list(sights), []
    by_interest = sorted(sights, key=lambda sight: (not sight.has_moved or not sight.is_open, not _is_running(sight)))
    interesting = [sight for sight in by_interest if sight.is_open and (sight.has_moved or _is_running(sight))]
    chosen = {sight.view.batch_id for sight in interesting[:MOST_LINES]}
    shown = [sight for sight in sights if sight.view.batch_id in chosen]
    return shown, [sight for sight in sights if sight.view.batch_id not in chosen]


def facts_of(sights: Sequence[BatchSight], now_s: float) -> list[dict[str, Any]]:
    """Return the batches as JSON values, for a log event."""
    return [
        {
            "batch_id": sight.view.batch_id,
            "provider_batch_id": sight.view.provider_batch_id,
            "status": sight.view.status,
            "standing": sight.standing,
            "requests": sight.view.requests,
            "completed": sight.view.completed,
            "failed": sight.view.failed,
            "submitted_at": None
            if sight.view.submitted_at_s is None
            else _clock(sight.view.submitted_at_s).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "submitted_ago_s": _ago_s(sight, now_s),
            "eta_s": None if sight.eta_s is None else round(sight.eta_s),
        }
        for sight in sights
    ]


def short_id(sight: BatchSight) -> str:
    """Return the end of a batch's id, which tells it from others; the provider's id once there is one."""
    name = sight.view.provider_batch_id or sight.view.batch_id
    return name if cells(name) <= _ID_CELLS else f"..{name[2 - _ID_CELLS :]}"


def eta_words(seconds: float) -> str:
    """Return "ETA 40 s", "ETA 12 min", "ETA 3 h 05 min": no finer than a forecast can be."""
    if seconds < 60:
        return f"ETA {max(1, round(seconds))} s"
    if seconds < 3600:
        return f"ETA {round(seconds / 60)} min"
    return f"ETA {duration(seconds)}"


class BatchLines(Progress):
    """A progress display with a line per batch under its bars; `sights` empty: rich's own, unchanged."""

    sights: Sequence[BatchSight] = ()
    now_s: float = 0.0

    def get_renderables(self) -> Any:
        """Give the bars, then the batches."""
        yield from super().get_renderables()
        if self.sights:
            yield draw_batches(self.sights, self.now_s, self.console)


def draw_batches(sights: Sequence[BatchSight], now_s: float, console: Console) -> RenderableType:
    """Lay out a line per batch, none wider than the console; with many batches, of those that move."""
    shown, rest = choose(sights)
    # A line of words alone needs the room that bars would take.
    with_bars = any(map(_has_bar, shown)) and all(_has_bar(sight) or not sight.is_submitted for sight in shown)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, width=_ID_CELLS + 2)
    bar_cells = _BAR_CELLS if console.width >= _WIDE_CELLS else _BAR_CELLS // 2
    if with_bars:
        table.add_column(width=bar_cells)
    room = console.width - _ID_CELLS - 3 - (bar_cells + 1 if with_bars else 0)
    table.add_column(no_wrap=True, width=room)
    for sight in shown:
        bar = [_bar(sight, bar_cells)] if with_bars else []
        table.add_row(Text(f"  {short_id(sight)}", "dim"), *bar, _fitting(_parts(sight, now_s), room))
    if rest:
        words = _rest_words(rest) if shown else f"{plural(len(rest), 'batch', 'batches')}: {_standings(rest)}"
        table.add_row("", *([""] if with_bars else []), Text(one_line(words, room), "dim"))
    return table


def _has_bar(sight: BatchSight) -> bool:
    return sight.settled is not None and sight.is_submitted


def _bar(sight: BatchSight, width: int) -> RenderableType:
    return ProgressBar(sight.view.requests, sight.settled or 0, width=width) if _has_bar(sight) else ""


def _parts(sight: BatchSight, now_s: float) -> list[str]:
    """Return what there is to say of a batch, what matters most first."""
    view = sight.view
    parts = [plural(view.requests, "request")]
    if view.completed is not None and sight.is_submitted:
        parts = [f"{number(sight.settled)} of {number(view.requests)}"]
        parts += [f"{number(view.failed)} failed"] if view.failed else []
    parts.append(sight.standing)
    if sight.eta_s is not None:
        parts.append(eta_words(sight.eta_s))
    ago_s = _ago_s(sight, now_s)
    if view.submitted_at_s is not None and ago_s is not None and _is_running(sight):
        form = "at %H:%M:%S UTC" if ago_s < _DAY_S else "on %Y-%m-%d at %H:%M UTC"
        parts += [f"submitted {_coarse(ago_s)} ago", _clock(view.submitted_at_s).strftime(form)]
    return parts


def _fitting(parts: Sequence[str], room: int) -> Text:
    """Join what fits into the room; what matters least goes first."""
    kept = list(parts)
    while len(kept) > 2 and cells(", ".join(kept)) > room:
        kept.pop()
    return Text(one_line(", ".join(kept), room))


def _rest_words(rest: Sequence[BatchSight]) -> str:
    return f"and {plural(len(rest), 'more', 'more')}: {_standings(rest)}"


def _standings(sights: Sequence[BatchSight]) -> str:
    counted = Counter(sight.standing.partition(",")[0] for sight in sights)
    return ", ".join(f"{number(count)} {words}" for words, count in counted.most_common())


def _is_running(sight: BatchSight) -> bool:
    return sight.is_open and not sight.is_ended and sight.is_submitted


def _ago_s(sight: BatchSight, now_s: float) -> int | None:
    submitted_at_s = sight.view.submitted_at_s if sight.is_submitted else None
    return None if submitted_at_s is None else max(0, round(now_s - submitted_at_s))


def _coarse(seconds: int) -> str:
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min" if seconds < 3600 else duration(seconds)


def _clock(at_s: float) -> datetime:
    return datetime.fromtimestamp(round(at_s), UTC)
