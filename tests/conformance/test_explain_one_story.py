"""A row of a job that was detached, crashed and resumed is one story (P5)."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines import tally
from pipelines.explain import explain_row
from pipelines.explain_html import render_story
from tests.conformance.batch_jobs import Workshop, assert_all_once
from transforms.records.errors import InternalError

_RUNNING = {"unknown_status": 100_000}
_README = Path(__file__).resolve().parents[2] / "README.md"
_ROW = "r7"


def _crash(workshop: Workshop, patch: pytest.MonkeyPatch) -> None:
    """Run the job, and end it when all is recorded and no file has its name yet."""

    def die(*_: Any) -> None:
        raise InternalError("the end of this process")

    with patch.context() as context:
        context.setattr(tally, "name_parts", die)
        with pytest.raises(Exception, match="the end of this process"):
            workshop.run()


def _calls_by_readme(output: Path, row_id: str) -> list[tuple[str, str, int]]:
    """Return (run, batch, call_index) of the calls that the README's query lists."""
    (query,) = re.findall(r"```sql\n(SELECT c\.run_id.*?)```", _README.read_text(encoding="utf-8"), re.DOTALL)
    with duckdb.connect() as database:
        rows = database.execute(query.replace("out/reviews", str(output)).replace("4711", row_id)).fetchall()
    return [(row[0], row[1], row[2]) for row in rows]


def test_a_row_of_a_detached_crashed_and_resumed_job_is_one_story(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before the crashed run is sealed and after; the README's query lists the same calls (P2, P4, P5)."""
    workshop.sandbox.set_faults(batch=_RUNNING)
    workshop.write("openai")
    left = workshop.run("batching.detach=true").summary["run_id"]
    workshop.sandbox.set_faults()
    _crash(workshop, monkeypatch)
    output = workshop.output.folder
    open_story = explain_row(str(output), _ROW)
    assert (open_story["run_id"], open_story["outcome"]) == (left, "pending")
    assert [call["outcome"] for call in open_story["calls"]] == ["ok"]
    assert "is not sealed" in open_story["notes"][0]
    done = workshop.run()
    assert_all_once(done, 30)
    story = explain_row(str(output), _ROW)
    _check_story(story, open_story, [left, done.summary["run_id"]])
    shown = [(call["run_id"], call["batch_id"], call["call_index"]) for call in story["calls"]]
    assert _calls_by_readme(output, _ROW) == shown
    assert story["request"]["request_id"] in render_story(story, str(output))


def _check_story(story: dict[str, Any], before: dict[str, Any], runs: list[str]) -> None:
    assert [(past["run_id"], past["outcome"]) for past in story["history"]] == [
        (runs[0], "pending"),
        (runs[1], "enriched"),
    ]
    (batch,) = story["batches"]
    told = {exchange["what"] for exchange in batch["exchanges"]}
    assert {"upload", "create", "status", "download"} <= told
    (call,) = story["calls"]
    assert call == before["calls"][0]
    assert call["run_id"] not in runs
    assert (story["reuse"]["run_id"], story["reuse"]["run_status"]) == (call["run_id"], "crashed")
    assert story["cost_usd"] == before["cost_usd"] == call["cost_usd"]
    assert {check["ok"] for check in story["proof"]["checks"]} == {True}
    assert {file["check"] for file in story["proof"]["files"]} == {"same"}
    assert all(link["link"] in ("first", "same") for link in story["proof"]["chain"])
