"""What a damaged ledger or an empty page must not lead to: requests of a batch in flight sent once more, or disowned."""

import time
from pathlib import Path

import pytest

from tests.stages.batch_stage_desk import (
    BATCH,
    OUTPUT,
    MakeRun,
    RunDesk,
    ends,
    finish_batch,
    make_requests,
    ok_line,
    take_batch,
)
from tests.unit.batch_server import BatchServer, Step, answer
from transforms.read_batches import _ReadMembersDoFn
from transforms.records.batch import BatchRef, Turn
from transforms.records.errors import InternalError
from transforms.storage.batch_entry import Handle, Intent, Phase
from transforms.storage.batch_ledger import create_intent, members_path, record_handle, requests_path


def _found_by_time(run: RunDesk, count: int) -> BatchRef:
    """Return a batch that the listing led to: whether it is ours, its results must tell."""
    ref, now_s = run.stage(make_requests(count)), time.time()
    create_intent(run.settings.ledger, Intent(ref.batch_key, 0, run.settings.run_id, "n", count, now_s))
    record_handle(run.settings.ledger, ref.batch_key, 0, Handle("batch_1", None, now_s, run.settings.run_id, False))
    return ref


def test_a_members_file_that_is_cut_between_lines_stops_the_run(server: BatchServer, make_run: MakeRun) -> None:
    """The requests that it lacks would pass for fresh, and be paid for twice (P2)."""
    run = make_run()
    asked = make_requests(6)
    finish_batch(server, [ok_line(request) for request in asked])
    ref = run.stage(asked)
    members = Path(members_path(run.settings.ledger, ref.batch_key))
    turn = run.step(ref, 3)
    whole = members.read_bytes()
    members.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
    said = r"members\.jsonl has 5 lines for 6 requests; restore the file from a backup"
    with pytest.raises(InternalError, match=said):
        list(_ReadMembersDoFn(run.settings.ledger).process(ref.batch_key))
    with pytest.raises(InternalError, match=said):
        run.collect(turn)
    members.write_bytes(whole)
    assert len(list(_ReadMembersDoFn(run.settings.ledger).process(ref.batch_key))) == 6
    assert ends(run.collect(turn)) == {"ok": 6}


def test_a_request_file_that_is_gone_is_named_where_it_is_needed(server: BatchServer, make_run: MakeRun) -> None:
    """Only the record of a row that left the input needs it; the line says what to do."""
    run = make_run()
    asked = make_requests(3)
    finish_batch(server, [ok_line(request) for request in asked])
    ref = run.stage(asked)
    turn = run.step(ref, 3)
    Path(requests_path(run.settings.ledger, ref.batch_key)).unlink()
    run.adopt(ref, asked[:2])
    with pytest.raises(InternalError, match=r"\.jsonl is missing, and the input lacks rows .* restore the file"):
        run.collect(turn)
    run.adopt(ref, asked)
    assert ends(run.collect(turn)) == {"ok": 3}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(answer(200, b""), id="nothing"),
        pytest.param(answer(200, b"<html>\nPlease sign in\n</html>\n"), id="a page of somebody else's"),
    ],
)
def test_results_that_name_no_request_do_not_disown_a_batch(server: BatchServer, make_run: MakeRun, page: Step) -> None:
    """What a batch found by its time holds decides whose it is; an empty page decides nothing (P2, P3)."""
    run = make_run()
    ref = _found_by_time(run, 3)
    take_batch(server, 3)
    lines = [ok_line(request) for request in make_requests(3)]
    finish_batch(server, lines)
    server.on("GET", OUTPUT, page, answer(200, b"".join(lines)))
    assert run.step(ref).turn is Turn.WAITING
    assert run.entry(ref).phase is Phase.SUBMITTED
    turn = run.step(ref)
    assert turn.turn is Turn.ENDED
    assert ends(run.collect(turn)) == {"ok": 3}
    assert server.count("GET", BATCH) == 2


@pytest.mark.parametrize(
    ("page", "end"),
    [
        pytest.param(b"", "real_time", id="no line: as any row that the results lack"),
        pytest.param(b"<html>Please sign in</html>", "pending", id="somebody else's page"),
    ],
)
def test_a_batch_of_one_whose_result_never_comes_does_not_wait_for_ever(
    server: BatchServer, make_run: MakeRun, page: bytes, end: str
) -> None:
    """The provider counts it as done and has no line of it, run after run (P1); a page that is no results decides nothing."""
    run = make_run()
    asked = make_requests(1)
    finish_batch(server, [ok_line(asked[0])])
    server.on("GET", OUTPUT, answer(200, page))
    assert ends(run.collect(run.step(run.stage(asked), 3))) == {end: 1}


def test_a_found_batch_whose_results_stay_empty_is_left(server: BatchServer, make_run: MakeRun) -> None:
    """After twelve looks: the run ends, and the next one looks again."""
    run = make_run()
    ref = _found_by_time(run, 3)
    finish_batch(server, [ok_line(request) for request in make_requests(3)])
    server.on("GET", OUTPUT, answer(200, b""))
    assert run.step(ref, 11).turn is Turn.WAITING
    turn = run.step(ref)
    assert turn.turn is Turn.LEFT
    assert "they name no request, though the provider counts 3 as done" in turn.reason
    assert run.entry(ref).phase is Phase.SUBMITTED
