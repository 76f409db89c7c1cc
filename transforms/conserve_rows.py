"""ConserveRows: every row that was read against every outcome -> counts, and the ids of whatever doesn't add up.

Proved by identity, never by totals: each (path, line) that was read must have exactly one outcome, and each outcome
must belong to one that was read (P1). Pure; safe to retry.
"""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam import pvalue

from transforms.records.row import RowOutcome

_READ = "read"
MAX_NAMED = 20


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
        read = positions | "MarkRead" >> beam.Map(_mark_read)
        ended = [outcome | f"MarkEnded{place}" >> beam.Map(_mark_ended) for place, outcome in enumerate(self._outcomes)]
        return (
            (read, *ended)
            | "FlattenMarks" >> beam.Flatten()
            | "GroupByPosition" >> beam.GroupByKey()
            | "JudgeRow" >> beam.Map(_judge)
            | "SumVerdicts" >> beam.CombineGlobally(_VerdictCombineFn())
        )


def _mark_read(position: tuple[str, int]) -> tuple[tuple[str, int], str]:
    return position, _READ


def _mark_ended(outcome: RowOutcome) -> tuple[tuple[str, int], str]:
    return (outcome.path, outcome.line), str(outcome.outcome)


def _judge(keyed: tuple[tuple[str, int], Iterable[str]]) -> tuple[str, str]:
    """Return (outcome, "") for a row in order, ("broken", what is wrong) otherwise."""
    (path, line), marks = keyed
    ended = [mark for mark in marks if mark != _READ]
    reads = sum(1 for mark in marks if mark == _READ)
    if reads == 1 and len(ended) == 1:
        return ended[0], ""
    had = " and ".join(sorted(ended)) or "no outcome"
    return "broken", f"{path}:{line}: read {reads} time(s), ended with {had}"


class _VerdictCombineFn(beam.CombineFn):
    def create_accumulator(self) -> dict[str, Any]:
        return {"in": 0, "enriched": 0, "dead_lettered": 0, "pending": 0, "broken": 0, "broken_ids": []}

    def add_input(self, accumulator: dict[str, Any], verdict: tuple[str, str]) -> dict[str, Any]:
        outcome, complaint = verdict
        accumulator["in"] += 1
        accumulator[outcome] += 1
        if complaint:
            self._name(accumulator, [complaint])
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
        accumulator["broken_ids"] = sorted([*accumulator["broken_ids"], *complaints])[:MAX_NAMED]
