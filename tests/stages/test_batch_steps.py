"""Batches through sender and watcher when the provider is late, full, or does not know them any more."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest
from aiohttp import web
from apache_beam.io.restriction_trackers import OffsetRange

from tests.stages.batch_stage_desk import (
    BATCH,
    BATCHES,
    FILES,
    SECOND_RUN,
    UNKNOWN,
    MakeRun,
    ends,
    finish_batch,
    make_requests,
    ok_line,
    pending,
    state,
    take_batch,
)
from tests.unit.batch_server import BatchServer, answer, reset
from transforms.poll_batches import OneWatcherTracker
from transforms.records.batch import Turn
from transforms.storage.batch_entry import Handle, Intent, Phase
from transforms.storage.batch_ledger import create_intent, record_handle


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99, 1.0])
def test_a_batch_under_watch_is_split_by_its_own_deferral_only(fraction: float) -> None:
    """The runner's wish to hand half of the looks to another worker is refused; the deferral gives all that is left."""
    tracker = OneWatcherTracker(OffsetRange(0, 1 << 40))
    assert tracker.try_claim(0)
    assert tracker.try_split(fraction) is None
    assert tracker.current_restriction() == OffsetRange(0, 1 << 40)
    assert tracker.try_split(0) == (OffsetRange(0, 1), OffsetRange(1, 1 << 40))


def test_a_batch_not_found_right_after_its_create_is_answered_later(server: BatchServer, make_run: MakeRun) -> None:
    """The provider may not show it yet: nothing is decided by one such look, and none is held against a later one."""
    asked, run = make_requests(4), make_run()
    finish_batch(server, [ok_line(request) for request in asked])
    going = state("in_progress", 4)
    finished = state("completed", 4, 4, output_file_id="out")
    server.on("GET", BATCH, *[UNKNOWN] * 5, going, *[UNKNOWN] * 5, finished)
    ref = run.stage(asked)
    turn = run.step(ref, 14)
    assert turn.turn is Turn.ENDED
    assert server.count("GET", BATCH) == 12
    assert ends(run.collect(turn)) == {"ok": 4}


def test_a_batch_that_stays_unknown_to_the_run_that_created_it_is_gone(server: BatchServer, make_run: MakeRun) -> None:
    """Six looks in a row decide, the first five nothing."""
    asked, run = make_requests(3), make_run()
    take_batch(server, 3)
    server.on("GET", BATCH, UNKNOWN)
    ref = run.stage(asked)
    assert run.step(ref, 6).turn is Turn.WAITING
    assert run.entry(ref).phase is Phase.SUBMITTED
    turn = run.step(ref)
    assert (turn.turn, server.count("GET", BATCH)) == (Turn.ENDED, 6)
    assert ends(run.collect(turn)) == {"results_gone": 3}


def test_a_batch_unknown_to_another_run_stays_pending(server: BatchServer, make_run: MakeRun) -> None:
    """That run may have the wrong key: the operator says what is lost, and how is told."""
    asked, first = make_requests(3), make_run()
    take_batch(server, 3)
    server.on("GET", BATCH, UNKNOWN)
    staged = first.stage(asked)
    first.step(staged)
    second = make_run(run_id=SECOND_RUN)
    turn = second.step(second.adopt(staged, asked), 10)
    assert (turn.turn, server.count("GET", BATCH)) == (Turn.LEFT, 6)
    items = second.collect(turn)
    assert ends(items) == {"pending": 3}
    command = f"rowbeam batches OUTPUT --resolve {staged.batch_key[:12]} --as gone"
    assert all(one.reason.endswith(command) for one in pending(items))
    assert second.entry(staged).phase is Phase.SUBMITTED


def test_every_attempt_must_be_seen_to_be_absent_anew(server: BatchServer, make_run: MakeRun) -> None:
    """What the listing did not show of the first create says nothing of the second."""
    run = make_run(settle=0.1)
    take_batch(server, 2)
    server.on("POST", BATCHES, reset)
    server.on("GET", BATCHES, answer(200, {"data": [], "has_more": False}))
    ref = run.stage(make_requests(2))
    run.step(ref, 2)
    assert run.entry(ref).voids == ()
    time.sleep(0.12)
    run.step(ref)
    assert ([void.kind for void in run.entry(ref).voids], server.count("POST", BATCHES)) == (["absent"], 2)
    run.step(ref)
    entry = run.entry(ref)
    assert (entry.phase, entry.attempt, len(entry.voids)) == (Phase.IN_DOUBT, 1, 1)
    assert server.count("POST", BATCHES) == 2


