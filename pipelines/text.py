"""Numbers, money, times and long values as people read them. Pure; used by every command's display."""

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from unicodedata import east_asian_width

import orjson

UNKNOWN = "unknown"
_CUT = "..."


def number(value: int | None) -> str:
    """Return a count with thousands separators; "-" for a count that is not known."""
    return "-" if value is None else f"{value:,}"


def plural(value: int, word: str, words: str | None = None) -> str:
    """Return "1 row", "1,200 rows"; `words` where the plural is not `word` and an s."""
    return f"{value:,} {word if value == 1 else words or word + 's'}"


def money(usd: Decimal | str | None) -> str:
    """Return US dollars with the digits that matter: $1,234.56, $0.0412, $0.0000123; "unknown" for None."""
    if usd is None:
        return UNKNOWN
    value = Decimal(usd)
    if value == 0:
        return "$0"
    size = abs(value)
    if size >= 100:
        return f"${value:,.2f}"
    if size >= Decimal("0.01"):
        return f"${value:,.4f}"
    places = 2 - size.adjusted()
    return f"${value:.{places}f}"


def duration(seconds: float | None) -> str:
    """Return 0.4 s, 12 s, 3 min 20 s, 2 h 05 min, 3 d 4 h; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def milliseconds(value: float | None) -> str:
    """Return 12 ms or 1.23 s; "-" for None."""
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.2f} s"


def moment(iso: str | None) -> str:
    """Return an ISO 8601 time as 2026-11-21 05:34:12 UTC; "-" for None."""
    if iso is None:
        return "-"
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(count: int) -> str:
    """Return bytes as 512 bytes, 1.5 kB, 20 MB (powers of 1,000)."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def one_line(value: object, width: int) -> str:
    """Return a value's text on one line of at most `width` terminal cells, "..." where it is cut."""
    text = " ".join(printable("" if value is None else str(value)).split())
    if cells(text) <= width:
        return text
    room = width - len(_CUT)
    kept = list(itertools.takewhile(lambda filled: filled <= room, itertools.accumulate(map(cells, text))))
    return text[: len(kept)].rstrip() + _CUT


def value_text(value: Any) -> str:
    """Return a value of a row or an answer as text: lists and objects as JSON, nothing as null."""
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str).decode()
    return "null" if value is None else str(value)


def cells(text: str) -> int:
    """Return how many terminal cells a text fills: two for a wide character, such as most of Chinese and Japanese."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(c) in "WF" else 1 for c in text)


def printable(text: str) -> str:
    r"""Write control characters as \xNN, so that a row's text can't drive the terminal; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)
