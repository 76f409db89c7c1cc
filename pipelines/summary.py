"""The end of a run: proved counts, sums over the calls, exit code, and one sentence for whoever must act."""

from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pipelines.batch_summary import count_batches
from pipelines.budget import budget_facts
from pipelines.estimate_run import compare
from pipelines.prepare import PreparedJob
from pipelines.text import plural
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind, Stage
from transforms.storage.damaged_files import damaged_files
from transforms.storage.objects import list_files, open_read

EXIT_DONE = 0
EXIT_DEAD_LETTERS = 1
EXIT_CONFIG = 2
EXIT_BROKEN = 3
EXIT_BUDGET = 4
EXIT_PENDING = 5
EXIT_REFUSED = 6

#: What to do about rows that wait in a batch.
COLLECT_HINT = "Run the same job again, by hand or from cron: it collects them and sends nothing twice"


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        summary: the summary as written to summary.json (DESIGN section 6, and more keys).
        exit_code: 0 done, 1 too many dead letters or a damaged input, 3 conservation broken, 4 the budget
            has no room, 5 rows pending, 6 the provider refused.
        sentence: what happened and what to do, for people; empty when all is well.
    """

    summary: dict[str, Any]
    exit_code: int
    sentence: str


def check_files(prepared: PreparedJob, totals: dict[str, Any]) -> None:
    """Compare the enriched files with the proved counts. Raises InternalError when they differ."""
    if prepared.enriched_format != "parquet":
        return
    written = sum(map(_row_count, list_files(prepared.run.enriched, ".parquet")))
    kept = (
        sum(entry["rows"] for entry in totals["dead_letters"] if entry["stage"] != Stage.READ) if prepared.keep else 0
    )
    expected = totals["rows"]["enriched"] + kept
    if written != expected:
        raise InternalError(
            f"{prepared.run.enriched} holds {written} rows where {expected} were enriched; "
            f"don't use this run's files: run the job again (answers are in the ledger and cost nothing)"
        )


def _row_count(path: str) -> int:
    with open_read(path) as file:
        return int(pq.read_metadata(file).num_rows)


def summarise(
    prepared: PreparedJob, totals: dict[str, Any], duration_s: float, estimate: dict[str, Any] | None = None
) -> RunResult:
    """Build the summary and decide the exit code from what the pipeline left.

    Args:
        prepared: the job.
        totals: what the pipeline left.
        duration_s: how long it ran.
        estimate: what the run expected (`estimate_run.expect`), or None.
    """
    rows, calls, pending = totals["rows"], totals["calls"], totals["pending"]
    batches = count_batches(prepared.run, prepared.ledger)
    exit_code, status, sentence = _judge(prepared, totals, batches["left"])
    known = calls["unknown_cost"] < calls["sent"] or calls["sent"] == 0
    unpriced = 0 if known else calls["sent"]
    summary = {
        "run_id": prepared.run_id,
        "status": status,
        "rows": {key: rows[key] for key in ("in", "enriched", "dead_lettered", "pending")},
        "calls": {
            "sent": calls["sent"],
            "succeeded": calls["succeeded"],
            "failed": calls["failed"],
            "reused": totals["reused"],
        },
        "batches": batches,
        "tokens": {"input": calls["input_tokens"], "output": calls["output_tokens"]},
        "cost_usd": calls["cost_usd"] if known else None,
        "estimate": None if estimate is None else compare(estimate, calls),
        "budget": budget_facts(prepared.ledger, prepared.run_id, prepared.job.budget, unpriced_calls=unpriced),
        "duration_s": round(duration_s, 3),
        "outputs": {
            "enriched": prepared.run.enriched,
            "dead_letters": prepared.run.dead_letters if rows["dead_lettered"] else None,
            "audit": prepared.run.audit,
        },
        "job": prepared.job.name,
        "calls_of_unknown_cost": calls["unknown_cost"],
        "cost_reasons": calls["cost_reasons"],
        "failed_calls": calls["failures"],
        "dead_letters": totals["dead_letters"],
        "pending_reasons": pending,
        "broken": rows["broken_ids"],
    }
    return RunResult(summary, exit_code, sentence)


def _judge(prepared: PreparedJob, totals: dict[str, Any], left: int) -> tuple[int, str, str]:
    rows = totals["rows"]
    if rows["broken"]:
        named = "; ".join(rows["broken_ids"])
        return EXIT_BROKEN, "broken", f"conservation is broken for {rows['broken']} row(s): {named}"
    if (stopped := _judge_pending(rows["pending"], totals["pending"], left)) is not None:
        return stopped
    if any(entry["kind"] == FailureKind.DAMAGED_FILE for entry in totals["dead_letters"]):
        named = ", ".join(damaged_files(prepared.run.dead_letters)) or "an input file"
        cure = "its other rows are done: get it again from its source, and run the job again"
        return (
            EXIT_DEAD_LETTERS,
            "incomplete_input",
            f"{named} could not be read to the end, so rows are missing; {cure}",
        )
    allowed = prepared.job.limits.max_dead_letter_ratio
    share = rows["dead_lettered"] / rows["in"] if rows["in"] else 0.0
    if share > allowed:
        many = f"{rows['dead_lettered']} of {rows['in']} rows ({share:.1%}) are dead letters"
        limit = f"more than limits.max_dead_letter_ratio ({allowed:.1%}); see {prepared.run.dead_letters}"
        return EXIT_DEAD_LETTERS, "too_many_dead_letters", f"{many}, {limit}"
    return EXIT_DONE, "done", ""


def _judge_pending(rows: int, pending: list[dict[str, Any]], left: int) -> tuple[int, str, str] | None:
    """Judge a run by what its rows wait for; None: for nothing that makes its end."""
    refused = [entry for entry in pending if entry["kind"] not in (None, FailureKind.BUDGET)]
    if refused:
        todo = f"{rows} row(s) wait; {_cure(refused[0]['kind'])}"
        return EXIT_REFUSED, "refused", f"{refused[0]['reason'].rstrip('.')}. {todo}"
    stopped = [entry for entry in pending if entry["kind"] == FailureKind.BUDGET]
    if stopped:
        todo = f"{plural(rows, 'row')} left; answered rows are not asked again"
        return EXIT_BUDGET, "budget_stop", f"{stopped[0]['reason'].rstrip('.')}. {todo}"
    return (EXIT_PENDING, "pending", _waiting(rows, pending, left)) if rows else None


def _cure(kind: str) -> str:
    if kind == FailureKind.RESULTS_WITHHELD:
        return "add credits with the provider and run the job again: nothing is lost, and nothing is paid for twice"
    return "put it right and run the job again: answered rows are not asked again"


def _waiting(rows: int, pending: list[dict[str, Any]], left: int) -> str:
    """Say what pending rows wait for and, when batches hold them, how to get them."""
    why = pending[0]["reason"].rstrip(".") if pending else "the run stopped"
    if left > 1:
        why = f"{plural(left, 'batch', 'batches')} are left for the next run; the first: {why}"
    todo = "" if not left or "again" in why else f". {COLLECT_HINT}"
    return f"{rows} row(s) wait: {why}{todo}"
