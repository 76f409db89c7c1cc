"""What differs between two runs of an output: rows, answers, outcomes, cost, tokens, model and templates.

A row goes by its row_id, which is the same in every run, with a key or without. Its answer is found by the request
that the run asked for it: rows that share a request share its answer, so one look at the enriched rows is enough,
and nothing depends on which columns are the key or on the order of the files.
"""

from decimal import Decimal
from typing import Any

from pipelines.diff_answers import answers_of, compare_answers, make_answer_view
from pipelines.facts_answers import describe_answers
from pipelines.facts_calls import CallGroups, call_counts, cost_facts
from pipelines.facts_errors import row_counts
from pipelines.run_facts import run_head
from pipelines.run_tables import Run, RunTables, find_run, quoted
from transforms.records.errors import ConfigError
from transforms.rules.job_changes import job_changes

#: Rows that are told one by one of each kind of change.
EXAMPLES = 20

_TOLD_TEMPLATES = ("template_hash", "lookup_hash")
#: Each row of a run with its outcome and a hash of its answer: the texts are looked up for the rows that are told.
_TOLD = """
CREATE TEMP VIEW {prefix}told AS
SELECT r.row_id, r.outcome, r.source, l.kind, e.likened
FROM {prefix}rows r
LEFT JOIN (SELECT row_id, min(kind) AS kind FROM {prefix}letters GROUP BY 1) l ON l.row_id = r.row_id
LEFT JOIN {prefix}answers e ON e.rid = r.request_id AND r.outcome = 'enriched'
"""
_JOINED = """
CREATE TEMP TABLE joined AS
SELECT coalesce(a.row_id, b.row_id) AS row_id, coalesce(b.source, a.source) AS source,
       a.outcome AS outcome_a, b.outcome AS outcome_b, a.kind AS kind_a, b.kind AS kind_b,
       a.outcome = 'enriched' AND b.outcome = 'enriched' AS both_answered,
       both_answered AND a.likened IS DISTINCT FROM b.likened AS differs
FROM a_told a FULL JOIN b_told b ON a.row_id = b.row_id
"""


def diff_runs(output: str, run_a: str, run_b: str, examples: int = EXAMPLES) -> dict[str, Any]:
    """Compare two runs that ended by themselves.

    Args:
        output: the job's output folder.
        run_a: a run's id, the beginning of it, "latest" or "previous".
        run_b: likewise; the run that things are told of as new.
        examples: rows told one by one of each kind of change, at most.

    Returns:
        JSON values with stable keys: output, a, b (each run_id, ..., as the facts "run", with rows, calls, tokens, cost_usd,
        cost_per_1000_rows_usd and template hashes), changes (of the job: key, before, now), rows (in_both, unchanged, changed,
        only_in_a, only_in_b, outcome_changed), changed, outcomes, only_in_a, only_in_b, answers.

    Raises:
        ConfigError: a run is not known, has not ended, was killed, or both are the same.
    """
    a, b = (_with_rows(find_run(output, name)) for name in (run_a, run_b))
    if a.run_id == b.run_id:
        raise ConfigError(f"{run_a} and {run_b} are the same run, {a.run_id}; name two runs")
    with RunTables() as tables:
        for run, prefix in ((a, "a_"), (b, "b_")):
            tables.add(run, prefix)
            make_answer_view(tables, run, prefix)
            tables.run(_TOLD.format(prefix=prefix))
        tables.run(_JOINED)
        return {
            "output": output,
            "a": _side(tables, a, "a_"),
            "b": _side(tables, b, "b_"),
            "changes": job_changes(a.manifest["job"], b.manifest["job"]),
            "rows": _counts(tables),
            "changed": _changed(tables, examples),
            "outcomes": _outcomes(tables, examples),
            "only_in_a": _only(tables, "a", examples),
            "only_in_b": _only(tables, "b", examples),
            "answers": compare_answers(describe_answers(tables, a, "a_"), describe_answers(tables, b, "b_")),
        }


