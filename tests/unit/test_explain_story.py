"""What `rowbeam explain` tells beside the calls: hash, template, reading, file, cost, proof, timeline, dropped texts."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.explain import explain_row
from pipelines.explain_parse import tell_parse
from pipelines.explain_payloads import tell_payload
from tests.unit.cli_outputs import JOB, RUN_1, RUN_2, make_call, request_id, row_end, write_run
from transforms.records.call import CallRecord, CostSource
from transforms.records.row import Outcome
from transforms.rules.identity import content_sha256
from transforms.storage.runs import RunFolder, read_manifest

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
HASHED = '{"sha256":"' + "ab" * 32 + '","bytes":12}'


def enriched_row(key: str, request: str) -> dict[str, Any]:
    """Return an enriched row with the columns that matter here."""
    answer = {"label": {"label": "good"}, "label_request_id": request_id(request)}
    return {"id": key, "stars": 4} | answer | {"label_template_source": "prompt.j2", "label_template_hash": "b" * 64}


def write_one(output: Path, call: CallRecord, **changes: Any) -> None:
    """Write an output whose one run asked one request, for R1, as its second row."""
    ends = [
        row_end("R0", "q0", Outcome.ENRICHED),
        row_end("R1", "q1", Outcome.ENRICHED, call_id=call.call_id, answered_in_run_id=RUN_1),
    ]
    rows = [enriched_row("R0", "q0"), enriched_row("R1", "q1")]
    write_run(output, rows=ends, calls=[call], enriched=rows, **changes)


def test_hash_template_model_and_file_are_told(tmp_path: Path) -> None:
    """The content's hash, the template's version and source, both models, and the row of the Parquet file are there."""
    write_one(tmp_path, make_call(0, "q1"))
    story = explain_row(str(tmp_path), "R1")
    assert story["row_hash"] == {"sha256": content_sha256({"id": "R1", "stars": 4}), "note": None}
    assert (story["template"]["sha256"], story["template"]["source"]) == ("b" * 64, "prompt.j2")
    assert (story["model"]["asked"], story["model"]["answered"]) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")
    file = story["output_file"]
    assert (file["path"], file["row"], file["is_line"]) == (f"runs/{RUN_1}/enriched/part.parquet", 2, False)
    listed = {one["path"]: one["sha256"] for one in read_manifest(RunFolder(str(tmp_path), RUN_1))["files"]}
    assert file["sha256"] == listed["enriched/part.parquet"]


def test_a_dead_letter_names_its_file_and_line(tmp_path: Path) -> None:
    """The line of the dead letters is counted from 1."""
    letters = [{"row_id": name, "kind": "refusal", "stage": "call", "row": {"id": name}} for name in ("R8", "R9")]
    write_run(tmp_path, rows=[row_end("R9", None, Outcome.DEAD_LETTERED)], letters=letters)
    file = explain_row(str(tmp_path), "R9")["output_file"]
    assert (file["path"], file["row"], file["is_line"]) == (f"runs/{RUN_1}/dead_letters/part.jsonl", 2, True)


@pytest.mark.parametrize(
    ("text", "how", "value"),
    [
        pytest.param('{"n":5}', "as_is", {"n": 5}, id="plain"),
        pytest.param('```json\n{"n": 5}\n```', "fence_stripped", {"n": 5}, id="fence"),
        pytest.param('Here: {"n": 5}, as asked.', "found_in_text", {"n": 5}, id="prose"),
        pytest.param("{'n': 5,}", "recovered", {"n": 5}, id="recovered"),
        pytest.param('{"m": 5}', "as_is", None, id="refused-by-the-schema"),
        pytest.param("no", "unreadable", None, id="no-json"),
    ],
)
def test_how_an_answer_was_read_is_told(text: str, how: str, value: Any) -> None:
    """The steps that were needed, and what the schema said."""
    told = tell_parse(text, {"schema": SCHEMA})
    assert (told["how"], told["value"]) == (how, value)
    assert told["is_mended"] is (how not in ("as_is", "unreadable"))
    assert (told["problem"] is None) is (value is not None)


@pytest.mark.parametrize(
    ("text", "answer", "how"),
    [
        pytest.param(" yes ", {}, "plain_text", id="no-schema"),
        pytest.param(None, {"schema": SCHEMA}, "unknown", id="text-not-kept"),
        pytest.param('{"n":5}', {"python": "my_pkg:Review"}, "as_is", id="schema-of-the-user-s-code"),
    ],
)
def test_what_can_t_be_told_of_a_reading_is_null(text: str | None, answer: dict[str, Any], how: str) -> None:
    """Without a JSON schema at hand nothing is claimed of a check."""
    told = tell_parse(text, answer)
    assert (told["how"], told["is_schema_checked"], told["is_fitted"]) == (how, None, None)


def test_a_slip_that_was_put_right_by_the_schema_is_told() -> None:
    """The letter case of an enum's member is mended, and that is told."""
    schema = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}}
    told = tell_parse('{"label":"Good"}', {"schema": schema})
    assert (told["how"], told["is_fitted"], told["value"]) == ("as_is", True, {"label": "good"})


