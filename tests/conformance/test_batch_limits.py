"""Batches held back by the provider's limits, and released as earlier ones drain (P1, P2)."""

from typing import Any

import orjson

from tests.conformance.batch_jobs import Asked, Gate, Workshop, assert_all_once, assert_paid
from tests.conformance.jobs import plain_rows

_SMALL = {"max_requests": 10}


def _unfinished(asked: Asked, body: bytes) -> bytes:
    """Return a batch's state as one that has not ended."""
    if asked.method != "GET" or "/batches/" not in asked.path:
        return body
    return orjson.dumps({**orjson.loads(body), "status": "in_progress"})


def _most_at_once(events: list[dict[str, Any]]) -> int:
    """Return how many batches were unfinished at a time, at most; an end is seen by its results' download."""
    waiting, most = set[str](), 0
    for event in events:
        if event["event"] == "create_accepted":
            waiting.add(event["batch_id"])
            most = max(most, len(waiting))
        elif event["event"] == "status" and event.get("status") in {"completed", "failed"}:
            waiting.discard(event["batch_id"])
    return most


def test_enqueued_tokens_hold_batches_back_and_let_them_go(workshop: Workshop) -> None:
    """With room for one batch's tokens at a time, several batches go one after another, each row once."""
    workshop.write("openai", 30, batching=_SMALL)
    assert_all_once(workshop.run("batching.enqueued_tokens=1"), 30)
    batches = len(workshop.entries())
    assert batches >= 3
    assert_paid(workshop.sandbox, batches=batches, by_batch=30)
    assert _most_at_once(workshop.sandbox.events()) == 1


def test_without_a_limit_batches_wait_side_by_side(workshop: Workshop) -> None:
    """The same batches are all at the provider at once."""
    workshop.write("openai", 30, batching=_SMALL)
    assert_all_once(workshop.run(), 30)
    assert _most_at_once(workshop.sandbox.events()) == len(workshop.entries()) >= 3


def test_batches_per_hour_hold_back_until_the_deadline(workshop: Workshop) -> None:
    """Of several batches one may be created this hour: the others wait, and past the deadline their rows go real time (P1)."""
    workshop.write("openai", 30, batching=_SMALL)
    result = workshop.run("batching.batches_per_hour=1", "batching.deadline=4s")
    assert_all_once(result, 30)
    [sent] = [entry for entry in workshop.entries() if entry.handle]
    by_batch = sent.staged.request_count
    assert 0 < by_batch <= 10
    assert_paid(workshop.sandbox, batches=1, by_batch=by_batch, real_time=30 - by_batch)


def test_what_is_held_back_is_left_by_a_run_that_detaches(workshop: Workshop) -> None:
    """Detached runs leave batches at the provider and batches held back; the next ones collect and send the rest (P1, P2)."""
    with Gate(workshop.sandbox) as gate:
        # However slow the run: to it no batch has ended.
        gate.rewrite = _unfinished
        workshop.write("openai", 30, gate=gate, batching={**_SMALL, "detach": True})
        first = workshop.run("batching.batches_per_hour=2")
        assert (first.exit_code, first.summary["rows"]["pending"]) == (5, 30)
        reasons = " ".join(entry["reason"] for entry in first.summary["pending_reasons"])
        assert "is not submitted yet" in reasons
        assert workshop.sandbox.bill()["batch_count"] == 2
        statuses = workshop.output.values("select status from {batches}")
        assert sorted(set(statuses)) == ["held_back", "submitted"]
        gate.rewrite = lambda _asked, body: body
        assert_all_once(workshop.run("batching.detach=false"), 30)
    bill = workshop.sandbox.bill()
    assert (bill["batch_billed"], bill["accepted"], bill["paid_twice"]) == (30, 0, 0)


def test_a_full_queue_noticed_late_takes_the_same_file_again(workshop: Workshop) -> None:
    """token_limit_exceeded after acceptance: the same file is submitted again later, and its rows are paid once (P2)."""
    workshop.sandbox.set_faults(batch={"late_token_limit": 2})
    workshop.write("openai")
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=3, by_batch=30)
    [entry] = workshop.entries()
    assert [void.kind for void in entry.voids] == ["enqueued_limit", "enqueued_limit"]
    assert len([event for event in workshop.sandbox.events() if event["event"] == "upload_done"]) == 1


def test_the_providers_own_queue_is_waited_for(workshop: Workshop) -> None:
    """The provider's limit unknown to the job: batches that fail late come again until all have been let in (P1, P2)."""
    workshop.sandbox.set_faults(batch={"enqueued_limit": 700})
    workshop.write("openai", plain_rows(30), batching=_SMALL)
    assert_all_once(workshop.run(), 30)
    bill = workshop.sandbox.bill()
    assert (bill["batch_billed"], bill["accepted"], bill["paid_twice"]) == (30, 0, 0)
    assert workshop.sandbox.stats()["requests"] == 0
