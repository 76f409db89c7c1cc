"""Two runs side by side: which rows changed, whatever their ids and however many share a request."""

import io
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from pipelines.diff import diff_runs
from pipelines.diff_command import diff_to_screen
from pipelines.diff_text import draw_diff
from pipelines.screen import Screen
from tests.unit.cli_outputs import RUN_1, RUN_2, make_call, write_run
from tests.unit.facts_outputs import answered, died, facts_job, write_answers, write_facts_run
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.storage.audit_rows import seal_run


def _write(output: Path, run_id: str, answers: list[tuple[str, str, Any]], **how: Any) -> None:
    """Write (row_id, request, answer) rows; equal requests have one call."""
    made = []
    seen: set[str] = set()
    for index, (row_id, request, answer) in enumerate(answers):
        made.append(
            answered(
                run_id, row_id, answer, index, request, call=request not in seen, template=how.get("template", "t1")
            )
        )
        seen.add(request)
    how.pop("template", None)
    calls, rows, enriched = (list(part) for part in zip(*made, strict=True))
    for row in enriched:
        row["id"] = "no key here"
    write_facts_run(output, run_id, job=how.pop("job", facts_job()), calls=calls, rows=rows, enriched=enriched, **how)


def _drawn(diff: dict[str, Any], width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    draw_diff(diff, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_rows_join_by_id_through_their_requests(tmp_path: Path) -> None:
    """Keyless rows whose columns are all the same, three of which share a request: each finds its own answer."""
    first = [("h1-0", "q1", "good"), ("h1-1", "q1", "good"), ("h2-0", "q2", "bad"), ("h3-0", "q3", "good")]
    second = [("h3-0", "q3", "good"), ("h2-0", "p2", "good"), ("h1-1", "p1", "bad"), ("h1-0", "p1", "bad")]
    _write(tmp_path, RUN_1, first)
    _write(tmp_path, RUN_2, second, template="t2")
    diff = diff_runs(str(tmp_path), RUN_1, RUN_2)
    assert diff["rows"] == {
        "in_both": 4, "unchanged": 1, "changed": 3, "outcome_changed": 0, "only_in_a": 0, "only_in_b": 0
    }  # fmt: skip
    assert [(row["row_id"], row["before"], row["now"]) for row in diff["changed"]] == [
        ("h1-0", "good", "bad"), ("h1-1", "good", "bad"), ("h2-0", "bad", "good")
    ]  # fmt: skip
    assert (diff["a"]["template_hash"], diff["b"]["template_hash"]) == ("t1", "t2")
    assert (diff["a"]["calls"]["sent"], diff["a"]["cost_usd"]) == (3, "0.0001035")


def test_rows_and_outcomes_that_only_one_run_has_are_told(tmp_path: Path) -> None:
    """New rows, gone rows, and rows that died or came to life, with the kind."""
    kept = [answered(RUN_1, name, "good", n) for n, name in enumerate(("a", "b", "old"))]
    calls, rows, enriched = (list(part) for part in zip(*kept, strict=True))
    write_facts_run(tmp_path, RUN_1, job=facts_job(), calls=calls, rows=rows, enriched=enriched)
    call, end, row = answered(RUN_2, "a", "good", 0)
    new_call, new_end, new_row = answered(RUN_2, "new", "good", 1)
    dead_call, dead_end, letter = died(RUN_2, "b", FailureKind.REFUSAL, 2)
    write_facts_run(
        tmp_path, RUN_2, job=facts_job(), calls=[call, new_call, dead_call], rows=[end, new_end, dead_end],
        enriched=[row, new_row], letters=[letter],
    )  # fmt: skip
    diff = diff_runs(str(tmp_path), "previous", "latest")
    assert [row["row_id"] for row in diff["only_in_a"]] == ["old"]
    assert [row["row_id"] for row in diff["only_in_b"]] == ["new"]
    assert diff["outcomes"] == [
        {"before": "enriched", "now": "dead_lettered", "kind": "refusal", "rows": 1, "examples": ["b"]}
    ]
    text = _drawn(diff)
    assert "enriched -> dead letter (refusal)  b" in text
    assert "1 only in A: old" in text


def test_order_of_members_and_form_of_numbers_change_no_answer(tmp_path: Path) -> None:
    """A schema that lists its members otherwise, or calls 3 a number, leaves the rows as they were."""
    write_answers(tmp_path, [{"x": 3, "y": "a"}, {"x": 4, "y": "b"}])
    write_answers(tmp_path, [{"y": "a", "x": 3.0}, {"y": "B", "x": 4.0}], RUN_2)
    diff = diff_runs(str(tmp_path), RUN_1, RUN_2)
    assert (diff["rows"]["unchanged"], diff["rows"]["changed"]) == (1, 1)
    assert "y b -> B" in _drawn(diff)


def test_the_job_and_the_distributions_stand_side_by_side(tmp_path: Path) -> None:
    """What changed of the job, and how the labels moved; the table shows both."""
    schema = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}, "n": {"type": "integer"}}}
    write_answers(tmp_path, [{"label": "good", "n": 1}] * 8 + [{"label": "bad", "n": 2}] * 2, job=facts_job(schema))
    other = facts_job(schema, model={"provider": "openai", "name": "gpt-4.1-mini"})
    write_answers(tmp_path, [{"label": "good", "n": 3}] * 5 + [{"label": "bad", "n": 2}] * 5, RUN_2, job=other)
    diff = diff_runs(str(tmp_path), RUN_1, RUN_2)
    assert diff["changes"] == [{"key": "model.name", "before": "gpt-4o-mini", "now": "gpt-4.1-mini"}]
    label, count = diff["answers"]
    assert label["moved"] == 0.3
    assert label["values"][0] == {"value": "good", "before": 8, "now": 5, "before_share": 0.8, "now_share": 0.5}
    assert (count["before"]["stats"]["max"], count["now"]["stats"]["max"]) == (2.0, 3.0)
    text = _drawn(diff)
    assert "model.name  gpt-4o-mini -> gpt-4.1-mini" in text
    assert "label.label  30 % of the answers moved" in text


