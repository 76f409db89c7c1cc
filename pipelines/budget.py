"""The budget as the launcher sees it: whether it can be held, what is left of it, and what a plan may cost at most."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from pipelines.prepare import PreparedJob
from pipelines.text import money, plural
from transforms._budget import find_worst_case, open_log
from transforms._budget_books import settle_books
from transforms.providers import make_provider
from transforms.records.errors import ConfigError
from transforms.records.request import Prompt
from transforms.records.settings import BudgetSettings
from transforms.rules.budget import NO_WORST_CASE, WorstCase, units_down, usd_text
from transforms.rules.price import PriceTable, Processing
from transforms.storage.objects import parent
from transforms.storage.runs import list_runs

_EMPTY = Prompt("", (("user", ""),))
#: Calls without a worst case are booked at next to nothing: so much a call is no amount, with room for retries.
_UNBOOKED_UNITS = 1000 * NO_WORST_CASE.answer_units


def agree_on_gap(prepared: PreparedJob, agree: Callable[[str], bool]) -> None:
    """Stop where the budget can't be held and nobody agrees to that. Needs no lease: whoever is asked may take long.

    Args:
        prepared: the job; without a budget nothing is asked.
        agree: asked with the reason, in one sentence.

    Raises:
        ConfigError: nobody agrees; nothing was sent.
    """
    gap = budget_gap(prepared)
    if gap is None:
        return
    if not agree(gap):
        raise ConfigError(f"{gap}; put that right, or run with --yes: only costs that are known then count")
    structlog.get_logger("rowbeam").warning("budget_not_held", reason=gap)


def open_books(prepared: PreparedJob) -> None:
    """Bring the budget's log up to date before a run; only with the lease in hand.

    Args:
        prepared: the job; without a budget nothing is done.

    Raises:
        InternalError: the log is damaged.
    """
    budget, runs = prepared.job.budget, list_runs(prepared.job.output)
    settle_books(prepared.ledger, prepared.run_id, budget, runs)
    facts = budget_facts(prepared.ledger, prepared.run_id, budget)
    if facts and facts["unknown_runs"]:
        structlog.get_logger("rowbeam").warning("budget_left_unknown", reason=unknown_words(facts["unknown_runs"]))


def budget_gap(prepared: PreparedJob) -> str | None:
    """Say in one sentence why a budget can't be held for this job; None: it can, or there is none."""
    if prepared.job.budget.max_usd is None:
        return None
    found = worst_case_of(prepared, "real_time")
    return None if isinstance(found, WorstCase) else f"budget.max_usd can't be held: {found}"


def worst_case_of(prepared: PreparedJob, processing: Processing) -> WorstCase | str:
    """Return what one request of the job may cost at most, or, in one clause, why nobody knows."""
    settings = prepared.call_settings
    provider = make_provider(settings.model, settings.schema)
    limit, has_schema = settings.output_limit, settings.schema is not None
    return find_worst_case(provider, PriceTable(), processing, output_limit=limit, has_schema=has_schema)


def budget_facts(ledger: str, run_id: str, budget: BudgetSettings, *, unpriced_calls: int = 0) -> dict[str, Any] | None:
    """Return {"max_usd", "per", "charged_usd", "left_usd", "unknown_runs"} as the log says now; None without a budget.

    Money is text. charged_usd: what is spent, and what is held for calls or batches that may still be billed.
    unknown_runs: runs that count against the budget, made calls, and of whose costs neither the log nor anybody else
    knows anything. With any of them left_usd is null, and so is charged_usd where nothing else was charged.

    Args:
        ledger: the ledger's folder.
        run_id: whose budget it is, where it is one per run.
        budget: the job's.
        unpriced_calls: what that run has sent, if it is about to end and not one of its calls has a known cost.
    """
    if budget.max_usd is None:
        return None
    log = open_log(ledger, run_id, budget)
    charged, most = log.charged(), units_down(budget.max_usd)
    counted = {run_id: unpriced_calls} | _unpriced_calls(ledger, budget, run_id)
    unknown = sum(1 for one, calls in counted.items() if calls and _is_unbooked(ledger, one, budget, calls))
    is_nothing = unknown > 0 and charged <= sum(counted.values()) * _UNBOOKED_UNITS
    return {
        "max_usd": usd_text(most),
        "per": budget.per,
        "charged_usd": None if is_nothing else usd_text(charged),
        "left_usd": None if unknown else usd_text(max(0, most - charged)),
        "unknown_runs": unknown,
    }


def _unpriced_calls(ledger: str, budget: BudgetSettings, run_id: str) -> dict[str, int]:
    """Return the calls of each run that has ended, counts against the budget, and has no known cost at all."""
    runs = [run for run in list_runs(parent(ledger)) if budget.per == "output" or run["run_id"] == run_id]
    return {run["run_id"]: run["counts"]["calls"]["sent"] for run in runs if run["counts"] and run["cost_usd"] is None}


def _is_unbooked(ledger: str, run_id: str, budget: BudgetSettings, calls: int) -> bool:
    """Say whether the log has nothing of a run: calls of unknown cost are booked at their worst case if they have one."""
    own = open_log(ledger, run_id, budget.model_copy(update={"per": "run"}))
    return own.charged() <= calls * _UNBOOKED_UNITS


def unknown_words(unknown_runs: int) -> str:
    """Say in one clause why nobody knows what is left of a budget."""
    return f"what is left is unknown, for {plural(unknown_runs, 'run')} that made calls of unknown cost"


def budget_line(facts: Mapping[str, Any]) -> str:
    """Return `budget_facts` as one line for people."""
    whose = "of this run" if facts["per"] == "run" else "of all runs together"
    spent = f"{money(facts['charged_usd'])} spent or held"
    if unknown := facts.get("unknown_runs"):
        known = "" if facts["charged_usd"] is None else f"at least {spent}; "
        return f"{money(facts['max_usd'])} {whose}: {known}{unknown_words(unknown)}"
    return f"{money(facts['max_usd'])} {whose}: {spent}, {money(facts['left_usd'])} left"


def plan_budget(
    prepared: PreparedJob, processing: Processing, requests: int, prompt_bytes: int
) -> dict[str, Any] | None:
    """Return the budget as a plan shows it: `budget_facts` and "worst_case_usd" with "unknown"; None without a budget.

    Args:
        prepared: the job.
        processing: how the requests would go.
        requests: how many would be sent.
        prompt_bytes: UTF-8 bytes of all their prompts' texts together, system parts included.

    worst_case_usd is what the first try of each may cost at most; null where `unknown` says why.
    """
    facts = budget_facts(prepared.ledger, prepared.run_id, prepared.job.budget)
    if facts is None:
        return None
    worst = worst_case_of(prepared, processing)
    if isinstance(worst, str):
        return facts | {"worst_case_usd": None, "unknown": worst}
    units = requests * worst.of_prompt(_EMPTY) + prompt_bytes * worst.input_units
    return facts | {"worst_case_usd": usd_text(units), "unknown": None}
