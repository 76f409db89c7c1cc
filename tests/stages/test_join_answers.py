"""JoinAnswers through the runner."""

import apache_beam as beam

from tests.stages.ends import make_pending, make_result
from tests.stages.harness import asked_row, request_id, run_stage
from transforms.join_answers import JoinAnswers
from transforms.records.request import MAX_RIDERS


def join(crowd, *lanes):
    """Run the stage; crowd: (request name, row) pairs; lanes: lists of ends."""

    def build(root):
        rows = root | "Crowd" >> beam.Create([(request_id(name), row) for name, row in crowd])
        keyed = [
            root | f"Ends{n}" >> beam.Create([(getattr(e, "request_id", None) or e.root_request_id, e) for e in lane])
            for n, lane in enumerate(lanes)
        ]
        return rows | JoinAnswers(keyed)

    return run_stage(build)["main"]


def test_crowd_rows_meet_their_answer_in_portions():
    """Every row is in one portion, none is larger than what may travel, and no portion is crowded any more."""
    rows = [asked_row(f"r{n}", n) for n in range(2 * MAX_RIDERS + 3)]
    found = join([("a", row) for row in rows], [make_result("a", crowded=True)])
    assert sorted(len(end.riders) for end in found) == [3, MAX_RIDERS, MAX_RIDERS]
    assert sorted(rider.row.row_id for end in found for rider in end.riders) == sorted(row.row.row_id for row in rows)
    assert {(end.request_id, end.value_json, end.crowded) for end in found} == {
        (request_id("a"), '{"label":"positive"}', False)
    }


def test_ends_of_every_lane_are_taken():
    """A result of the repair lane and a pending request reach their rows, too."""
    crowd = [("a", asked_row("x")), ("b", asked_row("y", 3))]
    found = join(crowd, [make_result("a")], [make_pending("b")])
    assert {(type(end).__name__, end.riders[0].row.row_id) for end in found} == {
        ("RequestResult", "x"),
        ("PendingRequest", "y"),
    }


def test_a_row_without_an_end_is_not_made_up():
    """Conservation will name it; an end nobody waits for gives nothing."""
    assert join([("a", asked_row("x"))], [make_result("b")]) == []


def test_nobody_waiting_gives_nothing():
    """Most runs have no crowd."""
    assert join([], [make_result("a")]) == []
