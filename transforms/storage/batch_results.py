"""A downloaded results file: its lines, and its ids against those that were sent (providers.md 1.3 and 1.8)."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

_READ_BUFFER_BYTES = 1 << 18


def read_lines(path: str) -> Iterator[bytes]:
    r"""Yield the lines of a file without their ends, in the memory of the longest line.

    Only "\n" ends a line ("\r" before it goes too): U+2028 and its like may stand raw inside JSON strings. A last
    line without "\n" is given too, torn or not. Lines of nothing but white space are skipped.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with Path(path).open("rb", buffering=_READ_BUFFER_BYTES) as file:
        for line in file:
            if not line.isspace():
                yield line.removesuffix(b"\n").removesuffix(b"\r")


class ResultIds:
    """Which of the custom ids that were sent have come back; about 200 bytes for each."""

    def __init__(self, expected: Iterable[str]) -> None:
        """Remember what was sent.

        Args:
            expected: the custom ids of the batch, no id twice.
        """
        self._numbers = {custom_id: number for number, custom_id in enumerate(expected)}
        self._has_come = bytearray(len(self._numbers))

    def see(self, custom_id: str) -> Literal["expected", "duplicate", "unknown"]:
        """Note an id of the results: expected the first time, duplicate from then on, unknown when it was not sent."""
        number = self._numbers.get(custom_id)
        if number is None:
            return "unknown"
        if self._has_come[number]:
            return "duplicate"
        self._has_come[number] = True
        return "expected"

    def number(self, custom_id: str) -> int:
        """Return which of the ids that were sent it is, from 0 on; KeyError for any other."""
        return self._numbers[custom_id]

    def missing(self) -> Iterator[str]:
        """Yield the ids that were sent and have not come, in the order of sending."""
        return (custom_id for custom_id, number in self._numbers.items() if not self._has_come[number])
