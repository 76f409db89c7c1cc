"""Finding the few records of a ledger that name something, without reading the rest.

For a run that is under way or was killed: its calls are in its segments and nowhere else yet. Searching takes about a
second for each gigabyte of ledger; memory stays flat.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from transforms.storage.ledger import segments
from transforms.storage.ledger_lines import BROKEN_LINE, LedgerRecord, broken_line, decode, parse_line


def find_records(ledger: str, run_id: str, text: str, beside: str = "") -> Iterator[LedgerRecord]:
    """Yield the records of a run that hold a text as a whole JSON string; a torn last line is left out.

    Args:
        ledger: the job's ledger folder.
        run_id: the run.
        text: such as a request_id or a batch_id; of characters that JSON writes as they are.
        beside: bytes that the line must hold too, such as '"call_type":"HTTP"'; lines without are not parsed.

    Raises:
        InternalError: a line that holds the text is damaged.
    """
    needle, other = f'"{text}"'.encode(), beside.encode()
    for path in segments(ledger, only_run=run_id):
        for start, line in _lines_with(path, needle):
            if other not in line:
                continue
            try:
                found = parse_line(line)
                if found["type"] != "segment":
                    yield decode(found)
            except BROKEN_LINE as error:
                raise broken_line(path, _number(path, start), error) from error


def _lines_with(path: str, needle: bytes) -> Iterator[tuple[int, bytes]]:
    if not Path(path).stat().st_size:
        return
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(needle)
        while at >= 0:
            start, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at)
            if end < 0:
                return
            yield start, content[start : end + 1]
            at = content.find(needle, end)


def _number(path: str, start: int) -> int:
    with Path(path).open("rb") as file:
        return file.read(start).count(b"\n") + 1
