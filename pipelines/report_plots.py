"""The report's pictures: facts of a run in, SVG out, drawn by matplotlib without a display.

Every picture has the page's words beside it (a table or a sentence), so none is the only carrier of a fact; colours
are told apart by people with colour blindness too (Okabe and Ito's set). A label in a script that no font of the machine
has is drawn as its number in the table. Equal facts give equal bytes, on machines with the same fonts.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#9aa0a6",
)  # fmt: skip
_INK, _FAINT = "#25282c", "#6b7177"
#: Comes with matplotlib; has Latin, Greek, Cyrillic, Hebrew, Arabic and many signs.
_FONT = "DejaVu Sans"
_WEIGHT = 400
#: Fonts that have a box or nothing for every letter, letters at the wrong places, or pictures that can't be drawn.
_NO_FONTS = re.compile(r"last ?resort|blank|emoji|color|^cm[a-z]+[0-9]+$|^stix.*(nonuni|siz)", re.IGNORECASE)
_STYLE: Any = {
    "svg.hashsalt": "rowbeam",
    "svg.fonttype": "path",
    "font.family": _FONT,
    "font.size": 9,
    "axes.edgecolor": "#c4c8cc",
    "axes.labelcolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _FAINT,
    "ytick.color": _INK,
    "text.color": _INK,
    "axes.axisbelow": True,
    "grid.color": "#e6e8ea",
}
_WIDTH = 8.2
_BREAKS = frozenset("\n")
_MOST_BATCHES = 30
_OUTCOMES = {"enriched": GREEN, "dead_lettered": RED, "pending": ORANGE}
_WORDS = {"enriched": "enriched", "dead_lettered": "dead letters", "pending": "pending"}


def outcome_plot(rows: dict[str, Any]) -> bytes | None:
    """Draw where the rows ended as one bar; None without rows."""
    counts = [(name, rows.get(name) or 0) for name in _OUTCOMES]
    total = sum(count for _, count in counts)
    if not total:
        return None
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(1.0)
        left = 0
        for name, count in counts:
            if count:
                label = f"{_WORDS[name]} {count:,} ({count / total:.1%})"
                axes.barh(0, count, left=left, color=_OUTCOMES[name], height=0.55, label=label)
                left += count
        axes.set_xlim(0, total)
        axes.axis("off")
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.55), frameon=False, handlelength=1)
        return _svg(figure)


def cost_plot(by: Sequence[dict[str, Any]]) -> bytes | None:
    """Draw US dollars by model and mode; None where no cost is known, or there is a single one."""
    named = [(f"{_short(str(one['model']))}\n{one['mode']}", one["cost_usd"]) for one in by]
    known = [(name, float(usd)) for name, usd in named if usd is not None]
    if len(known) < 2 or not any(usd for _, usd in known):
        return None
    return _bars(known, "US dollars", BLUE, lambda usd: f"${usd:,.4g}")


def histogram_plot(title: str, stats: dict[str, Any] | None, color: str = BLUE) -> bytes | None:
    """Draw a histogram {"histogram": [{low, high, count}], "p50", "p99" ...}; None where there is nothing to draw."""
    bins = (stats or {}).get("histogram") or []
    if stats is None or not bins or sum(one["count"] for one in bins) < 2:
        return None
    with mpl.rc_context(_style([title])):
        figure, axes = _figure(2.1, width=_WIDTH / 2.4)
        lows = [one["low"] for one in bins]
        widths = [max(one["high"] - one["low"], 1e-9) for one in bins]
        axes.bar(lows, [one["count"] for one in bins], widths, align="edge", color=color, edgecolor="white", lw=0.5)
        for name, dash in (("p50", "-"), ("p99", ":")):
            if stats.get(name) is not None:
                axes.axvline(stats[name], color=_INK, lw=1, ls=dash, label=f"{name} {_plain(stats[name])}")
        axes.set_xlabel(_short(title) if is_drawable(title) else "values")
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: _plain(value)))
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.98), borderpad=0)
        return _svg(figure)


def timeline_plot(batches: Sequence[dict[str, Any]]) -> bytes | None:
    """Draw when each provider batch was under way; None without one that has both ends."""
    spans = [
        (one, datetime.fromisoformat(one["submitted_at"]), datetime.fromisoformat(one["ended_at"]))
        for one in batches
        if one["mode"] == "provider_batch_api" and one["submitted_at"] and one["ended_at"]
    ][-_MOST_BATCHES:]
    if not spans:
        return None
    start = min(begun for _, begun, _ in spans)
    scale, unit = _time_unit(max((ended - start).total_seconds() for _, _, ended in spans))
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(0.9 + 0.26 * len(spans))
        for place, (one, begun, ended) in enumerate(spans):
            color = GREEN if one["status"] == "completed" else ORANGE if one["pending"] else RED
            from_s, length = (begun - start).total_seconds() / scale, (ended - begun).total_seconds() / scale
            axes.barh(place, length, left=from_s, color=color, height=0.6)
            axes.text(
                from_s + length, place, f"  {one['status']}, {one['request_count']:,} requests", va="center", fontsize=8
            )
        axes.set_yticks(range(len(spans)), [str(one["batch_id"])[-8:] for one, _, _ in spans], fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.35)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{unit} since the first was submitted")
        axes.grid(axis="x")
        return _svg(figure)


def traffic_plot(timeline: Sequence[dict[str, Any]]) -> bytes | None:
    """Draw calls over the run's time, by what became of them; None without calls."""
    if len(timeline) < 2 or not any(one["calls"] for one in timeline):
        return None
    scale, unit = _time_unit(timeline[-1]["to_s"])
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.1)
        places = [one["from_s"] / scale for one in timeline]
        widths = [max((one["to_s"] - one["from_s"]) / scale, 1e-9) for one in timeline]
        floor = [0] * len(timeline)
        parts = (
            ("ok", "answered", GREEN),
            ("rate_limited", "rate limited", ORANGE),
            ("other_errors", "other errors", RED),
        )
        for key, label, color in parts:
            counts = [one[key] for one in timeline]
            if any(counts):
                axes.bar(places, counts, widths, bottom=floor, align="edge", color=color, label=label)
                floor = [a + b for a, b in zip(floor, counts, strict=True)]
        axes.set_xlabel(f"{unit} since the run began")
        axes.set_ylabel("calls sent")
        axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
        axes.grid(axis="y")
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2), fontsize=8)
        return _svg(figure)


