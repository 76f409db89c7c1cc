"""Bringing the budget's log up to date before a run begins."""

from decimal import Decimal
from typing import Any

from transforms._budget import open_log
from transforms.records.settings import BudgetSettings
from transforms.rules.budget import units_up
from transforms.storage.batch_entry import Phase
from transforms.storage.batch_fold import read_entry
from transforms.storage.budget_log import has_log


def settle_books(ledger: str, run_id: str, budget: BudgetSettings, runs: list[dict[str, Any]]) -> None:
    """Bring the log up to date before a run with a budget begins: what earlier runs could not write themselves.

    A run without a budget has made no entries: a budget per output counts what it cost all the same. A hold of a
    batch whose create never was, or came to nothing, or that a run without a budget collected, is settled. The hold of
    a batch in flight stays, and so do the slices of a killed process.

    Args:
        ledger: the ledger's folder; the lease must be held, and what was staged and never sent be swept.
        run_id: the run that begins.
        budget: its budget; None as max_usd: nothing is done.
        runs: the manifests of all runs.

    Raises:
        InternalError: the log or the ledger is damaged.
    """
    if budget.max_usd is None:
        return
    log = open_log(ledger, run_id, budget)
    free_runs = {run["run_id"]: run for run in runs if (run["job"].get("budget") or {}).get("max_usd") is None}
    if has_log(ledger):
        for held in log.read().open_holds("batch"):
            if _is_void(ledger, held.id, set(free_runs)):
                log.settle(held.id, 0, "batch")
    if budget.per == "output":
        for free_id, manifest in free_runs.items():
            cost = manifest.get("cost_usd")
            if free_id != run_id and cost is not None and Decimal(cost):
                log.settle(f"run:{free_id}", units_up(Decimal(cost)), "run")


def _is_void(ledger: str, entry_id: str, free_runs: set[str]) -> bool:
    """Say whether a batch's hold stands for nothing: no create, one that came to nothing, or one counted elsewhere."""
    _, key, run_id, attempt = entry_id.split(":")
    entry = read_entry(ledger, key)
    if entry is None or entry.staged.run_id != run_id or int(attempt) < entry.attempt:
        return True
    if entry.phase is Phase.COLLECTED:
        return entry.intent is None or (entry.collected is not None and entry.collected.run_id in free_runs)
    return entry.phase is Phase.STAGED
