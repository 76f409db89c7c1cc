"""All there is to say of a run, as JSON values: what the report draws and `rowbeam diff` sets side by side.

Read from what the run wrote alone: its audit tables, enriched rows, dead letters, manifest and summary. Memory is some
bytes per call, however many rows; a million calls take seconds. Only LLM calls count as calls.
"""

from datetime import datetime
from typing import Any

from pipelines.facts_answers import describe_answers
from pipelines.facts_calls import (
    CallGroups,
    batch_facts,
    call_counts,
    cost_facts,
    latency_facts,
    throttling_facts,
    token_facts,
)
from pipelines.facts_drift import comparable_run, drift_findings
from pipelines.facts_errors import error_facts, outcome_facts, row_counts
from pipelines.facts_findings import Evidence, own_findings
from pipelines.run_tables import Run, RunTables, find_run
from transforms.rules.findings import sorted_findings


def run_facts(output: str, run_id: str | None = None) -> dict[str, Any]:
    """Return the facts of a run.

    Args:
        output: the job's output folder.
        run_id: the run: its id or the beginning of it, "latest" (also None) or "previous".

    Returns:
        JSON values with the keys run, rows, outcomes, calls, cost, latency_ms, tokens, batches, batches_total,
        throttling, errors, answers, findings, previous_run_id; money as text. What the run can't tell is null: of a
        crashed run its rows, of a run without real-time calls its latencies. previous_run_id is the run that drift
        was looked for against.

    Raises:
        ConfigError: there is no such run, or it has not ended.
    """
    run = find_run(output, run_id)
    earlier = comparable_run(run)
    with RunTables() as tables:
        tables.add(run)
        groups = CallGroups(tables)
        evidence = Evidence(run, tables, groups, describe_answers(tables, run))
        found = [*own_findings(evidence), *(drift_findings(evidence, earlier) if earlier else ())]
        batches, batches_total = batch_facts(tables)
        return {
            "run": run_head(run),
            "rows": row_counts(run),
            "outcomes": outcome_facts(tables, run),
            "calls": call_counts(tables, groups, run),
            "cost": cost_facts(tables, groups, run),
            "latency_ms": latency_facts(tables),
            "tokens": token_facts(tables),
            "batches": batches,
            "batches_total": batches_total,
            "throttling": throttling_facts(tables, groups, run),
            "errors": error_facts(tables, run, groups.by_outcome()),
            "answers": [answers.facts for answers in evidence.answers],
            "findings": [finding.to_json() for finding in sorted_findings(found)],
            "previous_run_id": earlier.run_id if earlier else None,
        }


def run_head(run: Run) -> dict[str, Any]:
    """Return the facts "run"; duration_s is from the manifest's times."""
    manifest = run.manifest
    began, ended = (datetime.fromisoformat(manifest[name]) for name in ("started_at", "ended_at"))
    kept = ("run_id", "status", "job_name", "started_at", "ended_at")
    return {
        **{name: manifest[name] for name in kept},
        "duration_s": round((ended - began).total_seconds(), 3),
        "runner": manifest["runner"],
        "provider": manifest["job"]["model"]["provider"],
        "model": manifest["job"]["model"]["name"],
        "versions": manifest.get("versions"),
        "job_sha256": manifest["job_sha256"],
    }
