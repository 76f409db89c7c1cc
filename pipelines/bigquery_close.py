"""The end of a run whose tables are copied to BigQuery: what can't be copied changes the exit code, never the run."""

from dataclasses import replace
from typing import Any

import structlog

from pipelines.prepare import PreparedJob
from pipelines.summary import EXIT_BROKEN, EXIT_DEAD_LETTERS, RunResult
from pipelines.text import plural
from transforms.records.errors import RowbeamError
from transforms.storage.bigquery_fill import Filled, fill_run, unfilled_runs


def fill_tables(prepared: PreparedJob, result: RunResult) -> RunResult:
    """Copy this run, and earlier ones that could not be, and return the result with what came of it.

    Its summary gets the key `bigquery`: {"rows": by table, "refused": by table, "runs": how many were copied, "error"},
    and its `outputs` the tables' names.
    A run that ended well gets exit code 3 where BigQuery did not take the copy, and 1 where it refused rows.

    Args:
        prepared: the job; without sinks.bigquery nothing is done.
        result: how the run ended; its manifest is written.
    """
    sink = prepared.job.sinks.bigquery
    if sink is None:
        return result
    filled, stuck = _fill(prepared.job.output)
    error = stuck.get(_target({"job": prepared.job.model_dump(mode="json", by_alias=True)}))
    ours = next((one for one in filled if one.run_id == prepared.run_id), None)
    facts: dict[str, Any] = {
        "rows": {} if ours is None else ours.rows,
        "refused": {} if ours is None else ours.refused,
        "runs": len(filled),
        "error": error,
    }
    place = None if error is not None else f"{sink.dataset}.{sink.prefix}*"
    outputs = result.summary["outputs"] | {"bigquery": place}
    result = replace(result, summary=result.summary | {"bigquery": facts, "outputs": outputs})
    if error is not None:
        return _ended(result, EXIT_BROKEN, _not_copied(prepared, error))
    refused = sum(one.refused_count for one in filled)
    return _ended(result, EXIT_DEAD_LETTERS, _refused(filled, refused)) if refused else result


def _fill(output: str) -> tuple[list[Filled], dict[str, str]]:
    """Copy what is not copied yet; returns that, and the errors by target: order counts only among runs of one target."""
    filled: list[Filled] = []
    stuck: dict[str, str] = {}
    for manifest in unfilled_runs(output):
        target = _target(manifest)
        if target in stuck:
            continue
        try:
            filled.append(fill_run(output, manifest))
        except (RowbeamError, OSError) as found:
            stuck[target] = str(found)
            structlog.get_logger("rowbeam").error("bigquery_failed", run_id=manifest["run_id"], error=str(found))
    return filled, stuck


def _target(manifest: dict[str, Any]) -> str:
    sink = manifest["job"]["sinks"]["bigquery"]
    return f"{sink['dataset']}.{sink['prefix']}"


def _ended(result: RunResult, exit_code: int, sentence: str) -> RunResult:
    before = result.sentence.rstrip(".")
    said = f"{before}. {sentence}" if before else sentence
    return replace(result, exit_code=result.exit_code or exit_code, sentence=said)


def _not_copied(prepared: PreparedJob, error: str) -> str:
    return (
        f"the run is complete in {prepared.run.path}, but not copied to BigQuery: {error.rstrip('.')}. Then run the job "
        "again: it sends nothing twice, and copies what is missing"
    )


def _refused(filled: list[Filled], count: int) -> str:
    last = next(one for one in reversed(filled) if one.refused_count)
    return (
        f"BigQuery refused {plural(count, 'row')}, which the run's own files have; they are in the table of dead letters, "
        f"and with BigQuery's reasons in {last.refused_folder}"
    )
