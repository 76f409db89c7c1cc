"""What is at an output: its runs, who holds it now, what waits, and how much the ledger holds."""

from datetime import datetime
from typing import Any

import orjson

from pipelines.batches import ledger_of, read_batches
from pipelines.budget import budget_facts
from pipelines.lease_facts import read_lease
from transforms.records.request import Lane
from transforms.records.settings import BudgetSettings
from transforms.storage.ledger import read_answers, segments
from transforms.storage.objects import join, read_bytes, size
from transforms.storage.runs import RUNNING, RunFolder, list_runs

#: Shown instead of "running" for a run that holds the lease no more: it was killed, and the next run will seal it.
KILLED = "killed"


def read_status(output: str, now: datetime) -> dict[str, Any]:
    """Return the state of an output as JSON values with stable keys.

    Keys: output, job, latest_run_id, pending_rows, lease, ledger {segments, bytes, settled_requests}, batches (those
    that are open, oldest first; each as `batches.read_batches` tells it), estimate (the latest run's, beside what came;
    null without one), budget (`budget_facts`) of the newest run's job (or null), runs (oldest first; each run_id, status,
    started_at, ended_at, duration_s, rows, calls, tokens, cost_usd, runner).

    Args:
        output: the job's output folder.
        now: with a time zone; tells whether the lease has expired.

    Raises:
        ConfigError: there is no output.
        InternalError: the ledger is damaged.
    """
    ledger = ledger_of(output)
    lease = read_lease(output, now)
    holder = lease["run_id"] if lease and lease["alive"] else None
    manifests = list_runs(output)
    runs = [_run(manifest, holder) for manifest in manifests]
    finished = [run for run in runs if run["rows"] and run["rows"]["in"] is not None]
    latest = finished[-1] if finished else None
    return {
        "output": output,
        "job": manifests[-1]["job_name"] if runs else None,
        "latest_run_id": latest["run_id"] if latest else None,
        "pending_rows": latest["rows"]["pending"] if latest else None,
        "lease": lease,
        "ledger": _ledger(ledger),
        "batches": [batch for batch in read_batches(output)["batches"] if batch["closed_at"] is None],
        "estimate": _estimate(output, latest["run_id"]) if latest else None,
        "budget": _budget(output, manifests[-1]) if manifests else None,
        "runs": runs,
    }


def _budget(output: str, newest: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the budget's log says now, by the newest run's settings."""
    settings = BudgetSettings.model_validate(newest["job"].get("budget") or {})
    return budget_facts(join(output, "ledger"), newest["run_id"], settings)


def _estimate(output: str, run_id: str) -> dict[str, Any] | None:
    """Return what a run's summary says of its estimate."""
    try:
        summary: dict[str, Any] = orjson.loads(read_bytes(RunFolder(output, run_id).summary))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return summary.get("estimate")


def _run(manifest: dict[str, Any], holder: str | None) -> dict[str, Any]:
    counts = manifest["counts"] or {}
    status = manifest["status"]
    if status == RUNNING and manifest["run_id"] != holder:
        status = KILLED
    return {
        "run_id": manifest["run_id"],
        "status": status,
        "started_at": manifest["started_at"],
        "ended_at": manifest["ended_at"],
        "duration_s": _seconds(manifest["started_at"], manifest["ended_at"]),
        "rows": counts.get("rows"),
        "calls": counts.get("calls"),
        "tokens": counts.get("tokens"),
        "cost_usd": manifest["cost_usd"],
        "runner": manifest["runner"],
    }


def _seconds(start: str, end: str | None) -> float | None:
    if end is None:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)


def _ledger(folder: str) -> dict[str, int]:
    paths = segments(folder)
    settled: set[bytes] = set()
    for path in paths:
        settled.update(
            bytes.fromhex(answer.request_id[:32]) for answer in read_answers(path) if answer.lane is Lane.MAIN
        )
    total = sum(map(size, paths))
    return {"segments": len(paths), "bytes": total, "settled_requests": len(settled)}