def answer_plot(answer: dict[str, Any]) -> bytes | None:
    """Draw how one field's answers are distributed; None where there is nothing to draw."""
    if answer["kind"] in ("category", "boolean") and answer["values"]:
        shown = [(_short(word(one["value"])), float(one["count"])) for one in answer["values"]]
        total = max(answer["count"], 1)
        return _bars(shown, "rows", PURPLE, lambda count: f"{count:,.0f} ({count / total:.1%})")
    if answer["kind"] == "number" and answer["histogram"]:
        stats = {**(answer["stats"] or {}), "histogram": answer["histogram"]}
        return histogram_plot(answer["field"], stats, PURPLE)
    return None


def word(value: Any) -> str:
    """Return an answer's value as pictures and tables say it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_drawable(text: str) -> bool:
    """Say whether fonts of this machine have every letter of a text."""
    return None not in map(_font_with, set(text) - _BREAKS)


def _style(texts: Iterable[str]) -> Any:
    """Return the style of a picture with these texts: the usual font first, then those that have what it lacks."""
    letters = sorted({letter for text in texts for letter in text} - _BREAKS)
    fonts = [_FONT, *(font for letter in letters if (font := _font_with(letter)) is not None)]
    return {**_STYLE, "font.family": list(dict.fromkeys(fonts))}


@cache
def _font_with(letter: str) -> str | None:
    """Return the first font that has a letter."""
    return next((name for name in _fonts() if ord(letter) in _letters(name)), None)


@cache
def _fonts() -> dict[str, str]:
    """Return the files of this machine's fonts by name, the usual one and plain ones first.

    Only of fonts that have upright letters of usual weight: matplotlib takes no other for these names.
    """
    upright = [font for font in font_manager.fontManager.ttflist if font.style == "normal" and font.weight == _WEIGHT]
    files = {font.name: font.fname for font in upright if font.stretch == "normal" and not _NO_FONTS.search(font.name)}
    return {
        name: files[name] for name in sorted(files, key=lambda name: (name != _FONT, "sans" not in name.lower(), name))
    }


@cache
def _letters(name: str) -> frozenset[int]:
    """Return the letters of a font; none of one that can't be read or drawn."""
    try:
        font = font_manager.get_font(_fonts()[name])
    except (RuntimeError, OSError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


def _bars(shown: Sequence[tuple[str, float]], xlabel: str, color: str, say: Callable[[float], str]) -> bytes:
    shown = [
        (name if is_drawable(name) else f"no. {place} (see the table)", value)
        for place, (name, value) in enumerate(shown, 1)
    ]
    with mpl.rc_context(_style(name for name, _ in shown)):
        lines = sum(1 + name.count("\n") for name, _ in shown)
        figure, axes = _figure(0.75 + 0.24 * max(lines, 2))
        places = range(len(shown))
        axes.barh(places, [value for _, value in shown], color=color, height=0.62)
        for place, (_, value) in zip(places, shown, strict=True):
            axes.text(value, place, f"  {say(value)}", va="center", fontsize=8)
        axes.set_yticks(places, [name for name, _ in shown])
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_xlabel(xlabel)
        axes.grid(axis="x")
        return _svg(figure)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _short(text: str, most: int = 32) -> str:
    # A dollar sign would start a formula.
    text = " ".join(text.split()).replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1] + "…"


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds > 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds > 180 else (1.0, "seconds")


def _figure(height: float, width: float = _WIDTH) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return buffer.getvalue()
