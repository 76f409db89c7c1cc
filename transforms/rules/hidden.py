"""The texts that audit must not show of a row: the values of its redacted columns, however deep they lie."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transforms.rules.redaction import REDACTED

#: Where a text was cut, in sentences of ours.
CUT = "..."
#: Shorter beginnings of a hidden value tell nothing.
_TELLING_CHARS = 4


def hidden_values(values: Mapping[str, Any], columns: Iterable[str]) -> tuple[str, ...]:
    """Return the texts of the redacted columns, as a prompt may hold them.

    Of a nested value (JSON lines, Parquet structs and lists) each text and number in it; its keys are no values, and
    true, false and null inside it say nothing.

    Args:
        values: the row.
        columns: the redacted columns; those that the row lacks are passed over.
    """
    found = dict.fromkeys(text for name in columns if values.get(name) is not None for text in _texts(values[name]))
    return tuple(found)


def blank_cut(text: str, forms: Iterable[str]) -> str:
    """Blank the beginnings of hidden values that stand where a text was cut; whole values must be blanked before.

    Args:
        text: what a sentence quotes, with CUT where it was cut.
        forms: how the hidden values may be written.
    """
    known = [form for form in forms if len(form) > _TELLING_CHARS]
    *pieces, last = text.split(CUT)
    return CUT.join([*(_without_beginning(piece, known) for piece in pieces), last])


def _without_beginning(piece: str, forms: list[str]) -> str:
    """Return a piece without the beginning of a hidden value at its end; the longest that fits any of them."""
    longest = 0
    for form in forms:
        for length in range(min(len(form), len(piece)), max(longest, _TELLING_CHARS - 1), -1):
            if piece.endswith(form[:length]):
                longest = length
                break
    return piece[:-longest] + REDACTED if longest else piece


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list | tuple):
        for member in value.values() if isinstance(value, dict) else value:
            if member is not None and not isinstance(member, bool):
                yield from _texts(member)
    else:
        yield str(value)
