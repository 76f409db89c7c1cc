"""SettleRows through the runner."""

import apache_beam as beam

from tests.stages.ends import make_columns, make_failed, make_pending, make_result
from tests.stages.harness import asked_row, request_id, run_stage
from transforms.records.failure import FailureKind, Stage
from transforms.records.row import Outcome
from transforms.settle_rows import SettleRows


def settle(*found, keep=False):
    """Run the stage."""
    return run_stage(lambda root: root | beam.Create(found) | SettleRows(make_columns(keep=keep), keep=keep))


def test_every_row_that_waited_ends_once():
    """Enriched, failed and pending rows each go their way; nothing is left keyed when nobody else waits."""
    two = (asked_row("x", 5), asked_row("y", 6))
    run = settle(make_result("a", riders=two), make_failed("b"), make_pending("c"))
    assert sorted(row["text"] for row in run["rows"]) == ["text of x", "text of y"]
    assert {str(row["mood"]) for row in run["rows"]} == {"{'label': 'positive'}"}
    assert sorted((o.row_id, o.outcome, o.line, o.call_id, o.reason) for o in run["outcomes"]) == [
        ("row-c", Outcome.PENDING, 2, None, "no money"),
        ("x", Outcome.ENRICHED, 5, "call-a", None),
        ("y", Outcome.ENRICHED, 6, "call-a", None),
    ]
    (letter,) = run["failures"]
    assert (letter.row_id, letter.stage, letter.kind, letter.retryable, letter.reason, letter.call_id) == (
        "row-b", Stage.CALL, FailureKind.TIMEOUT, True, "no reply", "call-b",
    )  # fmt: skip
    assert letter.row == {"text": "text of row-b"}
    assert run["ends"] == []
    assert run.counters["SettleRows/rows_failed"] == 1


def test_a_failed_row_can_be_kept():
    """It is a dead letter and an enriched row with a null answer and its error."""
    run = settle(make_failed("b", FailureKind.REFUSAL), keep=True)
    (row,) = run["rows"]
    assert (row["mood"], row["mood_error"]) == (None, "refusal: no reply")
    assert [letter.retryable for letter in run["failures"]] == [False]


def test_the_end_of_a_crowded_request_also_leaves_keyed():
    """For the rows that did not travel along; whatever the end is."""
    run = settle(make_result("a", crowded=True), make_failed("b", crowded=True), make_pending("c", crowded=True))
    assert sorted(key for key, _ in run["ends"]) == sorted(request_id(name) for name in "abc")
    assert (len(run["rows"]), len(run["failures"]), len(run["outcomes"])) == (1, 1, 2)


def test_no_ends_give_nothing():
    """All outputs are empty."""
    assert settle().outputs == {"rows": [], "outcomes": [], "failures": [], "ends": []}
