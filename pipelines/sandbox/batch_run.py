"""Checks the lines of a batch in slices, and lets its rows run: who has run, with what result, with which flaw."""

import asyncio
import random
import time
from array import array
from collections.abc import Iterator
from enum import Enum
from math import ceil

import orjson

from pipelines.sandbox.batch_faults import BatchFaults
from pipelines.sandbox.batch_rows import (
    Dialect,
    Order,
    Outcome,
    RowAsked,
    RowEnd,
    RowProblem,
    RowResult,
    Rows,
    answer,
    judge,
)
from pipelines.sandbox.batch_spool import Spool
from pipelines.sandbox.draws import derive
from pipelines.sandbox.rehearsal import Rehearsal

#: How long a check keeps the event loop before others have a turn, seconds.
_SLICE_S = 0.005
#: A rejected batch names so many problems at most.
_MOST_PROBLEMS = 10


class Flaw(Enum):
    """What is wrong with a result line by a fault."""

    MISSING = "missing"
    STATUS_ZERO = "status_zero"
    MALFORMED = "malformed_line"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"


#: With these the client has no answer, and the row is not billed.
LOST = frozenset({Flaw.MISSING, Flaw.STATUS_ZERO, Flaw.MALFORMED})


async def check(
    rehearsal: Rehearsal, dialect: Dialect, spool: Spool, order: Order
) -> tuple[Rows, tuple[RowProblem, ...]]:
    """Look at every line once, letting others run in between.

    Returns:
        The rows, and why the batch is rejected: () where it isn't. Rows are complete only for ().
    """
    rows, problems, seen = Rows(), [], set[str]()
    until_s = time.perf_counter() + _SLICE_S
    for number, (offset, line) in enumerate(spool.lines(), 1):
        problem = _check_line(rehearsal, dialect, order, rows, seen, offset, line)
        if problem:
            problems.append(RowProblem(problem.code, problem.message, problem.param, number))
            if len(problems) == _MOST_PROBLEMS:
                break
        if order.most_rows and len(rows) > order.most_rows:
            text = f"The batch has more than {order.most_rows} requests."
            problems = [RowProblem("too_many_tasks", text)]
            break
        if time.perf_counter() > until_s:
            await asyncio.sleep(0)
            until_s = time.perf_counter() + _SLICE_S
    if not len(rows) and not problems:
        problems.append(RowProblem("empty_file", "The input file is empty."))
    return rows, tuple(problems)


def _check_line(
    rehearsal: Rehearsal, dialect: Dialect, order: Order, rows: Rows, seen: set[str], offset: int, line: bytes
) -> RowProblem | None:
    asked = dialect.read_row(line, order)
    if isinstance(asked, RowProblem):
        return asked
    if asked.custom_id in seen:
        text = f"The custom_id '{asked.custom_id}' is not unique within the batch."
        return RowProblem("duplicate_custom_id", text, "custom_id")
    seen.add(asked.custom_id)
    judged, refused = judge(rehearsal, asked, order)
    if refused and dialect.rejects_bad_rows:
        return dialect.row_problem(refused)
    model = asked.route.deployment or asked.body.get("model")
    rows.model = rows.model or str(model)
    if dialect.one_model and model != rows.model:
        return RowProblem("model_mismatch", f"All lines must name one model; this one names '{model}'.", "body.model")
    rows.add(offset, len(line), judged)
    return None