def test_examples_are_bounded_and_json_has_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People see the first twenty; programs get them all, up to a limit."""
    write_answers(tmp_path, [f"old {n}" for n in range(30)])
    write_answers(tmp_path, [f"new {n}" for n in range(30)], RUN_2)
    assert diff_to_screen(Screen(), str(tmp_path), "previous", "latest") == 0
    shown = capsys.readouterr().out
    assert "the first 20 of 30" in shown
    diff_to_screen(Screen(as_json=True), str(tmp_path), "previous", "latest")
    assert len(orjson.loads(capsys.readouterr().out)["changed"]) == 30


@pytest.mark.parametrize("width", [60, 80, 200])
def test_it_can_be_drawn_at_any_width(tmp_path: Path, width: int) -> None:
    """Long answers are cut to the terminal; a field that only one run has is drawn too."""
    write_answers(tmp_path, [{"label": "word " * 100, "gone": 1.5}])
    write_answers(tmp_path, [{"label": "other " * 100, "come": True}], RUN_2)
    lines = _drawn(diff_runs(str(tmp_path), RUN_1, RUN_2), width).splitlines()
    assert max(map(len, lines)) <= width


def test_runs_without_a_row_can_be_compared(tmp_path: Path) -> None:
    """Nothing is in both, nothing fails."""
    write_facts_run(tmp_path, RUN_1, job=facts_job())
    write_facts_run(tmp_path, RUN_2, job=facts_job())
    diff = diff_runs(str(tmp_path), RUN_1, RUN_2)
    assert set(diff["rows"].values()) == {0}
    assert "0 in both runs" in _drawn(diff)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """One run twice, and a run that was killed."""
    write_answers(tmp_path, ["good"], RUN_2)
    with pytest.raises(ConfigError, match="are the same run"):
        diff_runs(str(tmp_path), "latest", RUN_2)
    write_run(tmp_path, rows=[], calls=[make_call(0, "a")], finish=False)
    seal_run(str(tmp_path), RUN_1)
    with pytest.raises(ConfigError, match="was killed and left no outcomes"):
        diff_runs(str(tmp_path), RUN_1, RUN_2)
