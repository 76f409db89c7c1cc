"""Batches that outlive the run that submitted them: collected later, whole, once (P2, P3, P5, P8)."""

import dataclasses
from typing import Any

import orjson
import pytest

from pipelines.explain import explain_row
from pipelines.job import load_job
from pipelines.run import RunRequest, run_job
from tests.conformance.batch_jobs import Workshop, assert_all_once, assert_paid
from tests.conformance.jobs import answers_by_id, plain_rows

#: While it lasts no batch is seen to end.
_RUNNING = {"unknown_status": 100_000}


def _submit(workshop: Workshop, provider: str = "openai", **changes: Any) -> str:
    """Run a job of 30 rows that submits its batch and leaves it; return the run's id."""
    workshop.sandbox.set_faults(batch=_RUNNING)
    workshop.write(provider, **changes)
    left = workshop.run("batching.detach=true")
    assert (left.exit_code, left.summary["status"]) == (5, "pending")
    assert left.summary["rows"] == {"in": 30, "enriched": 0, "dead_lettered": 0, "pending": 30}
    assert "30 row(s) wait: batch " in left.sentence
    run_id: str = left.summary["run_id"]
    return run_id


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_batch_is_collected_two_runs_later(workshop: Workshop, provider: str) -> None:
    """Submitted in one run, still running in the second, collected in the third: rows once, one batch paid (P1, P2, P3)."""
    runs = [_submit(workshop, provider)]
    waiting = workshop.run("batching.detach=true")
    assert (waiting.exit_code, waiting.summary["rows"]["pending"]) == (5, 30)
    workshop.sandbox.set_faults()
    done = workshop.run("batching.detach=true")
    assert_all_once(done, 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=30)
    runs += [waiting.summary["run_id"], done.summary["run_id"]]
    assert len(answers_by_id(workshop.output.enriched(runs[2]))) == 30
    _check_audit(workshop, runs)
    _check_story(workshop, runs)


def _check_audit(workshop: Workshop, runs: list[str]) -> None:
    """One record of the batch per run and one numbering of its calls over all runs (P4, P5)."""
    query = workshop.output.query
    batches = query("select run_id, batch_id, status, provider_batch_id from {batches} order by run_id")
    assert [batch["run_id"] for batch in batches] == sorted(runs)
    assert [batch["status"] for batch in batches] == ["submitted", "submitted", "completed"]
    assert len({(batch["batch_id"], batch["provider_batch_id"]) for batch in batches}) == 1
    calls = query("select run_id, call_index, call_type, custom_id, request_id from {calls} order by call_index")
    assert [call["call_index"] for call in calls] == list(range(len(calls)))
    kinds = [call["call_type"] for call in calls]
    assert kinds == ["HTTP"] * (len(calls) - 30) + ["LLM"] * 30
    assert [call["run_id"] for call in calls] == sorted(call["run_id"] for call in calls)
    members = {
        row["custom_id"]: row["request_id"] for row in query("select custom_id, request_id from {batch_members}")
    }
    assert {call["custom_id"]: call["request_id"] for call in calls[-30:]} == members
    answered = query("select row_id, answered_in_run_id, request_id from {rows} where run_id = $1", runs[2])
    assert {row["answered_in_run_id"] for row in answered} == {runs[2]}
    assert {row["request_id"] for row in answered} == set(members.values())


def _check_story(workshop: Workshop, runs: list[str]) -> None:
    """`explain` tells of the batch from its submission on, in whichever run one asks (P5)."""
    story = explain_row(str(workshop.output.folder), "r7")
    assert (story["run_id"], story["outcome"], story["source"]) == (runs[2], "enriched", "reviews.csv:9")
    [batch] = story["batches"]
    assert [(one["run_id"], one["pending"]) for one in batch["runs"]] == list(zip(runs, (30, 30, 0), strict=True))
    assert {"create", "status"} <= {exchange["what"] for exchange in batch["exchanges"]}
    lines = (workshop.output.folder / batch["request_file"]).read_bytes().split(b"\n")
    assert orjson.loads(lines[batch["line"] - 1])["custom_id"] == batch["custom_id"]
    [call] = story["calls"]
    assert (call["batch_id"], call["run_id"], call["outcome"]) == (batch["batch_id"], runs[2], "ok")
    first = explain_row(str(workshop.output.folder), "r7", runs[0])
    assert first["outcome"] == "pending"
    assert first["waits_in"]["collected_in_run_id"] == runs[2]