def test_a_batch_that_may_be_anothers_is_never_cancelled(server: BatchServer, make_run: MakeRun) -> None:
    """Past its deadline it is left, and the operator told how to cancel it."""
    run, begun_s = make_run(deadline=1), time.time() - 5
    ref = run.stage(make_requests(2))
    create_intent(run.settings.ledger, Intent(ref.batch_key, 0, run.settings.run_id, "n", 2, begun_s))
    handle = Handle("batch_1", None, begun_s, run.settings.run_id, proven=False)
    record_handle(run.settings.ledger, ref.batch_key, 0, handle)
    server.on("GET", BATCH, state("in_progress", 2))
    turn = run.step(ref)
    assert (turn.turn, turn.reason.endswith("rowbeam batches OUTPUT --cancel batch_1")) == (Turn.LEFT, True)
    assert server.count("POST", f"{BATCH}/cancel") == 0
    assert run.entry(ref).cancel is None


@pytest.mark.parametrize("status", [429, 503])
def test_an_upload_that_failed_in_passing_is_sent_later(server: BatchServer, make_run: MakeRun, status: int) -> None:
    """The batch waits; to go real time at the first trouble would cost twice as much."""
    run = make_run()
    take_batch(server, 2)
    server.on("POST", FILES, answer(status, {"error": {"message": "later"}}))
    ref = run.stage(make_requests(2))
    assert run.step(ref, 5).turn is Turn.WAITING
    assert server.count("POST", BATCHES) == 0
    server.on("POST", FILES, answer(200, {"id": "file-in", "status": "processed"}))
    assert run.step(ref).turn is Turn.WAITING
    assert run.entry(ref).phase is Phase.SUBMITTED


@pytest.mark.parametrize(("status", "last"), [(503, Turn.UNSENT), (429, Turn.WAITING)])
def test_uploads_that_keep_failing_send_the_requests_real_time(
    server: BatchServer, make_run: MakeRun, status: int, last: Turn
) -> None:
    """After six of them; only for want of room does a batch wait on, until its deadline."""
    run = make_run()
    server.on("POST", FILES, answer(status, {"error": {"message": "later"}}))
    ref = run.stage(make_requests(2))
    assert run.step(ref, 5).turn is Turn.WAITING
    assert run.step(ref).turn is last


def test_creates_that_reach_nobody_are_tried_again_and_then_go_real_time(
    server: BatchServer, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, so nothing is in doubt; five times the batch waits, the sixth its requests go real time."""
    run = make_run()
    take_batch(server, 2)
    create = run.desk.api.create
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/v1/batches"
    monkeypatch.setattr(run.desk.api, "create", lambda *given: replace(create(*given), url=nowhere))
    ref = run.stage(make_requests(2))
    assert run.step(ref, 5).turn is Turn.WAITING
    assert len(run.entry(ref).voids) == 5
    turn = run.step(ref)
    assert (turn.turn, server.count("POST", FILES)) == (Turn.UNSENT, 1)
    assert ends(run.collect(turn)) == {"real_time": 2}


def test_a_stop_during_the_upload_keeps_the_create_back(server: BatchServer, make_run: MakeRun) -> None:
    """By the end of a long upload the output may be another run's."""
    run = make_run()
    take_batch(server, 2)

    async def stop(request: web.Request) -> web.StreamResponse:
        run.desk.worker.pool.give_up("the output is another run's now")
        await asyncio.sleep(0.1)
        return await answer(200, {"id": "file-in", "status": "processed"})(request)

    server.on("POST", FILES, stop)
    ref = run.stage(make_requests(2))
    turn = run.step(ref)
    assert (turn.turn, turn.reason, server.count("POST", BATCHES)) == (Turn.LEFT, "the output is another run's now", 0)
    entry = run.entry(ref)
    assert (entry.phase, [void.kind for void in entry.voids]) == (Phase.STAGED, ["not_sent"])
