"""CloseRun, the end of the path, through the runner."""

from decimal import Decimal
from types import SimpleNamespace

import apache_beam as beam
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.tally import CloseRun, tally_failure, tally_pending, tally_reused
from tests.stages.ends import make_pending, make_result
from tests.stages.harness import run_stage
from tests.unit.storage_builders import RUN, make_call, make_ended, make_opened
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.storage.runs import RunFolder
from transforms.storage.segment_writer import SegmentWriter

COUNTS = {"in": 3, "enriched": 1, "dead_lettered": 1, "pending": 1, "broken": 0, "broken_ids": []}


@pytest.fixture
def job(tmp_path):
    """Return what closing needs of a prepared job."""
    schema = pa.schema([("id", pa.int64())])
    return SimpleNamespace(
        run=RunFolder(str(tmp_path), RUN),
        ledger=str(tmp_path / "ledger"),
        enriched_schema=schema,
        enriched_format="parquet",
    )


def close(job, *tallies):
    """Run the stage; return the totals it left."""

    def build(root):
        tallied = [root | f"Tally{n}" >> beam.Create(tally) for n, tally in enumerate(tallies)]
        return root | beam.Create([COUNTS]) | CloseRun(job, tallied, [root | "Parts" >> beam.Create([])])

    run_stage(build)
    with open(job.run.totals, "rb") as file:  # noqa: PTH123 - a path as text
        return orjson.loads(file.read())


def test_the_totals_hold_counts_sums_and_tallies(tmp_path, job):
    """The sums come from the ledger; failures, pending requests and reused answers are counted by what they were."""
    with SegmentWriter(str(tmp_path / "ledger" / "answers"), RUN) as segment:
        for record in (make_opened(1), make_call(0), make_ended(succeeded=1)):
            segment.append(record)
    letter = DeadLetter("a", Stage.CALL, FailureKind.TIMEOUT, "no reply", 3, True, "a.csv", 2, {})
    totals = close(
        job,
        [tally_failure(letter), tally_failure(letter)],
        [tally_pending(make_pending("p"))],
        [tally_reused(make_result("r"))] * 3,
    )
    assert totals["rows"] == COUNTS
    assert (totals["calls"]["sent"], Decimal(totals["calls"]["cost_usd"])) == (1, Decimal("0.0000345"))
    assert totals["dead_letters"] == [{"stage": "call", "kind": "timeout", "rows": 2}]
    assert totals["pending"] == [{"kind": "quota_exhausted", "reason": "no money", "requests": 1}]
    assert totals["reused"] == 3
    calls = pq.read_table(job.run.table("calls")).to_pylist()
    assert [call["call_id"] for call in calls] == ["b1-000000"]


def test_a_run_without_anything_has_totals_and_empty_tables(job):
    """Whoever reads the enriched rows finds a file with the columns."""
    totals = close(job, [])
    assert (totals["calls"]["sent"], totals["pending"], totals["dead_letters"], totals["reused"]) == (0, [], [], 0)
    assert pq.read_table(job.run.enriched).schema.names == ["id"]
    assert pq.read_table(job.run.table("rows")).num_rows == 0