def _with_rows(run: Run) -> Run:
    if run.is_crashed:
        raise ConfigError(
            f"run {run.run_id} was killed and left no outcomes of rows to compare; the run after it has them"
        )
    return run


def _side(tables: RunTables, run: Run, prefix: str) -> dict[str, Any]:
    groups = CallGroups(tables, prefix)
    cost = cost_facts(tables, groups, run, prefix)
    return run_head(run) | {
        "rows": row_counts(run),
        "calls": call_counts(tables, groups, run, prefix),
        "tokens": {"input": groups.count("input_tokens"), "output": groups.count("output_tokens")},
        "cost_usd": cost["usd"],
        "unknown_calls": cost["unknown_calls"],
        "cost_per_1000_rows_usd": cost["per_1000_rows_usd"],
        **_templates(tables, run, prefix),
    }


def _templates(tables: RunTables, run: Run, prefix: str) -> dict[str, str | None]:
    """Return the hashes that every enriched row of the run has; null of a run without one."""
    columns = tables.columns(f"{prefix}enriched")
    asked = [name for name in _TOLD_TEMPLATES if f"{run.field}_{name}" in columns]
    if not asked:
        return dict.fromkeys(_TOLD_TEMPLATES)
    taken = ", ".join(f"min({quoted(f'{run.field}_{name}')}) AS {name}" for name in asked)
    return dict.fromkeys(_TOLD_TEMPLATES) | tables.one(f"SELECT {taken} FROM {prefix}enriched")  # noqa: S608


def _counts(tables: RunTables) -> dict[str, int]:
    return tables.one(
        "SELECT count(*) FILTER (outcome_a IS NOT NULL AND outcome_b IS NOT NULL) AS in_both, "
        "count(*) FILTER (both_answered AND NOT differs) AS unchanged, count(*) FILTER (differs) AS changed, "
        "count(*) FILTER (outcome_a <> outcome_b) AS outcome_changed, "
        "count(*) FILTER (outcome_b IS NULL) AS only_in_a, count(*) FILTER (outcome_a IS NULL) AS only_in_b FROM joined"
    )


def _changed(tables: RunTables, examples: int) -> list[dict[str, Any]]:
    rows = tables.select(
        "WITH told AS (SELECT row_id, source FROM joined WHERE differs ORDER BY length(row_id), row_id LIMIT ?) "
        "SELECT told.*, a.request_id AS request_a, b.request_id AS request_b FROM told "
        "JOIN a_rows a USING (row_id) JOIN b_rows b USING (row_id) ORDER BY length(row_id), row_id",
        [examples],
    )
    before = answers_of(tables, "a_", [row["request_a"] for row in rows])
    now = answers_of(tables, "b_", [row["request_b"] for row in rows])
    return [
        {
            "row_id": row["row_id"],
            "source": row["source"],
            "before": before.get(row["request_a"]),
            "now": now.get(row["request_b"]),
        }
        for row in rows
    ]


def _outcomes(tables: RunTables, examples: int) -> list[dict[str, Any]]:
    """Return the rows that ended otherwise: {before, now (outcomes), kind, rows, examples: [row_id]}."""
    return tables.select(
        "SELECT outcome_a AS before, outcome_b AS now, coalesce(kind_b, kind_a) AS kind, count(*) AS rows, "
        "arg_min(row_id, (length(row_id), row_id), CAST(? AS BIGINT)) AS examples FROM joined "
        "WHERE outcome_a <> outcome_b GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3",
        [examples],
    )


def _only(tables: RunTables, side: str, examples: int) -> list[dict[str, Any]]:
    other = "b" if side == "a" else "a"
    return tables.select(
        f"SELECT row_id, outcome_{side} AS outcome, source FROM joined WHERE outcome_{other} IS NULL "  # noqa: S608
        "ORDER BY length(row_id), row_id LIMIT ?",
        [examples],
    )


def cost_change(a: str | None, b: str | None) -> float | None:
    """Return how much dearer the second is, as a share of the first; None where either is not known or free."""
    if a is None or b is None or not Decimal(a):
        return None
    return float(Decimal(b) / Decimal(a) - 1)