class Run:
    """The rows of an accepted batch in the order in which they run.

    Args:
        name: with the seed it decides the order.
        faults: the section the batch was accepted with.
    """

    def __init__(
        self, rehearsal: Rehearsal, dialect: Dialect, spool: Spool, order: Order, rows: Rows, faults: BatchFaults, name: bytes
    ) -> None:  # fmt: skip
        self._rehearsal = rehearsal
        self._dialect = dialect
        self._spool = spool
        self._order = order
        self.rows = rows
        self._faults = faults
        self._sequence = _sequence(len(rows), derive("order", rehearsal.seed, name), is_mixed=faults.out_of_order)
        self._good = bytes(rows.outcomes[row] != Outcome.FAILED for row in self._sequence)
        self._parts: tuple[int, bool, bool] | None = None

    def done(self, share: float) -> int:
        """Return how many rows have run when that share of the batch has."""
        # A hair is added so that 0.6 of 5 is 3 whatever the last bit of the product.
        return min(len(self.rows), int(share * len(self.rows) + 1e-9))

    def counts(self, done: int) -> tuple[int, int]:
        """Return (completed, failed) among the first rows that have run."""
        good = self._good[:done].count(1)
        return good, done - good

    def parts(self, done: int) -> tuple[bool, bool]:
        """Tell whether the first rows that have run leave (results with status 200, results with another one)."""
        if self._parts is None or self._parts[0] != done:
            has = [False, False]
            for row, flaw in self._ran(done):
                if flaw is not Flaw.MISSING:
                    has[self._is_error(row, flaw)] = True
                    if all(has):
                        break
            self._parts = (done, has[0], has[1])
        return self._parts[1], self._parts[2]

    def billed(self, done: int) -> Iterator[int]:
        """Yield the rows that are paid for: answered, and not lost by a flaw."""
        for row, flaw in self._ran(done):
            if self.rows.outcomes[row] == Outcome.PAID and flaw not in LOST:
                yield row

    def results(self, done: int, end: RowEnd, *, good: bool, bad: bool) -> Iterator[bytes]:
        """Yield the result lines with their newlines.

        Args:
            done: rows that have run.
            end: what became of the others; ANSWERED when there are none.
            good: with those of status 200.
            bad: with all others.
        """
        for row, flaw in self._ran(done):
            is_error = self._is_error(row, flaw)
            if flaw is not Flaw.MISSING and (bad if is_error else good):
                yield from self._lines(row, flaw)
        if end is not RowEnd.ANSWERED and bad:
            for row in self._sequence[done:]:
                result = RowResult(self._asked(row).custom_id, end, None, None, self._result_id(row, 0))
                yield self._dialect.write_row(result, self._order) + b"\n"

    def _ran(self, done: int) -> Iterator[tuple[int, Flaw | None]]:
        faults = self._faults
        shares = (faults.missing, faults.status_zero, faults.malformed_line / done if done else 0.0, faults.duplicate,
                  faults.unknown)  # fmt: skip
        if not any(shares):
            for row in self._sequence[:done]:
                yield row, None
            return
        for place, row in enumerate(self._sequence[:done]):
            yield row, _flaw(place, done, shares)

    def _is_error(self, row: int, flaw: Flaw | None) -> bool:
        return self.rows.outcomes[row] == Outcome.FAILED or flaw is Flaw.STATUS_ZERO

    def _lines(self, row: int, flaw: Flaw | None) -> Iterator[bytes]:
        asked = self._asked(row)
        if flaw is Flaw.STATUS_ZERO:
            result = RowResult(asked.custom_id, RowEnd.ANSWERED, 0, None, self._result_id(row, 0))
            yield self._dialect.write_row(result, self._order) + b"\n"
            return
        status, body = answer(self._rehearsal, asked, self._order, self.rows, row)
        result = RowResult(asked.custom_id, RowEnd.ANSWERED, status, body, self._result_id(row, 0))
        line = self._dialect.write_row(result, self._order)
        yield (line[: len(line) // 2] if flaw is Flaw.MALFORMED else line) + b"\n"
        if flaw is Flaw.DUPLICATE:
            yield line + b"\n"
        if flaw is Flaw.UNKNOWN:
            stranger = RowResult(f"nobody-{row}", RowEnd.ANSWERED, status, body, self._result_id(row, 1))
            yield self._dialect.write_row(stranger, self._order) + b"\n"

    def _asked(self, row: int) -> RowAsked:
        asked = self._dialect.read_row(self.rows.line(row, self._spool), self._order)
        if isinstance(asked, RowProblem):
            raise TypeError(f"row {row} was read before and can't be read any more: {orjson.dumps(asked.message)!r}")
        return asked

    def _result_id(self, row: int, number: int) -> str:
        first = derive("result", self._rehearsal.seed, self.rows.hash_of(row), row, number)
        return f"{first:016x}{derive(first):016x}"


def _sequence(count: int, start: int, *, is_mixed: bool) -> "array[int]":
    """Return the rows in the order in which they run; a mixed one is never the order of the file."""
    sequence = array("I", range(count))
    if is_mixed and count > 1:
        random.Random(start).shuffle(sequence)
        if all(row == place for place, row in enumerate(sequence)):
            sequence.reverse()
    return sequence


def _flaw(place: int, done: int, shares: tuple[float, ...]) -> Flaw | None:
    """Return the flaw of the row at a place: each kind is spread evenly and comes at least once; the first named wins."""
    for number, (flaw, share) in enumerate(zip(Flaw, shares, strict=True)):
        here = (place - number) % done
        if share and ceil((here + 1) * share - 1e-9) > ceil(here * share - 1e-9):
            return flaw
    return None
