"""WriteAudit and its table `rows` through the runner."""

import apache_beam as beam

from tests.stages.harness import run_stage
from tests.stages.parts_read import read_parts
from transforms.records.row import Outcome, RowOutcome
from transforms.storage.runs import RunFolder
from transforms.storage.tables import AUDIT_SCHEMAS
from transforms.write_audit import WriteAudit


def test_each_outcome_is_a_row_of_the_table(tmp_path):
    """With the table's columns, the run's id and the call that settled it."""
    run = RunFolder(str(tmp_path), "run-1")
    outcomes = [
        RowOutcome("a", "a.csv", 2, Outcome.ENRICHED, "q1", "c1", "run-0"),
        RowOutcome("b", "a.csv", 3, Outcome.PENDING, "q2", reason="no money"),
    ]
    given = run_stage(lambda root: root | beam.Create(outcomes) | WriteAudit(run))["main"]
    found = {row["row_id"]: row for row in read_parts(run.table("rows"), given)}
    assert set(found) == {"a", "b"}
    assert set(found["a"]) == set(AUDIT_SCHEMAS["rows"].names)
    assert [found["a"][name] for name in ("run_id", "outcome", "request_id", "call_id", "answered_in_run_id")] == [
        "run-1", "enriched", "q1", "c1", "run-0",
    ]  # fmt: skip
    assert (found["b"]["outcome"], found["b"]["call_id"]) == ("pending", None)


def test_no_outcomes_leave_no_part(tmp_path):
    """The table of a run without rows is written when it closes."""
    run = RunFolder(str(tmp_path), "run-1")
    assert run_stage(lambda root: root | beam.Create([]) | WriteAudit(run))["main"] == []
