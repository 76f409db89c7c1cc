"""The end of the path: tallies beside the proved counts, left where the launcher finds them."""

from typing import Any

import apache_beam as beam
import orjson
from apache_beam import pvalue
from apache_beam.transforms.combiners import Count

from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.failure import DeadLetter
from transforms.storage.audit_rows import write_call_tables
from transforms.storage.objects import write_atomic
from transforms.storage.runs import RunFolder

Tally = tuple[str, str, str]


def tally_failure(failure: DeadLetter) -> Tally:
    """Count a dead letter by stage and kind."""
    return "dead_letter", str(failure.stage), str(failure.kind)


def tally_pending(keyed: tuple[str, PendingRequest]) -> Tally:
    """Count a request left unsent by what stopped the run."""
    return "pending", str(keyed[1].kind or ""), keyed[1].reason


def tally_reused(_answer: ModelAnswer) -> Tally:
    """Count a request answered from the ledger."""
    return "reused", "", ""


class CloseRun(beam.PTransform):
    """Write the call tables and the totals file when every row has its outcome.

    A worker can't hand a value back to the launcher on every runner, so it leaves a file. Safe to retry: the same
    ledger and counts give the same files.

    Args:
        run: the run's folder.
        ledger: the job's ledger folder.
        tallies: PCollections of Tally.
    """

    def __init__(self, run: RunFolder, ledger: str, tallies: list[pvalue.PCollection]) -> None:
        super().__init__()
        self._run = run
        self._ledger = ledger
        self._tallies = tallies

    def expand(self, counts: pvalue.PCollection) -> Any:
        """Count the tallies and write once."""
        tallies = self._tallies | "FlattenTallies" >> beam.Flatten() | "CountTallies" >> Count.PerElement()
        return counts | "WriteTotals" >> beam.Map(_write_totals, self._run, self._ledger, pvalue.AsList(tallies))


def _write_totals(rows: dict[str, Any], run: RunFolder, ledger: str, tallies: list[tuple[Tally, int]]) -> None:
    calls = write_call_tables(run, ledger)
    counted = sorted(tallies)
    totals = {
        "rows": rows,
        "calls": calls.to_json(),
        "pending": [{"kind": a or None, "reason": b, "requests": n} for (tag, a, b), n in counted if tag == "pending"],
        "dead_letters": [{"stage": a, "kind": b, "rows": n} for (tag, a, b), n in counted if tag == "dead_letter"],
        "reused": sum(n for (tag, _, _), n in counted if tag == "reused"),
    }
    write_atomic(run.totals, orjson.dumps(totals))
