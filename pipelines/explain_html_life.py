"""The timeline of a row's page: moments with the time between them, and calls as bars."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pipelines.text import duration, milliseconds

#: Shorter pauses between two moments are not shown.
_MIN_GAP_S = 2.0
_BAR_WIDTH = 1000


def life(timeline: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the page shows of each moment: {"class", "at", "what", "detail", "gap", "bar"}."""
    longest = max((_bar_ms(one) for one in timeline), default=0.0)
    found, before, day = [], None, None
    for one in timeline:
        at = datetime.fromisoformat(one["at"]).astimezone(UTC)
        gap_s = (at - before).total_seconds() if before else 0.0
        at_words = at.strftime("%H:%M:%S" if at.date() == day else "%Y-%m-%d %H:%M:%S UTC")
        run = f", run {one['run_id']}" if one["kind"] in ("run", "retention") else ""
        found.append(
            {
                "class": _class(one),
                "at": at_words,
                "what": f"{one['what'][0].upper()}{one['what'][1:]}{run}".replace("_", " "),
                "detail": one["detail"],
                "gap": duration(gap_s) if gap_s >= _MIN_GAP_S else None,
                "bar": _bar(one, longest),
            }
        )
        before, day = at, at.date()
    return found


def has_bars(timeline: Sequence[dict[str, Any]]) -> bool:
    """Tell whether any call is drawn as a bar."""
    return any(_bar_ms(one) for one in timeline)


def _class(one: dict[str, Any]) -> str:
    if one["kind"] == "end" and "pending" in one["what"]:
        return "late"
    return f"{one['kind']} error" if one["is_error"] else str(one["kind"])


def _bar_ms(one: dict[str, Any]) -> float:
    if one["kind"] != "call":
        return 0.0
    return float((one["waited_ms"] or 0.0) + (one["took_ms"] or 0.0))


def _bar(one: dict[str, Any], longest: float) -> dict[str, Any] | None:
    if not _bar_ms(one):
        return None
    waited, took = (round(_BAR_WIDTH * one[name] / longest, 1) for name in ("waited_ms", "took_ms"))
    held = f", held back {milliseconds(one['waited_ms'])} before" if one["waited_ms"] >= 1 else ""
    return {"waited": waited, "took": max(took, 2.0), "label": f"{milliseconds(one['took_ms'])}{held}"}
