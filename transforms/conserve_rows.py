"""ConserveRows: every row that was read against every outcome -> counts, and the ids of whatever doesn't add up.

Proved by identity, never by totals: each (path, line) that was read must have exactly one outcome, and each outcome
must belong to one that was read (P1). Pure; safe to retry.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms._stage import at_bundle_end
from transforms.records.row import RowOutcome
from transforms.rules.conservation import Block, Marks, Verdict, judge

MAX_NAMED = 20
#: Rows whose marks a bundle holds back before it hands them on.
_MARKS_HELD = 200_000


class ConserveRows(beam.PTransform):
    """Prove that no row was lost or doubled.

    Args:
        outcomes: PCollections of RowOutcome.

    Applied to a PCollection of (path, line), one per row or unreadable line.

    Returns one dict: {"in", "enriched", "dead_lettered", "pending", "broken", "broken_ids"}; broken_ids names at
    most MAX_NAMED rows and says what is wrong with each.
    """

    def __init__(self, outcomes: list[pvalue.PCollection]) -> None:
        super().__init__()
        self._outcomes = outcomes

    def expand(self, positions: pvalue.PCollection) -> Any:
        """Match positions and outcomes, then add up."""
        read = positions | "MarkRead" >> _mark(_MarkReadDoFn())
        ended = [
            outcome | f"MarkEnded{place}" >> _mark(_MarkEndedDoFn()) for place, outcome in enumerate(self._outcomes)
        ]
        return (
            (read, *ended)
            | "FlattenMarks" >> beam.Flatten()
            | "GroupByBlock" >> beam.GroupByKey()
            | "JudgeBlock" >> beam.Map(_judge)
            | "SumVerdicts" >> beam.CombineGlobally(_VerdictCombineFn())
        )


def _mark(dofn: beam.DoFn) -> beam.ParDo:
    return beam.ParDo(dofn).with_output_types(tuple[tuple[str, int], bytes])


class _MarkDoFn(beam.DoFn):
    def start_bundle(self) -> None:
        self._marks = Marks()

    def _note(self, element: Any) -> None:
        raise NotImplementedError

    def process(self, element: Any) -> Iterator[tuple[Block, bytes]]:
        self._note(element)
        if self._marks.count >= _MARKS_HELD:
            yield from self._marks.take()

    def finish_bundle(self) -> Iterator[Any]:
        for packed in self._marks.take():
            yield at_bundle_end(packed)


class _MarkReadDoFn(_MarkDoFn):
    def _note(self, element: tuple[str, int]) -> None:
        self._marks.read(*element)


class _MarkEndedDoFn(_MarkDoFn):
    def _note(self, element: RowOutcome) -> None:
        self._marks.ended(element.path, element.line, element.outcome)


def _judge(keyed: tuple[Block, Iterable[bytes]]) -> Verdict:
    return judge(*keyed)


class _VerdictCombineFn(beam.CombineFn):
    def create_accumulator(self) -> dict[str, Any]:
        return {"in": 0, "enriched": 0, "dead_lettered": 0, "pending": 0, "broken": 0, "broken_ids": []}

    def add_input(self, accumulator: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
        for outcome, count in verdict.counts.items():
            accumulator["in"] += count
            accumulator[outcome] += count
        accumulator["in"] += len(verdict.complaints)
        accumulator["broken"] += len(verdict.complaints)
        self._name(accumulator, verdict.complaints)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict[str, Any]]) -> dict[str, Any]:
        merged = self.create_accumulator()
        for one in accumulators:
            for key in ("in", "enriched", "dead_lettered", "pending", "broken"):
                merged[key] += one[key]
            self._name(merged, one["broken_ids"])
        return merged

    def extract_output(self, accumulator: dict[str, Any]) -> dict[str, Any]:
        return accumulator

    @staticmethod
    def _name(accumulator: dict[str, Any], complaints: list[str]) -> None:
        if complaints:
            accumulator["broken_ids"] = sorted([*accumulator["broken_ids"], *complaints])[:MAX_NAMED]
