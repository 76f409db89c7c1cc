"""IdentifyRows through the runner."""

import apache_beam as beam

from tests.stages.harness import run_stage
from transforms.identify_rows import IdentifyRows
from transforms.records.failure import FailureKind, Stage
from transforms.records.row import RawRow


def identify(rows, key):
    """Run the stage."""
    return run_stage(lambda root: root | beam.Create(rows) | IdentifyRows(key))


def raw(line, **values):
    """Return a row of a file."""
    return RawRow(values, "a.csv", line)


def test_a_declared_key_names_rows_and_refuses_doubles_and_blanks():
    """Two rows with one key and different content are both dead letters, as is a row without a key."""
    rows = [raw(2, id="x", t="1"), raw(3, id="d", t="1"), raw(4, id="d", t="2"), raw(5, id="", t="1")]
    run = identify(rows, ["id"])
    assert [(row.row_id, row.line, row.values) for row in run["rows"]] == [("x", 2, {"id": "x", "t": "1"})]
    assert sorted((f.line, f.kind, f.stage, f.retryable) for f in run["failures"]) == [
        (3, FailureKind.DUPLICATE_KEY, Stage.IDENTIFY, False),
        (4, FailureKind.DUPLICATE_KEY, Stage.IDENTIFY, False),
        (5, FailureKind.MISSING_KEY, Stage.IDENTIFY, False),
    ]
    assert run.counters["IdentifyRows/duplicate_keys"] == 2


def test_without_a_key_identical_rows_stay_apart():
    """Each of them has an id of its own, the same ones on every run."""
    rows = [raw(2, t="same"), raw(3, t="same"), raw(4, t="other")]
    first, second = identify(rows, []), identify(rows[::-1], [])
    assert len({row.row_id for row in first["rows"]}) == 3
    assert {(row.row_id, row.line) for row in first["rows"]} == {(row.row_id, row.line) for row in second["rows"]}
    assert first["failures"] == []


def test_no_rows_give_nothing():
    """Both outputs are empty."""
    assert identify([], ["id"]).outputs == {"rows": [], "failures": []}
