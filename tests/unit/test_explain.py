"""`rowbeam explain`: a row's story out of audit tables, enriched rows and dead letters of several runs."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from pipelines.explain import explain_row
from pipelines.explain_tree import draw_story
from pipelines.sent_prompt import answer_text, read_prompt
from tests.unit.cli_outputs import RUN_1, RUN_2, make_call, request_id, row_end, write_run
from transforms.records.call import CallStatus, CostSource
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.request import Lane
from transforms.records.row import Outcome
from transforms.storage.audit_rows import seal_run

LETTER = {
    "row_id": "R2",
    "run_id": RUN_1,
    "stage": "call",
    "kind": "refusal",
    "reason": "the model refused to answer: no",
    "attempts": 1,
    "retryable": False,
    "request_id": request_id("q2"),
    "call_id": "b1-000001",
    "source": {"path": "rows.csv", "line": 3},
    "row": {"id": "R2", "text": "bad words"},
}


def enriched_row(key: str, request: str, label: str = "good") -> dict[str, Any]:
    """Return an enriched row with the columns that matter here."""
    return {"id": key, "stars": 4, "label": {"label": label}, "label_request_id": request_id(request)}


def drawn(story: dict[str, Any], width: int = 100) -> str:
    """Return the story as the terminal shows it."""
    console = Console(width=width, markup=False)
    with console.capture() as shown:
        draw_story(story, console)
    return shown.get()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return the output of one run: a row enriched after a retry, and one refused."""
    failed = make_call(
        0,
        "q1",
        status=CallStatus.ERROR,
        kind=FailureKind.RATE_LIMITED,
        http_status=429,
        response_json=None,
        error_json='{"kind":"rate_limited","message":"slow down"}',
        cost_usd=Decimal(0),
        cost_source=CostSource.NOT_BILLED,
        input_tokens=None,
        output_tokens=None,
        text=None,
    )
    refused = make_call(2, "q2", status=CallStatus.ERROR, kind=FailureKind.REFUSAL, text=None)
    write_run(
        tmp_path,
        rows=[
            row_end("R1", "q1", Outcome.ENRICHED, call_id="b1-000001", answered_in_run_id=RUN_1),
            row_end("R2", "q2", Outcome.DEAD_LETTERED, call_id="b1-000002", answered_in_run_id=RUN_1),
            row_end("line:rows.csv:9", None, Outcome.DEAD_LETTERED, source="rows.csv:9"),
        ],
        calls=[failed, make_call(1, "q1", attempt=2, waited_ms=1500.0), refused],
        enriched=[enriched_row("R1", "q1")],
        letters=[
            LETTER,
            LETTER | {"row_id": "line:rows.csv:9", "kind": "malformed_row", "row": "a,b", "stage": "read"},
        ],
    )
    return tmp_path


def test_an_enriched_row_is_told_from_source_to_answer(output: Path) -> None:
    """Source, values, prompt, batch with place, both attempts, answer and exact cost are there."""
    story = explain_row(str(output), "R1")
    assert story["outcome"] == "enriched"
    assert story["values"] == {"id": "R1", "stars": 4}
    assert story["prompt"] == {"system": "Be brief.", "turns": [{"role": "user", "text": "Q"}], "note": None}
    assert [(call["attempt"], call["outcome"]) for call in story["calls"]] == [(1, "rate_limited"), (2, "ok")]
    assert story["calls"][0]["error"]["message"] == "slow down"
    assert story["calls"][1]["text"] == '{"label":"good"}'
    assert story["batches"][0]["request_count"] == 2
    assert story["batches"][0]["ordinal"] == 0
    assert story["answer"] == {"field": "label", "value": {"label": "good"}}
    assert story["cost_usd"] == "0.0000345"
    assert story["reuse"] is None


def test_a_dead_letter_is_told_with_its_reason_and_original_row(output: Path) -> None:
    """The failure and the whole row come from the dead letters."""
    story = explain_row(str(output), "R2")
    assert story["values"] == {"id": "R2", "text": "bad words"}
    assert story["failure"]["kind"] == "refusal"
    assert "reword the prompt" in drawn(story)


def test_a_line_that_never_became_a_request_is_told(output: Path) -> None:
    """There is no prompt and no call, only the raw text and what was wrong with it."""
    story = explain_row(str(output), "line:rows.csv:9")
    assert story["request"] is None
    assert story["calls"] == []
    assert story["values"] == "a,b"
    assert "never became a request" in drawn(story)


def test_a_reused_answer_names_the_run_that_paid_for_it(output: Path) -> None:
    """A second run that sent nothing shows the first run's call, and says why it was reused."""
    end = row_end("R1", "q1", Outcome.ENRICHED, run_id=RUN_2, call_id="b1-000001", answered_in_run_id=RUN_1)
    write_run(output, RUN_2, rows=[end], enriched=[enriched_row("R1", "q1")])
    story = explain_row(str(output), "R1")
    assert story["run_id"] == RUN_2
    assert story["reuse"]["run_id"] == RUN_1
    assert len(story["calls"]) == 2
    assert [past["run_id"] for past in story["history"]] == [RUN_1, RUN_2]
    assert "paid by an earlier run" in drawn(story)
    assert explain_row(str(output), "R1", RUN_1)["reuse"] is None


