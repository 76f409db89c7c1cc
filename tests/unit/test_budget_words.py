"""What is said of a budget before and after runs: `rowbeam check`, plan, report; costs that nobody knows are never 0."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from structlog.testing import capture_logs

from pipelines.budget import budget_facts, budget_line, open_books
from pipelines.check import check_job
from pipelines.check_text import draw_check
from pipelines.job import load_job
from pipelines.plan import make_plan
from pipelines.plan_text import draw_plan
from pipelines.prepare import PreparedJob, prepare
from pipelines.report import write_report
from tests.conformance.jobs import plain_rows, write_csv, write_job
from tests.unit.cli_outputs import RUN_1, RUN_2
from tests.unit.facts_outputs import answered, facts_job, write_facts_run
from transforms._budget import open_log
from transforms.records.call import CostSource
from transforms.records.settings import BudgetSettings

_BUDGET = BudgetSettings(max_usd=Decimal(1))
_UNKNOWN = {"cost_usd": None, "cost_source": CostSource.UNKNOWN, "cost_reason": "no prices are known for provider x"}
_NOTHING_KNOWN = {"max_usd": "1", "per": "output", "charged_usd": None, "left_usd": None, "unknown_runs": 1}
_WORDS = "what is left is unknown, for 1 run that made calls of unknown cost"


def _write_run(output: Path, run_id: str, cost_usd: str | None, **summary: Any) -> None:
    """Write a run of one call; cost_usd None: nobody knows what it cost."""
    changes = _UNKNOWN if cost_usd is None else {"cost_usd": Decimal(cost_usd)}
    call, end, row = answered(run_id, "a", "good", 0, **changes)
    told = {"cost_usd": cost_usd, **summary}
    write_facts_run(output, run_id, job=facts_job(), calls=[call], rows=[end], enriched=[row], summary=told)


def _facts(output: Path, per: str = "output", run_id: str = "r3", **how: int) -> dict[str, Any]:
    budget = _BUDGET.model_copy(update={"per": per})
    found = budget_facts(str(output / "ledger"), run_id, budget, **how)
    assert found is not None
    return found


def test_a_run_of_unknown_cost_makes_the_budget_unknown_and_never_0(tmp_path: Path) -> None:
    """It ran without a budget, as on a local server that no price list knows: what it cost is on no book."""
    _write_run(tmp_path, RUN_1, None)
    assert _facts(tmp_path) == _NOTHING_KNOWN
    assert budget_line(_NOTHING_KNOWN) == f"$1.0000 of all runs together: {_WORDS}"
    of_one = _facts(tmp_path, "run")
    assert (of_one["charged_usd"], of_one["left_usd"], of_one["unknown_runs"]) == ("0", "1", 0)


def test_known_costs_are_told_beside_unknown_ones(tmp_path: Path) -> None:
    """They are the least that was spent."""
    _write_run(tmp_path, RUN_1, None)
    open_log(str(tmp_path / "ledger"), RUN_2, _BUDGET).settle("slice:r2.0", 250_000_000_000)
    facts = _facts(tmp_path)
    assert (facts["charged_usd"], facts["left_usd"], facts["unknown_runs"]) == ("0.25", None, 1)
    assert budget_line(facts) == f"$1.0000 of all runs together: at least $0.2500 spent or held; {_WORDS}"


def test_calls_booked_at_their_worst_case_are_not_unknown(tmp_path: Path) -> None:
    """A run whose every reply was lost has no known cost, but the log has held what it may have cost at most."""
    _write_run(tmp_path, RUN_1, None)
    open_log(str(tmp_path / "ledger"), RUN_1, _BUDGET).settle(f"slice:{RUN_1}.0", 400_000_000)
    facts = _facts(tmp_path)
    assert (facts["charged_usd"], facts["left_usd"], facts["unknown_runs"]) == ("0.0004", "0.9996", 0)


@pytest.mark.parametrize("per", ["output", "run"])
def test_a_run_that_ends_with_unknown_costs_alone_says_so(tmp_path: Path, per: str) -> None:
    """Before its manifest is written; next to nothing is booked for each of its calls."""
    open_log(str(tmp_path / "ledger"), "r3", _BUDGET).settle("slice:r3.0", 30)
    facts = _facts(tmp_path, per, unpriced_calls=30)
    assert (facts["charged_usd"], facts["left_usd"], facts["unknown_runs"]) == (None, None, 1)
    assert _facts(tmp_path, per)["charged_usd"] == "0.00000000003"


def _prepared(workdir: Path, **changes: Any) -> PreparedJob:
    write_csv(workdir / "reviews.csv", plain_rows(3))
    path = write_job(workdir, "http://127.0.0.1:1/v1", **{"budget": {"max_usd": 1}, **changes})
    return prepare(load_job(str(path)), "check")


def _drawn(draw: Any, facts: dict[str, Any]) -> str:
    console = Console(width=200, markup=False)
    with console.capture() as captured:
        draw(facts, console)
    return " ".join(captured.get().split())


def test_plan_report_and_the_run_itself_say_unknown(workdir: Path) -> None:
    """None of them shows a $0, and a run of a job with that budget warns before it starts."""
    _write_run(workdir / "out", RUN_1, None, budget=_NOTHING_KNOWN)
    prepared = _prepared(workdir)
    plan = make_plan(prepared)
    assert f"of the budget, {_WORDS}; the next run counts the known costs alone" in plan["warnings"]
    assert "Budget: unknown left of $1.0000 (all runs together); worst case $" in _drawn(draw_plan, plan)
    with capture_logs() as logs:
        open_books(prepared)
    assert [(log["event"], log["reason"]) for log in logs] == [("budget_left_unknown", _WORDS)]
    page = Path(write_report(str(workdir / "out"))["report"]).read_text(encoding="utf-8")
    assert _WORDS in page
    assert "of $1.0000 charged" not in page


def _check(prepared: PreparedJob) -> tuple[dict[str, Any], str]:
    """Check a job without its key, so that nothing is asked; return the facts as JSON has them, and the screen."""
    facts = orjson.loads(orjson.dumps(check_job(prepared, {})[0]))
    return facts, _drawn(draw_check, facts)


def test_check_says_what_is_left_of_a_budget(workdir: Path) -> None:
    """In words and in JSON; without a budget there is nothing to say."""
    open_log(str(workdir / "out" / "ledger"), "r1", _BUDGET).settle("slice:r1.0", 250_000_000_000)
    facts, screen = _check(_prepared(workdir))
    left = {"max_usd": "1", "per": "output", "charged_usd": "0.25", "left_usd": "0.75", "unknown_runs": 0}
    assert facts["budget"] == {**left, "gap": None}
    assert "ok budget $1.0000 of all runs together: $0.2500 spent or held, $0.7500 left" in screen
    facts, screen = _check(_prepared(workdir, budget={"max_usd": None}))
    assert facts["budget"] is None
    assert "budget" not in screen


def test_check_says_why_a_budget_cannot_be_held(workdir: Path) -> None:
    """And that a run would ask; this alone does not make the job wrong."""
    model = {"name": "nobody-lists-this", "allow_unlisted": True}
    facts, screen = _check(_prepared(workdir, model=model))
    gap = "budget.max_usd can't be held: the price table has no nobody-lists-this of openai"
    assert (facts["budget"]["gap"], facts["budget"]["left_usd"]) == (gap, "1")
    assert f"note budget {gap}; run asks before it starts, or wants --yes" in screen
    assert [check["ok"] for check in facts["checks"] if check["name"] == "budget"] == [True, None]
