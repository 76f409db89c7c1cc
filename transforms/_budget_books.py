"""Bringing the budget's log up to date before a run begins."""

from decimal import Decimal
from typing import Any

import structlog

from transforms._budget import open_log
from transforms.records.settings import BudgetSettings
from transforms.rules.budget import BudgetEntry, units_up, usd_text
from transforms.storage.batch_calls import recorded_calls
from transforms.storage.batch_entry import LOST, Phase
from transforms.storage.batch_fold import read_entry, read_void
from transforms.storage.budget_log import BudgetLog, has_log


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
        for held in log.open_holds("batch"):
            charge = _known_charge(ledger, held, set(free_runs))
            if charge is not None:
                log.settle(held.id, charge, "batch")
    if budget.per == "output":
        for free_id, manifest in free_runs.items():
            cost = manifest.get("cost_usd")
            if free_id != run_id and cost is not None and Decimal(cost):
                log.settle(f"run:{free_id}", units_up(Decimal(cost)), "run")
        _make_good(log, run_id, runs)


def _make_good(log: BudgetLog, run_id: str, runs: list[dict[str, Any]]) -> None:
    """Book what the runs cost and the log does not say, so that a log that was lost gives nobody a budget anew."""
    cost = sum(units_up(Decimal(run["cost_usd"])) for run in runs if run.get("cost_usd") is not None)
    missing = cost - log.charged()
    if missing > 0:
        log.settle(f"run:{run_id}:missing", missing, "run")
        why = (
            "ledger/budget said less than the runs of this output cost: entries are gone; their known costs count again"
        )
        structlog.get_logger("rowbeam").warning("budget_log_incomplete", missing_usd=usd_text(missing), reason=why)


def _known_charge(ledger: str, held: BudgetEntry, free_runs: set[str]) -> int | None:
    """Return what a batch's hold comes to, in units, where its story is over; None where the hold must stay.

    Nothing for what was never created or came to nothing; all of it for what an operator gave up for lost, since the
    provider may have billed it; of what a run without a budget collected, the part that other runs have on record.
    """
    _, key, run_id, attempt = held.id.split(":")
    entry = read_entry(ledger, key)
    if entry is None or entry.staged.run_id != run_id:
        return 0
    if int(attempt) < entry.attempt:
        void = read_void(ledger, key, int(attempt))
        return held.units if void is not None and void.kind == LOST else 0
    if entry.phase is Phase.COLLECTED:
        if entry.intent is None:
            return 0
        is_free = entry.collected is not None and entry.collected.run_id in free_runs
        return _charge_elsewhere(ledger, entry.staged.batch_id, free_runs) if is_free else None
    return 0 if entry.phase is Phase.STAGED else None


def _charge_elsewhere(ledger: str, batch_id: str, free_runs: set[str]) -> int:
    calls = recorded_calls(ledger, batch_id)
    return units_up(sum((cost for run_id, cost in calls.costs_by_run.items() if run_id not in free_runs), Decimal(0)))
