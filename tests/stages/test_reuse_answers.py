"""ReuseAnswers through the runner."""

import apache_beam as beam

from tests.stages.harness import asked_row, make_request, request_id, run_stage
from transforms.records.failure import FailureKind
from transforms.records.request import MAX_RIDERS, Lane, pack, unpack
from transforms.records.usage import Usage
from transforms.reuse_answers import ReuseAnswers
from transforms.storage.ledger import SettledAnswer, pack_settled


def settled(name, text="known", at=1, kind=FailureKind.OK):
    """Return an earlier run's answer."""
    return SettledAnswer(
        request_id(name), kind, text, f"call-{text}", "earlier", 2, at, "m", Usage(1, 2), None, None, Lane.MAIN
    )


def reuse(requests, answers=None):
    """Run the stage; answers None: there is no earlier run."""

    def build(root):
        asked = root | "Requests" >> beam.Create([(request.request_id, pack(request)) for request in requests])
        known = None
        if answers is not None:
            known = root | "Answers" >> beam.Create([(answer.request_id, pack_settled(answer)) for answer in answers])
        return asked | ReuseAnswers(known)

    return run_stage(build)


def fresh_of(run):
    """Return the requests passed on; each under its id."""
    requests = {key: unpack(packed) for key, packed in run["fresh"]}
    assert len(requests) == len(run["fresh"])
    assert all(key == request.request_id for key, request in requests.items())
    return list(requests.values())


def test_known_requests_are_answered_and_the_others_passed_on():
    """An answer nobody asks for any more is left out."""
    run = reuse([make_request("a"), make_request("b")], [settled("a"), settled("unused")])
    assert [request.request_id for request in fresh_of(run)] == [request_id("b")]
    answer = run["answers"][0]
    assert (answer.request, answer.text, answer.reused, answer.run_id, answer.attempts) == (
        make_request("a"), "known", True, "earlier", 2,
    )  # fmt: skip
    assert run["crowd"] == []
    assert (run.counters["ReuseAnswers/requests_reused"], run.counters["ReuseAnswers/requests_fresh"]) == (1, 1)


def test_a_request_of_two_rows_is_passed_on_once_with_both():
    """Identical requests are paid once; every row waits for the one answer."""
    rows = [asked_row("x"), asked_row("y", 3)]
    run = reuse([make_request("a", riders=(row,)) for row in rows])
    (fresh,) = fresh_of(run)
    assert sorted(rider.row.row_id for rider in fresh.riders) == ["x", "y"]
    assert not fresh.crowded
    assert run.counters["ReuseAnswers/requests_shared"] == 1


def test_more_rows_than_travel_along_leave_as_a_crowd():
    """No row is lost between the two, and the request says that more wait."""
    rows = [asked_row(f"r{n}", n) for n in range(MAX_RIDERS + 5)]
    run = reuse([make_request("a", riders=(row,)) for row in rows], [])
    (fresh,) = fresh_of(run)
    assert (len(fresh.riders), fresh.crowded, len(run["crowd"])) == (MAX_RIDERS, True, 5)
    waiting = [rider.row.row_id for rider in fresh.riders] + [asked.row.row_id for _, asked in run["crowd"]]
    assert sorted(waiting) == sorted(row.row.row_id for row in rows)
    assert {key for key, _ in run["crowd"]} == {request_id("a")}


def test_nothing_asked_gives_nothing():
    """All outputs are empty, whatever the ledger holds."""
    assert reuse([], [settled("a")]).outputs == {"fresh": [], "answers": [], "crowd": [], "in_flight": []}
