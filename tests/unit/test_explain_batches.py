"""`rowbeam explain` of rows that went by a provider's batch, in one run or across several."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.explain import explain_row
from pipelines.explain_tree import draw_story
from tests.unit.batch_outputs import (
    BATCH,
    KEY,
    PROVIDER_ID,
    RUN_3,
    make_answer,
    make_ended,
    make_exchange,
    make_failed_exchange,
    make_opened,
    write_run,
)
from tests.unit.cli_outputs import RUN_1, RUN_2, make_call, request_id, row_end
from transforms.records.call import BatchEnded, BatchOpened, CallStatus
from transforms.records.failure import FailureKind
from transforms.records.request import Lane
from transforms.records.row import Outcome

SUBMITTED = [make_exchange(0, "upload"), make_exchange(1, "create"), make_exchange(2, "status")]
WAITS = [{"kind": None, "reason": f"batch {BATCH} is in_progress at openai", "requests": 2}]


def drawn(story: dict[str, Any], width: int = 110) -> str:
    """Return the story as the terminal shows it."""
    console = Console(width=width, markup=False)
    with console.capture() as shown:
        draw_story(story, console)
    return shown.get()


def two_pending(output: Path) -> None:
    """Write a run that submitted a batch of two requests and left it, and one that looked and left it."""
    rows = [row_end("R1", "q1", Outcome.PENDING), row_end("R2", "q2", Outcome.PENDING)]
    first = [make_opened(), *SUBMITTED, make_ended(RUN_1)]
    write_run(output, RUN_1, rows=rows, records=first, pending_reasons=WAITS)
    looks = [make_failed_exchange(3, "status", RUN_2), make_exchange(4, "status", RUN_2)]
    second = [make_opened(RUN_2), *looks, make_ended(RUN_2)]
    write_run(output, RUN_2, rows=rows, records=second, pending_reasons=WAITS)


def collected(output: Path) -> None:
    """Write the run that collects it."""
    records = [
        make_opened(RUN_3),
        make_exchange(5, "status", RUN_3),
        make_exchange(6, "download", RUN_3),
        make_answer(7, "q2"),
        make_answer(8, "q1"),
        make_ended(RUN_3, "completed", output_file_id="file-out", error_file_id="file-err"),
    ]
    settled = {"call_id": f"{BATCH}-000008", "answered_in_run_id": RUN_3}
    rows = [row_end("R1", "q1", Outcome.ENRICHED, **settled), row_end("R2", "q2", Outcome.ENRICHED, **settled)]
    write_run(output, RUN_3, rows=rows, records=records)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output whose batch was submitted in one run, seen in a second and collected in a third."""
    two_pending(tmp_path)
    collected(tmp_path)
    return tmp_path


def test_a_batch_that_lived_through_three_runs_is_one_story(output: Path) -> None:
    """Ids, place in the request file, and what each run did with it are told once, of one batch."""
    story = explain_row(str(output), "R2")
    (batch,) = story["batches"]
    assert (batch["batch_id"], batch["batch_key"], batch["mode"]) == (BATCH, KEY, "provider_batch_api")
    assert (batch["provider_batch_id"], batch["custom_id"]) == (PROVIDER_ID, "c-q2")
    assert (batch["ordinal"], batch["line"], batch["request_count"]) == (1, 2, 2)
    assert (batch["input_file_id"], batch["output_file_id"], batch["error_file_id"]) == (
        "file-in",
        "file-out",
        "file-err",
    )
    assert [(run["run_id"], run["status"], run["pending"]) for run in batch["runs"]] == [
        (RUN_1, "submitted", 2),
        (RUN_2, "submitted", 2),
        (RUN_3, "completed", 0),
    ]
    assert [call["call_index"] for call in story["calls"]] == [7]
    assert [past["outcome"] for past in story["history"]] == ["pending", "pending", "enriched"]
    assert story["cost_usd"] == "0.0000345"


def test_its_exchanges_are_told_in_order_over_all_runs_and_looks_are_collapsed(output: Path) -> None:
    """Four status checks of three runs are one entry with the first, the last and how many failed."""
    exchanges = explain_row(str(output), "R1")["batches"][0]["exchanges"]
    assert [(one["what"], one["count"]) for one in exchanges] == [
        ("upload", 1),
        ("create", 1),
        ("status", 4),
        ("download", 1),
    ]
    looks = exchanges[2]
    assert (looks["first_call_index"], looks["last_call_index"], looks["failed"]) == (2, 5, 1)
    assert (looks["first_at"], looks["last_at"]) == ("2026-11-21T05:34:16Z", "2026-11-21T07:34:19Z")
    assert looks["run_ids"] == [RUN_1, RUN_2, RUN_3]
    assert (looks["http_status"], looks["error"]["message"]) == (200, "try later")


def test_the_tree_shows_the_whole_life_of_the_batch(output: Path) -> None:
    """People see what each run did, the calls in order, and the answer with the time it took in the batch."""
    text = drawn(explain_row(str(output), "R1"))
    told = [
        "line 1 of its request file, completed",
        f"run {RUN_1}  left it at the provider",
        f"run {RUN_3}  collected it, completed: 2 answered, 0 failed",
        "call 0  upload of the request file: HTTP 200",
        "call 1  create of the batch: HTTP 200",
        "calls 2 to 5  4 status checks: the last HTTP 200, 1 failed",
        "try later",
        "call 6  download of the results: HTTP 200",
        "call 8  question, attempt 1: ok  HTTP 200  2 h 00 min in the batch",
    ]
    places = [text.find(words) for words in told]
    assert -1 not in places
    assert places == sorted(places)