def test_unknown_cost_says_unknown_with_its_reason(tmp_path: Path) -> None:
    """What is not known is no zero: null, counted, with why."""
    why = "the reply was lost"
    write_one(tmp_path, make_call(0, "q1", cost_usd=None, cost_source=CostSource.UNKNOWN, cost_reason=why))
    cost = explain_row(str(tmp_path), "R1")["cost"]
    assert (cost["usd"], cost["is_exact"], cost["reasons"]) == (None, False, [{"reason": why, "calls": 1}])


def test_cost_is_told_by_run_and_adds_up(tmp_path: Path) -> None:
    """The sum over runs is the sum over calls, and the run that paid nothing is told apart."""
    write_one(tmp_path, make_call(0, "q1"))
    end = row_end("R1", "q1", Outcome.ENRICHED, run_id=RUN_2, call_id="b1-000000", answered_in_run_id=RUN_1)
    write_run(tmp_path, RUN_2, rows=[end], enriched=[enriched_row("R1", "q1")])
    story = explain_row(str(tmp_path), "R1")
    assert story["cost"]["in_this_run"] is False
    assert sum(Decimal(one["usd"]) for one in story["cost"]["by_run"]) == Decimal(story["cost_usd"])
    assert (story["reuse"]["call_id"], story["reuse"]["same_job"]) == ("b1-000000", True)


def test_the_proof_holds_for_files_as_they_were_written(tmp_path: Path) -> None:
    """Every file is as its manifest lists it, every check holds, and the chain is whole."""
    write_one(tmp_path, make_call(0, "q1"))
    end = row_end("R1", "q1", Outcome.ENRICHED, run_id=RUN_2, call_id="b1-000000", answered_in_run_id=RUN_1)
    write_run(tmp_path, RUN_2, rows=[end], enriched=[enriched_row("R1", "q1")])
    proof = explain_row(str(tmp_path), "R1")["proof"]
    assert {file["check"] for file in proof["files"]} == {"same"}
    assert [link["link"] for link in proof["chain"]] == ["first", "same"]


def test_a_file_that_was_changed_is_named(tmp_path: Path) -> None:
    """One more byte in the dead letters, and the proof says which file is not as listed."""
    letter = {"row_id": "R9", "kind": "refusal", "stage": "call", "row": {"id": "R9"}}
    folder = write_run(tmp_path, rows=[row_end("R9", None, Outcome.DEAD_LETTERED)], letters=[letter])
    with Path(folder.dead_letters, "part.jsonl").open("ab") as file:
        file.write(b"\n")
    files = explain_row(str(tmp_path), "R9")["proof"]["files"]
    assert [file["what"] for file in files if file["check"] == "changed"] == ["the row and why it failed"]


