"""SettleRows: RequestResult or PendingRequest -> the rows that waited for it, enriched, dead-lettered or pending.

The rows travel with their request (`riders`), so nothing is joined here and no end waits for another: a row is
written as soon as its answer is parsed. The end of a crowded request also leaves keyed, for the rows that did not
travel along. Pure; safe to retry.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import ENDS, FAILURES, OUTCOMES, Counters
from transforms.records.answer import PendingRequest, RequestResult
from transforms.records.failure import DeadLetter
from transforms.records.row import RowOutcome
from transforms.rules.answer_columns import AnswerColumns
from transforms.rules.settle import (
    dead_letter,
    enriched_outcome,
    enriched_row,
    is_failed,
    pending_outcome,
)


class SettleRowsResult(NamedTuple):
    """rows: dict of an enriched row; outcomes: RowOutcome of rows enriched or pending; failures: DeadLetter;
    ends: (request_id, RequestResult or PendingRequest) of crowded requests.
    """  # noqa: D205 - a list

    rows: pvalue.PCollection
    outcomes: pvalue.PCollection
    failures: pvalue.PCollection
    ends: pvalue.PCollection


class SettleRows(beam.PTransform):
    """Give every row that waited for a request what became of it.

    Args:
        columns: builds the answer's columns of an enriched row.
        keep: a failed row is also an enriched row, with a null answer and its error.
    """

    def __init__(self, columns: AnswerColumns, *, keep: bool) -> None:
        super().__init__()
        self._columns = columns
        self._keep = keep

    def expand(self, ends: pvalue.PCollection) -> Any:
        """Fan each end out."""
        settle = beam.ParDo(_SettleRowDoFn(self._columns, keep=self._keep))
        typed = settle.with_output_types(dict[str, Any], outcomes=RowOutcome, failures=DeadLetter, ends=tuple[str, Any])
        settled = ends | "SettleRow" >> typed.with_outputs(OUTCOMES, FAILURES, ENDS, main="rows")
        return SettleRowsResult(settled["rows"], settled[OUTCOMES], settled[FAILURES], settled[ENDS])


class _SettleRowDoFn(beam.DoFn):
    def __init__(self, columns: AnswerColumns, *, keep: bool) -> None:
        self._columns = columns
        self._keep = keep

    def setup(self) -> None:
        self._counters = Counters("SettleRows")

    def process(self, end: RequestResult | PendingRequest) -> Iterator[Any]:
        if end.crowded:
            request_id = end.request_id if isinstance(end, RequestResult) else end.root_request_id
            yield pvalue.TaggedOutput(ENDS, (request_id, end))
        if isinstance(end, PendingRequest):
            for asked in end.riders:
                yield pvalue.TaggedOutput(OUTCOMES, pending_outcome(asked, end))
        elif is_failed(end):
            self._counters.add("rows_failed", len(end.riders))
            for asked in end.riders:
                yield pvalue.TaggedOutput(FAILURES, dead_letter(asked, end))
                if self._keep:
                    yield enriched_row(asked, end, self._columns)
        else:
            for asked in end.riders:
                yield enriched_row(asked, end, self._columns)
                yield pvalue.TaggedOutput(OUTCOMES, enriched_outcome(asked, end))