def test_a_pending_row_names_the_batch_in_which_it_waits(tmp_path: Path) -> None:
    """It has no call yet; the batch is found by its members, in whichever run they stand."""
    two_pending(tmp_path)
    story = explain_row(str(tmp_path), "R1")
    assert story["run_id"] == RUN_2
    assert story["calls"] == []
    assert story["waits_in"] == {
        "batch_id": BATCH,
        "provider_batch_id": PROVIDER_ID,
        "provider_name": "openai",
        "status": "submitted",
        "submitted_at": "2026-11-21T05:34:15Z",
        "collected_in_run_id": None,
    }
    assert story["pending_reason"] == WAITS[0]["reason"]
    assert story["batches"][0]["line"] == 1
    text = " ".join(drawn(story).replace("│", " ").split())
    assert f"It waits in {PROVIDER_ID} at openai since 2026-11-21 05:34:15 UTC" in text
    assert "nothing yet: a batch is billed by its answers" in text
    assert "no call was made" not in text


def test_a_run_in_which_the_row_was_pending_says_which_run_closed_the_batch(output: Path) -> None:
    """Asked about an old run, the story does not send anybody to collect what is collected."""
    story = explain_row(str(output), "R1", RUN_1)
    assert story["waits_in"]["collected_in_run_id"] == RUN_3
    text = drawn(story)
    assert f"It waited in {PROVIDER_ID}, which run {RUN_3} closed" in text
    assert "paid by a later run" in text


@pytest.mark.parametrize(
    ("status", "said"),
    [
        pytest.param("held_back", "is not submitted yet. Run the job again", id="held-back"),
        pytest.param("unresolved", "left it in doubt: its create got no reply", id="in-doubt"),
    ],
)
def test_a_batch_that_is_not_at_the_provider_for_sure_says_so(tmp_path: Path, status: str, said: str) -> None:
    """Held back and in doubt are different things, and neither is "sent"."""
    rows = [row_end("R1", "q1", Outcome.PENDING)]
    ended = BatchEnded(BATCH, RUN_1, status, 2, 0, 0, 2)
    write_run(tmp_path, RUN_1, rows=rows, records=[make_opened(), ended])
    story = explain_row(str(tmp_path), "R1")
    assert story["waits_in"]["status"] == status
    assert said in drawn(story)


def test_a_pending_row_points_to_its_line_of_the_request_file(tmp_path: Path) -> None:
    """The file may hold what the audit must not show, so its place is told and not its text."""
    two_pending(tmp_path)
    (tmp_path / "ledger" / "requests").mkdir()
    (tmp_path / "ledger" / "requests" / f"{KEY}.jsonl").write_text('{"custom_id":"c-q1"}\n')
    story = explain_row(str(tmp_path), "R1")
    assert story["batches"][0]["request_file"] == f"ledger/requests/{KEY}.jsonl"
    assert story["prompt"]["note"] == "sent in a batch: it is line 1 of the batch's request file"
    assert "sent in a batch" in drawn(story)


def test_a_row_that_failed_in_its_batch_is_told_with_its_retry_and_its_repair(tmp_path: Path) -> None:
    """Batch, call in real time and repair stand in this order, each under its own execution record."""
    failed = make_answer(
        8, "q1", status=CallStatus.ERROR, kind=FailureKind.EXPIRED, http_status=None, response_json=None, text=None
    )
    again = make_call(0, "q1", RUN_3, started_at_us=failed.started_at_us + 9_000_000)
    repair = make_call(
        0,
        "q1r",
        RUN_3,
        batch_id="b9",
        call_id="b9-000000",
        lane=Lane.REPAIR,
        root_request_id=request_id("q1"),
        started_at_us=again.started_at_us + 1_000_000,
    )
    pools = [
        BatchOpened(call.batch_id, "k", RUN_3, "per_request", "openai", "gpt-4o-mini", call.started_at_us, ())
        for call in (again, repair)
    ]
    two_pending(tmp_path)
    records = [make_opened(RUN_3), failed, *pools, again, repair, make_ended(RUN_3, "expired")]
    end = row_end("R1", "q1", Outcome.ENRICHED, call_id="b9-000000", answered_in_run_id=RUN_3)
    write_run(tmp_path, RUN_3, rows=[end], records=records)
    story = explain_row(str(tmp_path), "R1")
    assert [batch["mode"] for batch in story["batches"]] == ["provider_batch_api", "per_request", "per_request"]
    assert [call["outcome"] for call in story["calls"]] == ["expired", "ok", "ok"]
    assert story["cost_usd"] == "0.0001035"
    text = drawn(story)
    assert text.index("provider_batch_api") < text.index("Again in real time") < text.index("Repair")


def test_a_batch_that_the_provider_did_not_take_is_part_of_the_story(tmp_path: Path) -> None:
    """The row was answered in real time; that a batch was tried first is on record."""
    answered = make_call(0, "q1")
    pool = BatchOpened(answered.batch_id, "k", RUN_1, "per_request", "openai", "gpt-4o-mini", 1, ())
    refused = BatchEnded(BATCH, RUN_1, "not_taken", 2, 0, 0, 0)
    end = row_end("R1", "q1", Outcome.ENRICHED, call_id=answered.call_id, answered_in_run_id=RUN_1)
    records = [make_opened(), make_failed_exchange(0, "upload"), refused, pool, answered]
    write_run(tmp_path, RUN_1, rows=[end], records=records)
    story = explain_row(str(tmp_path), "R1")
    assert {batch["batch_id"]: batch["status"] for batch in story["batches"]}[BATCH] == "not_taken"
    assert "gave it up: the provider did not take it" in drawn(story)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_of_a_batch_is_wider_than_the_terminal(output: Path, width: int) -> None:
    """The tree folds."""
    assert all(len(line) <= width for line in drawn(explain_row(str(output), "R1"), width).splitlines())
