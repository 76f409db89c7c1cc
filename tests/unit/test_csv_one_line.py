"""The csv reader that is kept from line to line reads each line as a new one would."""

import csv

from hypothesis import given
from hypothesis import strategies as st

from transforms.storage.csv_rows import _OneLine

_TEXTS = st.text(st.sampled_from('ab",;\t\r é\0'), max_size=12).map(str.encode)
_BYTES = st.binary(max_size=8).map(lambda raw: raw.replace(b"\n", b""))
_LINES = st.lists(st.builds(bytes.__add__, _TEXTS | _BYTES, st.sampled_from([b"", b"\n", b"\r\n"])), max_size=8)


def _read_anew(raw: bytes, delimiter: str) -> list[str] | None:
    """Read a line on its own; None for what is no whole and sound record."""
    try:
        text = raw.decode().rstrip("\r\n")
        if not text or "\0" in text or ("\r" in text and '"' not in text):
            return None
        return next(csv.reader((text,), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None


@given(_LINES, st.sampled_from(",;\t"))
def test_no_line_changes_how_the_next_is_read(lines: list[bytes], delimiter: str) -> None:
    """Quoted, broken, open and plain lines in any order."""
    one_line = _OneLine(delimiter)
    assert [one_line.fields(raw) for raw in lines] == [_read_anew(raw, delimiter) for raw in lines]
