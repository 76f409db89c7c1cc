"""A job whose price nobody knows says so everywhere, with the reason, and never 0."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from pipelines.estimate_run import compare, expect
from pipelines.estimate_text import estimate_line
from pipelines.explain import explain_row
from pipelines.explain_tree import draw_story
from pipelines.job import load_job
from pipelines.plan import make_plan
from pipelines.plan_text import draw_plan
from pipelines.prepare import prepare
from pipelines.run import RunRequest, run_job
from pipelines.run_text import draw_run
from pipelines.status import read_status
from pipelines.status_text import draw_status
from pipelines.summary import EXIT_DONE

NAME = "nobody-lists-this"
REASON = f"the price table has no model {NAME} of openai"


def shown(draw: Callable[[Any, Console], None], facts: Any) -> str:
    """Return what a terminal shows, its lines joined."""
    console = Console(width=120, markup=False)
    with console.capture() as captured:
        draw(facts, console)
    return " ".join(captured.get().split())


@pytest.mark.usefixtures("sandbox")
def test_an_unknown_price_is_said_everywhere(make_job: Callable[..., Path]) -> None:
    """Plan, run, summary, status and explain: null in JSON, unknown with its reason on the screen, no dollar sign."""
    model = {"name": NAME, "allow_unlisted": True}
    loaded = load_job(str(make_job(model=model)))
    prepared = prepare(loaded, "plan")
    plan, estimate = make_plan(prepared), expect(prepared)
    assert plan["cost_usd"] == {"low": None, "expected": None, "high": None, "unknown": REASON}
    assert estimate["usd_per_request"] == {"low": None, "expected": None, "high": None, "unknown": REASON}
    said = shown(draw_plan, plan)
    assert REASON in said

    result = run_job(RunRequest(loaded))
    assert result.exit_code == EXIT_DONE
    assert result.summary["cost_usd"] is None
    assert set(result.summary["cost_reasons"]) == {REASON}
    calls = orjson.loads(orjson.dumps(result.summary["calls"])) | {
        "input_tokens": result.summary["tokens"]["input"],
        "output_tokens": result.summary["tokens"]["output"],
        "cost_usd": "0",
        "unknown_cost": result.summary["calls_of_unknown_cost"],
        "failures": result.summary["failed_calls"],
        "cost_reasons": result.summary["cost_reasons"],
    }
    compared = compare(estimate, calls)
    assert compared["usd_per_request"]["actual"] is None
    assert f"cost unknown (30 of 30 calls have an unknown cost: {REASON})" in (estimate_line(compared) or "")
    facts = {
        "summary": result.summary | {"estimate": compared},
        "field": loaded.job.answer.field,
        "sample": [],
        "example": None,
        "output": loaded.job.output,
        "dry_run": False,
    }
    said += shown(draw_run, facts)
    assert f"Cost unknown ({REASON})" in said

    status = read_status(loaded.job.output, datetime.now(UTC))
    assert status["runs"][-1]["cost_usd"] is None
    said += shown(draw_status, status | {"estimate": compared})
    explained = explain_row(loaded.job.output, "r3")
    assert explained["cost_usd"] is None
    said += shown(draw_story, explained)
    assert said.count("unknown") >= 5
    assert "$" not in said


def test_the_next_plan_is_calibrated_on_the_run(make_job: Callable[..., Path]) -> None:
    """After a run the same job's plan rests on what the provider counted, within its stated error."""
    loaded = load_job(str(make_job()))
    result = run_job(RunRequest(loaded))
    estimate = expect(prepare(loaded, "plan"))
    assert estimate["method"] == f"calibrated on 30 calls of run {result.summary['run_id']}"
    counted = result.summary["tokens"]["input"] / 30
    assert estimate["input_tokens_per_request"] == pytest.approx(counted, rel=0.1)
    assert estimate["output_tokens_per_request"]["expected"] == pytest.approx(
        result.summary["tokens"]["output"] / 30, abs=0.06
    )
