"""WriteCalls and its table `calls` through the runner."""

import apache_beam as beam

from tests.stages.harness import run_stage
from tests.stages.parts_read import read_parts
from tests.unit.storage_builders import make_call, make_failed_call
from transforms.records.failure import FailureKind
from transforms.storage.runs import RunFolder
from transforms.storage.tables import AUDIT_SCHEMAS
from transforms.write_calls import WriteCalls


def test_each_call_is_a_row_of_the_table(tmp_path):
    """With the table's columns; the answer's text, which is for reuse, stays in the ledger."""
    run = RunFolder(str(tmp_path), "run-1")
    calls = [make_call(0), make_failed_call(1, FailureKind.REFUSAL)]
    given = run_stage(lambda root: root | beam.Create(calls) | WriteCalls(run))["main"]
    found = {row["call_id"]: row for row in read_parts(run.table("calls"), given)}
    assert set(found) == {call.call_id for call in calls}
    assert set(found["b1-000000"]) == set(AUDIT_SCHEMAS["calls"].names)
    assert "text" not in found["b1-000000"]
    assert found["b1-000000"]["cost_usd"] == calls[0].cost_usd
    assert [found[call.call_id]["status"] for call in calls] == ["SUCCESS", "ERROR"]


def test_no_calls_leave_no_part(tmp_path):
    """A run that only reuses answers makes none."""
    run = RunFolder(str(tmp_path), "run-1")
    assert run_stage(lambda root: root | beam.Create([]) | WriteCalls(run))["main"] == []
