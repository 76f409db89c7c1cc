"""Collecting a batch: results that come late or never, and collections that are repeated or cut off."""

import time
from collections import Counter
from decimal import Decimal
from itertools import islice
from typing import Any

import pytest

from tests.stages.batch_stage_desk import (
    BATCH,
    BATCHES,
    ERRORS,
    FILES,
    OUTPUT,
    SECOND_RUN,
    UNKNOWN,
    MakeRun,
    calls,
    ends,
    error_line,
    expired_line,
    finish_batch,
    make_requests,
    ok_line,
    pending,
    state,
    take_batch,
    unanswered,
)
from tests.unit.batch_server import BatchServer, answer
from transforms.providers.session import Stop
from transforms.records.batch import Turn
from transforms.records.call import CallType
from transforms.records.failure import FailureKind
from transforms.storage.batch_entry import Phase


def test_a_short_output_is_fetched_again(server: BatchServer, make_run: MakeRun) -> None:
    """A half that comes late is not paid for twice; exchanges are numbered before the answers."""
    asked, run = make_requests(6), make_run()
    lines = [ok_line(request) for request in asked]
    finish_batch(server, lines)
    server.on("GET", OUTPUT, answer(200, b"".join(lines[:3])), answer(200, b"".join(lines)))
    items = run.collect(run.step(run.stage(asked), 3))
    assert ends(items) == {"ok": 6}
    assert (server.count("GET", OUTPUT), server.count("GET", BATCH)) == (2, 2)
    numbers = [one.call_index for kind in (CallType.HTTP, CallType.LLM) for one in calls(items, kind)]
    assert numbers[-6:] == sorted(numbers)[-6:]
    assert len(set(numbers)) == len(numbers)


def test_an_output_file_named_late_is_fetched(server: BatchServer, make_run: MakeRun) -> None:
    """An empty id beside a count of completed requests is no proof that there is no output."""
    asked, run = make_requests(6), make_run()
    lines = [ok_line(request) for request in asked[:4]]
    finish_batch(server, lines)
    counts = {"total": 6, "completed": 4, "failed": 2}
    early = state("completed", **counts, output_file_id="", error_file_id="err")
    server.on("GET", BATCH, early, UNKNOWN, state("completed", **counts, output_file_id="out", error_file_id="err"))
    server.on("GET", ERRORS, answer(200, b"".join(error_line(request, 500) for request in asked[4:])))
    items = run.collect(run.step(run.stage(asked), 3))
    assert ends(items) == {"ok": 4, "real_time": 2}
    assert unanswered(items) == {request.request_id for request in asked[4:]}


def test_only_what_is_missing_for_good_is_asked_again(server: BatchServer, make_run: MakeRun) -> None:
    """Three fetches, each after a fresh look, and then the rest goes real time, even if the looks find nothing."""
    asked, run = make_requests(6), make_run()
    finished = state("completed", 6, 6, output_file_id="out")
    take_batch(server, 6)
    server.on("GET", BATCH, finished, UNKNOWN)
    server.on("GET", OUTPUT, answer(200, b"".join(ok_line(request) for request in asked[:3])))
    items = run.collect(run.step(run.stage(asked), 3))
    assert ends(items) == {"ok": 3, "real_time": 3}
    assert unanswered(items) == {request.request_id for request in asked[3:]}
    assert (server.count("GET", OUTPUT), server.count("GET", BATCH)) == (3, 3)


@pytest.mark.parametrize(
    ("upload", "create"),
    [
        pytest.param(answer(403, {"error": {"message": "no"}}), None, id="nothing sent"),
        pytest.param(None, answer(400, {"error": {"message": "no"}}), id="create refused"),
    ],
)
def test_an_unsent_batch_can_be_collected_twice(
    server: BatchServer, make_run: MakeRun, upload: Any, create: Any
) -> None:
    """A bundle that is tried again gives the same requests; a refused create goes real time at once."""
    asked, run = make_requests(4), make_run()
    take_batch(server, 4)
    if upload:
        server.on("POST", FILES, upload)
    if create:
        server.on("POST", BATCHES, create)
    turn = run.step(run.stage(asked))
    assert turn.turn is Turn.UNSENT
    once, again = run.collect(turn), run.collect(turn)
    assert unanswered(once) == unanswered(again) == {request.request_id for request in asked}
    assert ends(once) == ends(again) == {"real_time": 4}
    assert server.count("POST", BATCHES) == (1 if create else 0)


