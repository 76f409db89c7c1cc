"""The end of the path: tallies beside the proved counts, left where the launcher finds them."""

from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import orjson
import pyarrow as pa
from apache_beam import pvalue
from apache_beam.transforms.combiners import Count

from pipelines.prepare import PreparedJob
from transforms.records.answer import PendingRequest, RequestResult
from transforms.records.failure import DeadLetter
from transforms.rules.run_totals import CallTotals
from transforms.storage.close_audit import write_call_tables
from transforms.storage.objects import write_atomic
from transforms.storage.parts import name_parts
from transforms.storage.runs import RunFolder
from transforms.storage.tables import AUDIT_SCHEMAS

Tally = tuple[str, str, str]


def tally_failure(failure: DeadLetter) -> Tally:
    """Count a dead letter by stage and kind."""
    return "dead_letter", str(failure.stage), str(failure.kind)


def tally_pending(pending: PendingRequest) -> Tally:
    """Count a request left unsent by what stopped the run."""
    return "pending", str(pending.kind or ""), pending.reason


def tally_reused(_result: RequestResult) -> Tally:
    """Count a request answered from the ledger."""
    return "reused", "", ""


class CloseRun(beam.PTransform):
    """Name the run's files, write the call tables and leave the totals, when every row has its outcome.

    A worker can't hand a value back to the launcher on every runner, so it leaves a file. Safe to retry: the same
    ledger, parts and counts give the same files.

    Args:
        job: the prepared job.
        tallies: PCollections of Tally.
        parts: PCollections of (folder, path) of the parts that bundles wrote.
    """

    def __init__(self, job: PreparedJob, tallies: list[pvalue.PCollection], parts: list[pvalue.PCollection]) -> None:
        super().__init__()
        self._job = job
        self._tallies = tallies
        self._parts = parts

    def expand(self, counts: pvalue.PCollection) -> Any:
        """Count the tallies and close once."""
        tallies = self._tallies | "FlattenTallies" >> beam.Flatten() | "CountTallies" >> Count.PerElement()
        parts = self._parts | "FlattenParts" >> beam.Flatten()
        close = _Closing(self._job.run, self._job.ledger, self._job.enriched_schema, self._job.enriched_format)
        return counts | "Close" >> beam.Map(close, pvalue.AsList(tallies), pvalue.AsList(parts))


@dataclass(frozen=True)
class _Closing:
    run: RunFolder
    ledger: str
    enriched_schema: pa.Schema
    enriched_format: str

    def __call__(self, rows: dict[str, Any], tallies: list[tuple[Tally, int]], parts: list[tuple[str, str]]) -> None:
        run = self.run
        schema = self.enriched_schema if self.enriched_format == "parquet" else None
        for folder, empty in (
            (run.enriched, schema),
            (run.table("rows"), AUDIT_SCHEMAS["rows"]),
            (run.dead_letters, None),
        ):
            name_parts(folder, [path for place, path in parts if place == folder], empty)
        calls = write_call_tables(run, self.ledger, [path for place, path in parts if place == run.table("calls")])
        write_atomic(run.totals, orjson.dumps(_totals(rows, calls, sorted(tallies))))


def _totals(rows: dict[str, Any], calls: CallTotals, tallies: list[tuple[Tally, int]]) -> dict[str, Any]:
    return {
        "rows": rows,
        "calls": calls.to_json(),
        "pending": [{"kind": a or None, "reason": b, "requests": n} for (tag, a, b), n in tallies if tag == "pending"],
        "dead_letters": [{"stage": a, "kind": b, "rows": n} for (tag, a, b), n in tallies if tag == "dead_letter"],
        "reused": sum(n for (tag, _, _), n in tallies if tag == "reused"),
    }