def test_a_repair_is_told_with_its_own_call_and_what_the_model_was_told(tmp_path: Path) -> None:
    """The repair's call is found by root_request_id, and its cost counts."""
    told = {"messages": [{"role": "user", "content": "Q"}, {"role": "user", "content": "Your answer can't be used"}]}
    repair = make_call(
        1,
        "q1r",
        batch_id="b9",
        lane=Lane.REPAIR,
        root_request_id=request_id("q1"),
        request_json=orjson.dumps(told).decode(),
    )
    end = row_end("R1", "q1", Outcome.ENRICHED, call_id="b9-000001", answered_in_run_id=RUN_1)
    write_run(
        tmp_path, rows=[end], calls=[make_call(0, "q1", text="no json"), repair], enriched=[enriched_row("R1", "q1")]
    )
    story = explain_row(str(tmp_path), "R1")
    assert story["repair"]["why"] == "Your answer can't be used"
    assert [call["lane"] for call in story["calls"]] == ["main", "repair"]
    assert story["cost_usd"] == "0.000069"
    assert "asked once more: ok" in drawn(story)


def test_a_pending_row_says_why_it_waits(tmp_path: Path) -> None:
    """The reason comes from the run's summary; no values were written."""
    reasons = [{"kind": "auth", "reason": "openai refused the run", "requests": 1}]
    write_run(tmp_path, rows=[row_end("R1", "q1", Outcome.PENDING)], pending_reasons=reasons)
    story = explain_row(str(tmp_path), "R1")
    assert story["pending_reason"] == "openai refused the run"
    assert story["values"] is None
    assert "takes this row up" in drawn(story)


def test_calls_of_a_sealed_crash_are_told_beside_the_run_that_took_them_over(tmp_path: Path) -> None:
    """A killed run's calls are in its sealed audit; the later run has the outcome."""
    write_run(tmp_path, rows=[], calls=[make_call(0, "q1")], finish=False)
    seal_run(str(tmp_path), RUN_1)
    end = row_end("R1", "q1", Outcome.ENRICHED, run_id=RUN_2, call_id="b1-000000", answered_in_run_id=RUN_1)
    write_run(tmp_path, RUN_2, rows=[end], enriched=[enriched_row("R1", "q1")])
    story = explain_row(str(tmp_path), "R1")
    assert [call["run_id"] for call in story["calls"]] == [RUN_1]
    assert "was killed" in story["notes"][0]


@pytest.mark.parametrize(
    ("row_id", "run_id", "said"),
    [
        pytest.param("R11", None, "near are: R1", id="near-miss"),
        pytest.param("R1", "20200101T000000-aaaaaa", "has no run", id="unknown-run"),
    ],
)
def test_what_is_not_known_is_an_error_that_names_what_is_near(
    output: Path, row_id: str, run_id: str | None, said: str
) -> None:
    """An unknown row or run ends with the closest ones, for exit code 2."""
    with pytest.raises(ConfigError, match=said):
        explain_row(str(output), row_id, run_id)


def test_an_output_without_runs_is_an_error(tmp_path: Path) -> None:
    """The folder is named."""
    with pytest.raises(ConfigError, match="holds no run"):
        explain_row(str(tmp_path), "R1")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(output: Path, width: int) -> None:
    """The tree folds; nothing is cut by the terminal's edge."""
    assert all(len(line) <= width for line in drawn(explain_row(str(output), "R1"), width).splitlines())


@pytest.mark.parametrize(
    ("body", "system", "texts"),
    [
        pytest.param({"instructions": "S", "input": "Q"}, "S", ["Q"], id="responses-text"),
        pytest.param({"input": [{"role": "user", "content": [{"text": "Q"}]}]}, None, ["Q"], id="responses-parts"),
        pytest.param({"system": "S", "messages": [{"role": "user", "content": "Q"}]}, "S", ["Q"], id="anthropic"),
        pytest.param({"messages": [{"role": "developer", "content": "S"}]}, "S", [], id="developer"),
        pytest.param([1], None, [], id="no-object"),
    ],
)
def test_a_prompt_is_read_in_every_provider_s_shape(body: Any, system: str | None, texts: list[str]) -> None:
    """System part and turns are found wherever the provider puts them."""
    prompt = read_prompt(orjson.dumps(body).decode())
    assert prompt["system"] == system
    assert [turn["text"] for turn in prompt["turns"]] == texts


def test_a_prompt_kept_as_a_hash_says_so() -> None:
    """With audit.payloads hash there is nothing to show but the hash."""
    assert "audit.payloads: hash" in read_prompt('{"sha256":"ab","bytes":12}')["note"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({"choices": [{"message": {"content": "A"}}]}, "A", id="chat-completions"),
        pytest.param({"output": [{"type": "reasoning"}, {"content": [{"text": "A"}]}]}, "A", id="responses"),
        pytest.param(
            {"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, "A\nB", id="anthropic"
        ),
        pytest.param({"error": {"message": "no"}}, None, id="error"),
        pytest.param({"choices": []}, None, id="no-choice"),
        pytest.param([1], None, id="no-object"),
        pytest.param(None, None, id="null"),
    ],
)
def test_an_answer_is_read_in_every_provider_s_shape(body: Any, text: str | None) -> None:
    """What the model said is found wherever the provider puts it."""
    assert answer_text(orjson.dumps(body).decode()) == text


def test_an_answer_that_was_not_kept_or_is_no_json_has_no_text() -> None:
    """Nothing is made up."""
    assert answer_text(None) is None
    assert answer_text("<html>") is None
