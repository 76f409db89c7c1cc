"""JoinAnswers: rows x results -> enriched rows, dead letters, and one outcome per row.

A result that several rows share is fanned out. A row whose request has no result at all gets no outcome here, and
conservation then names it (P1): nothing is made up. Pure; safe to retry.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import FAILURES, OUTCOMES, Counters
from transforms.records.answer import PendingRequest, RequestResult
from transforms.records.failure import RETRYABLE, DeadLetter, FailureKind, Stage
from transforms.records.row import AskedRow, Outcome, RowOutcome
from transforms.rules.answer_columns import AnswerColumns


class JoinAnswersResult(NamedTuple):
    """rows: dict of an enriched row; failures: DeadLetter; outcomes: RowOutcome of all but the dead-lettered."""

    rows: pvalue.PCollection
    failures: pvalue.PCollection
    outcomes: pvalue.PCollection


class JoinAnswers(beam.PTransform):
    """Bring rows and the results of their requests together.

    Args:
        ends: PCollections of (request_id, RequestResult or PendingRequest).
        columns: builds the answer's columns of an enriched row.
        keep: a failed row is also written as an enriched row, with a null answer and its error.
    """

    def __init__(self, ends: list[pvalue.PCollection], columns: AnswerColumns, *, keep: bool) -> None:
        super().__init__()
        self._ends = ends
        self._columns = columns
        self._keep = keep

    def expand(self, rows: pvalue.PCollection) -> Any:
        """Group by request and fan out."""
        joined = (
            (rows, *self._ends)
            | "FlattenWithEnds" >> beam.Flatten()
            | "GroupByRequest" >> beam.GroupByKey()
            | "FanOut"
            >> beam.ParDo(_FanOutDoFn(self._columns, keep=self._keep)).with_outputs(FAILURES, OUTCOMES, main="rows")
        )
        return JoinAnswersResult(joined["rows"], joined[FAILURES], joined[OUTCOMES])


def lost_row(failure: DeadLetter) -> RowOutcome:
    """Return the outcome of a dead-lettered row."""
    return RowOutcome(
        failure.row_id,
        failure.path,
        failure.line,
        Outcome.DEAD_LETTERED,
        failure.request_id,
        failure.call_id,
        failure.run_id,
    )


def keep_failed(failure: DeadLetter, columns: AnswerColumns) -> dict[str, Any]:
    """Return the enriched row of a row that could be read but never became a request (`on_failure: keep`)."""
    values = failure.row if isinstance(failure.row, dict) else {}
    return {**values, **columns.failed(failure.kind, failure.reason)}


class _FanOutDoFn(beam.DoFn):
    def __init__(self, columns: AnswerColumns, *, keep: bool) -> None:
        self._columns = columns
        self._keep = keep

    def setup(self) -> None:
        self._counters = Counters("JoinAnswers")

    def process(self, keyed: tuple[str, Iterable[AskedRow | RequestResult | PendingRequest]]) -> Iterator[Any]:
        rows: list[AskedRow] = []
        result: RequestResult | None = None
        pending: PendingRequest | None = None
        for item in keyed[1]:
            if isinstance(item, AskedRow):
                rows.append(item)
            elif isinstance(item, RequestResult):
                result = item
            else:
                pending = item
        if result is None:
            if pending is not None:
                self._counters.add("rows_pending", len(rows))
                yield from (_pending(asked, keyed[0], pending.reason) for asked in rows)
            return
        for asked in rows:
            yield from self._settle(asked, result)

    def _settle(self, asked: AskedRow, result: RequestResult) -> Iterator[Any]:
        row = asked.row
        failed = result.kind is not FailureKind.OK
        if not failed or self._keep:
            yield {**row.values, **self._columns.values(result, asked.variables_sha256)}
        if failed:
            self._counters.add("rows_failed")
            yield pvalue.TaggedOutput(FAILURES, _dead_letter(asked, result))
            return
        self._counters.add("rows_enriched")
        yield pvalue.TaggedOutput(
            OUTCOMES,
            RowOutcome(
                row.row_id,
                row.path,
                row.line,
                Outcome.ENRICHED,
                result.request_id,
                result.call_id,
                result.run_id,
            ),
        )


def _pending(asked: AskedRow, request_id: str, reason: str) -> pvalue.TaggedOutput:
    row = asked.row
    return pvalue.TaggedOutput(
        OUTCOMES, RowOutcome(row.row_id, row.path, row.line, Outcome.PENDING, request_id, reason=reason)
    )


def _dead_letter(asked: AskedRow, result: RequestResult) -> DeadLetter:
    row = asked.row
    return DeadLetter(
        row_id=row.row_id,
        stage=result.stage or Stage.CALL,
        kind=result.kind,
        reason=result.reason or str(result.kind),
        attempts=result.attempts,
        retryable=result.kind in RETRYABLE,
        path=row.path,
        line=row.line,
        row=row.values,
        request_id=result.request_id,
        call_id=result.call_id,
        run_id=result.run_id,
    )
