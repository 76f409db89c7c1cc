"""The budget as the launcher sees it: whether it can be held, what is left of it, and what a plan may cost at most."""

from collections.abc import Callable
from typing import Any

import structlog

from pipelines.prepare import PreparedJob
from pipelines.text import money
from transforms._budget import find_worst_case, open_log
from transforms._budget_books import settle_books
from transforms.providers import make_provider
from transforms.records.errors import ConfigError
from transforms.records.request import Prompt
from transforms.records.settings import BudgetSettings
from transforms.rules.budget import WorstCase, units_down, usd_text
from transforms.rules.price import PriceTable, Processing
from transforms.storage.runs import list_runs

_EMPTY = Prompt("", (("user", ""),))


def open_books(prepared: PreparedJob, agree: Callable[[str], bool]) -> None:
    """Bring the budget's log up to date before a run, and stop where the budget can't be held and nobody agrees to that.

    Args:
        prepared: the job; without a budget nothing is done and nothing asked.
        agree: asked with the reason, in one sentence.

    Raises:
        ConfigError: the budget can't be held; nothing was sent.
        InternalError: the log is damaged.
    """
    budget = prepared.job.budget
    if budget.max_usd is None:
        return
    gap = budget_gap(prepared)
    if gap is not None:
        if not agree(gap):
            raise ConfigError(f"{gap}; put that right, or run with --yes: only costs that are known then count")
        structlog.get_logger("rowbeam").warning("budget_not_held", reason=gap)
    settle_books(prepared.ledger, prepared.run_id, budget, list_runs(prepared.job.output))


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


def budget_facts(ledger: str, run_id: str, budget: BudgetSettings) -> dict[str, Any] | None:
    """Return {"max_usd", "per", "charged_usd", "left_usd"} as the log says now, money as text; None without a budget.

    charged_usd: what is spent, and what is held for calls or batches that may still be billed.
    """
    if budget.max_usd is None:
        return None
    log = open_log(ledger, run_id, budget)
    charged, most = log.charged(), units_down(budget.max_usd)
    return {
        "max_usd": usd_text(most),
        "per": budget.per,
        "charged_usd": usd_text(charged),
        "left_usd": usd_text(max(0, most - charged)),
    }


def budget_line(facts: dict[str, Any]) -> str:
    """Return `budget_facts` as one line for people."""
    whose = "of this run" if facts["per"] == "run" else "of all runs together"
    left = money(facts["left_usd"])
    return f"{money(facts['max_usd'])} {whose}: {money(facts['charged_usd'])} spent or held, {left} left"


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
