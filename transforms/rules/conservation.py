"""The proof that no row was lost or doubled, by identity: each place that was read against each outcome (P1).

Places are packed by blocks of lines before they are compared: one element of a shuffle then stands for thousands of
rows, where one element a row cost a tenth of the whole path.
"""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from transforms.records.row import Outcome

#: Lines of a file that are compared together. Offset and mark of a row fit into 16 bits.
BLOCK_LINES = 4096
_MARK_BITS = 3
_MARK_MASK = (1 << _MARK_BITS) - 1
_READ = 0
_MARKS = {outcome: code for code, outcome in enumerate(Outcome, 1)}
_OUTCOMES = {code: outcome for outcome, code in _MARKS.items()}

#: A file and the number of a block of its lines.
Block = tuple[str, int]


@dataclass(slots=True)
class Verdict:
    """What comparing came to: rows by outcome, and a complaint for each row that doesn't add up."""

    counts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


class Marks:
    """Collects what happened to places, packed; `take` hands it over."""

    def __init__(self) -> None:
        self._blocks: dict[Block, array[int]] = {}
        self.count = 0

    def read(self, path: str, line: int) -> None:
        """Note that a row, or a line that can't be read, was found at a place."""
        self._add(path, line, _READ)

    def ended(self, path: str, line: int, outcome: Outcome) -> None:
        """Note the outcome of the row of a place."""
        self._add(path, line, _MARKS[outcome])

    def take(self) -> list[tuple[Block, bytes]]:
        """Return all that was noted since the last time, for `judge`."""
        packed = [(block, marks.tobytes()) for block, marks in self._blocks.items()]
        self._blocks = {}
        self.count = 0
        return packed

    def _add(self, path: str, line: int, mark: int) -> None:
        block, offset = divmod(line, BLOCK_LINES)
        marks = self._blocks.get((path, block))
        if marks is None:
            marks = self._blocks[path, block] = array("H")
        marks.append(offset << _MARK_BITS | mark)
        self.count += 1


def judge(block: Block, packed: Iterable[bytes]) -> Verdict:
    """Compare all that was noted of one block: each place read once must have exactly one outcome."""
    marks = array("H")
    for piece in packed:
        marks.frombytes(piece)
    reads = [mark for mark in marks if not mark & _MARK_MASK]
    ends = [mark for mark in marks if mark & _MARK_MASK]
    places = {mark >> _MARK_BITS for mark in ends}
    if len(places) == len(ends) == len(reads) and places == {mark >> _MARK_BITS for mark in reads}:
        by_code = Counter(mark & _MARK_MASK for mark in ends)
        return Verdict(Counter({str(_OUTCOMES[code]): count for code, count in by_code.items()}))
    return _judge_each(block, marks)


def _judge_each(block: Block, marks: "array[int]") -> Verdict:
    path, number = block
    by_place: dict[int, list[int]] = {}
    for mark in sorted(marks):
        by_place.setdefault(mark >> _MARK_BITS, []).append(mark & _MARK_MASK)
    verdict = Verdict()
    for offset, codes in by_place.items():
        ended = [str(_OUTCOMES[code]) for code in codes if code != _READ]
        reads = len(codes) - len(ended)
        if reads == 1 and len(ended) == 1:
            verdict.counts[ended[0]] += 1
            continue
        line = number * BLOCK_LINES + offset
        had = " and ".join(sorted(ended)) or "no outcome"
        verdict.complaints.append(f"{path}:{line}: read {reads} time(s), ended with {had}")
    return verdict