def test_a_second_run_after_a_batch_sends_nothing(workshop: Workshop) -> None:
    """The finished job again: no request of any kind, the same rows in every column (P8)."""
    workshop.write("openai")
    first = workshop.run()
    before = workshop.sandbox.stats()
    again = workshop.run()
    assert_all_once(again, 30)
    after = workshop.sandbox.stats()
    assert [after[name] - before[name] for name in ("requests", "batch_requests")] == [0, 0]
    assert again.summary["calls"] == {"sent": 0, "succeeded": 0, "failed": 0, "reused": 30}
    rows = [answers_by_id(workshop.output.enriched(one.summary["run_id"])) for one in (first, again)]
    assert rows[0] == rows[1]


def test_results_of_rows_that_left_the_input_are_kept(workshop: Workshop) -> None:
    """Between submission and collection ten rows leave and one changes: all is recorded, and nothing is paid again (P3, P8)."""
    _submit(workshop)
    workshop.sandbox.set_faults()
    rows = plain_rows(30)
    changed = [{**row, "text": "Not what I ordered."} if row["id"] == "r10" else row for row in rows[10:]]
    workshop.write_rows(changed)
    second = workshop.run()
    assert_all_once(second, 20)
    assert_paid(workshop.sandbox, batches=2, by_batch=31)
    workshop.write_rows(rows)
    third = workshop.run()
    assert_all_once(third, 30)
    assert third.summary["calls"]["sent"] == 0
    assert_paid(workshop.sandbox, batches=2, by_batch=31)


def test_a_batch_is_collected_also_when_nothing_of_it_is_asked_any_more(workshop: Workshop) -> None:
    """All its rows have left the input: what is paid for is recorded all the same (P3)."""
    _submit(workshop)
    workshop.sandbox.set_faults()
    workshop.write_rows(plain_rows(5, start=100))
    assert_all_once(workshop.run("batching.mode=per_request"), 5)
    workshop.write_rows(plain_rows(30))
    back = workshop.run()
    assert_all_once(back, 30)
    assert back.summary["calls"]["sent"] == 0
    assert_paid(workshop.sandbox, batches=1, by_batch=30, real_time=5)


def test_a_job_that_turns_to_real_time_still_collects_its_batch(workshop: Workshop) -> None:
    """Mode per_request while a batch is in flight: its results are waited for, and nothing is paid twice (P2, P3)."""
    _submit(workshop)
    workshop.sandbox.set_faults()
    workshop.write_rows(plain_rows(33))
    assert_all_once(workshop.run("batching.mode=per_request"), 33)
    assert_paid(workshop.sandbox, batches=1, by_batch=30, real_time=3)


@pytest.mark.parametrize("other", ["provider", "address"])
def test_a_batch_elsewhere_is_left_alone(workshop: Workshop, other: str) -> None:
    """Another provider, or another address, has its own answers; the batch waits until the job comes back (P2, P8)."""
    _submit(workshop)
    workshop.sandbox.set_faults()
    before = len(workshop.sandbox.events())
    if other == "provider":
        workshop.write("anthropic")
        there = workshop.run("batching.mode=per_request")
    else:
        address = workshop.sandbox.base_url("openai").replace("127.0.0.1", "localhost")
        there = workshop.run(f"model.base_url={address}", "batching.mode=per_request")
    assert_all_once(there, 30)
    assert len(workshop.sandbox.events()) == before
    workshop.write("openai")
    assert_all_once(workshop.run(), 30)
    bill = workshop.sandbox.bill()
    assert (bill["batch_count"], bill["batch_billed"], bill["accepted"]) == (1, 30, 30)


def test_a_dry_run_touches_no_batch(workshop: Workshop) -> None:
    """With a batch in flight a dry run counts its rows as pending and asks the provider nothing."""
    _submit(workshop)
    before = workshop.sandbox.stats()["batch_requests"]
    request = RunRequest(load_job(str(workshop.folder / "job.yaml")))
    dry = run_job(dataclasses.replace(request, dry_run=True))
    assert (dry.exit_code, dry.summary["rows"]["pending"]) == (0, 30)
    assert workshop.sandbox.stats()["batch_requests"] == before
    assert [entry.is_in_flight for entry in workshop.entries()] == [True]