def test_the_timeline_is_in_order_and_has_the_row_s_end(tmp_path: Path) -> None:
    """The run begins, the call is made, the row ends; waits are told with the call."""
    write_one(tmp_path, make_call(0, "q1", waited_ms=1500.0))
    timeline = explain_row(str(tmp_path), "R1")["timeline"]
    assert [one["kind"] for one in timeline] == ["run", "call", "end"]
    assert timeline == sorted(timeline, key=lambda one: one["at"])
    assert timeline[1]["waited_ms"] == 1500.0


def test_calls_of_a_killed_run_are_told_before_it_is_sealed(tmp_path: Path) -> None:
    """Its ledger is read: the call, its batch and place are there as sealing would give them, and a note says so."""
    write_run(tmp_path, rows=[row_end("R1", "q1", Outcome.PENDING)])
    write_run(tmp_path, RUN_2, rows=[], calls=[make_call(0, "q0", RUN_2), make_call(1, "q1", RUN_2)], finish=False)
    story = explain_row(str(tmp_path), "R1")
    (call,) = story["calls"]
    assert (call["run_id"], call["outcome"], call["cost_usd"]) == (RUN_2, "ok", "0.0000345")
    (batch,) = story["batches"]
    assert (batch["status"], batch["ordinal"], batch["request_count"]) == ("interrupted", 1, 2)
    assert "is not sealed: what its ledger has of this row is told here" in story["notes"][0]
    assert [link["link"] for link in story["proof"]["chain"]] == ["first", "open"]


def test_a_run_killed_while_it_closed_is_told_once(tmp_path: Path) -> None:
    """Its tables are there and its manifest says running: what tables and ledger both have is told once."""
    write_one(tmp_path, make_call(0, "q1"))
    manifest = tmp_path / "runs" / RUN_1 / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"status": "done"', b'"status": "running"'))
    story = explain_row(str(tmp_path), "R1")
    assert [call["call_id"] for call in story["calls"]] == ["b1-000000"]
    assert [(batch["status"], len(batch["runs"])) for batch in story["batches"]] == [("completed", 1)]


def test_a_text_dropped_by_retention_is_told_with_its_date_and_hash(tmp_path: Path) -> None:
    """Where the job kept payloads, a hash in their place means they were dropped; the record says when."""
    write_one(tmp_path, make_call(0, "q1", request_json=HASHED, response_json=HASHED))
    record = {
        "run_id": RUN_1, "forgotten_at": "2026-12-21T00:00:00Z", "files": [], "rowbeam": "0.1.0",
        "rule": {"older_than": "30d", "answers": False, "dead_letters": False},
        "previous": {"run_id": RUN_1, "manifest_sha256": "a" * 64},
    }  # fmt: skip
    (tmp_path / "runs" / RUN_1 / "retention-1.json").write_bytes(orjson.dumps(record))
    story = explain_row(str(tmp_path), "R1")
    assert "the text was dropped on 2026-12-21 00:00:00 UTC" in story["prompt"]["note"]
    assert "ab" * 32 in story["prompt"]["note"]
    assert story["calls"][0]["response_body"]["kept"] == "dropped"
    assert story["parse"]["how"] == "unknown"
    assert [one["kind"] for one in story["timeline"]][-1] == "retention"


@pytest.mark.parametrize(
    ("text", "audit", "kept"),
    [
        pytest.param('{"model":"m"}', {"payloads": "full"}, "whole", id="full"),
        pytest.param(HASHED, {"payloads": "hash"}, "hash", id="hash"),
        pytest.param(HASHED, {"payloads": "full"}, "dropped", id="dropped"),
        pytest.param(None, {"payloads": "none"}, "none", id="none"),
        pytest.param('{"text":"[redacted]"}', {"payloads": "full", "redact": ["text"]}, "redacted", id="redacted"),
    ],
)
def test_what_is_left_of_a_body_is_told(text: str | None, audit: dict[str, Any], kept: str) -> None:
    """Each way of not having a text has its own word and its own note."""
    told = tell_payload(text, {"run_id": RUN_1, "job": {**JOB, "audit": audit}}, [])
    assert told["kept"] == kept
    assert (told["note"] is None) is (kept == "whole")