def test_an_ended_batch_can_be_collected_twice(server: BatchServer, make_run: MakeRun) -> None:
    """Each call is recorded once and each request ends alike; what waits for quota goes on waiting."""
    asked, run = make_requests(5), make_run()
    lines = [ok_line(request) for request in asked[:3]]
    lines += [error_line(asked[3], 500), error_line(asked[4], 429, "insufficient_quota")]
    finish_batch(server, lines, failed=2)
    ref = run.stage(asked)
    once, again = (run.collect(run.step(ref, 3)) for _ in range(2))
    assert ends(once) == ends(again) == {"ok": 3, "real_time": 1, "pending": 1}
    assert pending(once)[0].kind is pending(again)[0].kind is FailureKind.QUOTA_EXHAUSTED
    assert Counter(one.custom_id for one in calls([*once, *again], CallType.LLM)).most_common(1)[0][1] == 1
    assert len(calls(once, CallType.LLM)) == 5


def test_what_was_lost_may_cost_and_what_was_not_run_costs_nothing(server: BatchServer, make_run: MakeRun) -> None:
    """No cost is made up for a missing result; an expired one says why it is free."""
    asked, run = make_requests(3), make_run()
    finish_batch(server, [ok_line(asked[0]), expired_line(asked[1])], failed=1, total=3)
    items = run.collect(run.step(run.stage(asked), 3))
    found = {one.kind: one for one in calls(items, CallType.LLM)}
    missing, expired = found[FailureKind.MISSING_RESULT], found[FailureKind.EXPIRED]
    assert missing.cost_usd is None
    assert missing.cost_reason
    assert expired.cost_usd == Decimal(0)
    assert expired.cost_reason == "the batch ended without running the request"


def test_two_runs_that_share_a_collection_count_each_result_once(server: BatchServer, make_run: MakeRun) -> None:
    """What the first recorded before it was killed is in its rows of the audit, the rest in the second's."""
    asked, first = make_requests(130), make_run()
    finish_batch(
        server, [ok_line(one) for one in asked[:125]] + [error_line(one, 500) for one in asked[125:]], failed=5
    )
    staged = first.stage(asked)
    items = first.collector.finish(first.step(staged, 3))
    assert len(list(islice(items, 20))) == 20
    items.close()  # type: ignore[attr-defined]
    second = make_run(run_id=SECOND_RUN)
    rest = second.collect(second.step(second.adopt(staged, asked)))
    assert ends(rest) == {"ok": 125, "real_time": 5}
    assert len(calls(rest, CallType.LLM)) == 30
    for run in (first, second):
        run.desk.worker.segment.sync()
    rows = [row for run in (first, second) for row in run.audit_batches()]
    assert [(row["status"], row["succeeded_count"], row["failed_count"]) for row in rows] == [
        ("interrupted", 100, 0),
        ("completed", 25, 5),
    ]


def test_results_without_a_single_request_are_not_paid_for_again(server: BatchServer, make_run: MakeRun) -> None:
    """The provider counts all as done: what is wrong is not the rows, so they wait, and the batch stays open."""
    asked, run = make_requests(3), make_run()
    take_batch(server, 3)
    server.on("GET", BATCH, state("completed", 3, 3, output_file_id=""))
    ref = run.stage(asked)
    items = run.collect(run.step(ref, 3))
    assert ends(items) == {"pending": 3}
    assert run.entry(ref).phase is Phase.ENDED


def test_a_run_that_stops_does_not_wait_for_late_results(server: BatchServer, make_run: MakeRun) -> None:
    """The batch is left at once, none of it asked again; once the run may go on, its results are collected (P2, P3)."""
    asked, run = make_requests(6), make_run(poll_interval=60.0)
    lines = [ok_line(request) for request in asked]
    finish_batch(server, lines)
    server.on("GET", OUTPUT, answer(200, b"".join(lines[:3])), answer(200, b"".join(lines)))
    turn = run.step(run.stage(asked), 3)
    pool = run.desk.worker.pool
    pool.stop = Stop("another run has taken the output over", None)
    begun = time.monotonic()
    left = run.collect(turn)
    assert time.monotonic() - begun < 10
    assert {one.reason for one in pending(left)} == {"another run has taken the output over"}
    assert ends(left) == {"pending": 6}
    assert run.entry(turn.ref).phase is Phase.ENDED
    pool.stop = None
    assert ends(run.collect(turn)) == {"ok": 6}


def test_a_spent_budget_does_not_end_the_wait_for_late_results(server: BatchServer, make_run: MakeRun) -> None:
    """What is in flight is paid for already, so it is collected also when nothing more may be sent (P3)."""
    asked, run = make_requests(6), make_run()
    lines = [ok_line(request) for request in asked]
    finish_batch(server, lines)
    server.on("GET", OUTPUT, answer(200, b"".join(lines[:3])), answer(200, b"".join(lines)))
    turn = run.step(run.stage(asked), 3)
    run.desk.worker.pool.stop = Stop("the budget has no room", FailureKind.BUDGET)
    assert ends(run.collect(turn)) == {"ok": 6}
