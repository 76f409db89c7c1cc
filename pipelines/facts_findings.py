"""The findings of a run: collects what the rules of `rules/findings.py` and `rules/drift.py` need, and asks them."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipelines.facts_answers import Answers, row_ids, sampled
from pipelines.facts_calls import CallGroups
from pipelines.facts_errors import rows_of_outcome
from pipelines.run_tables import Run, RunTables
from pipelines.text import money
from transforms.rules.findings import (
    Finding,
    find_cost_outliers,
    find_dominant_value,
    find_near_duplicates,
    find_refusals,
    find_repairs,
    find_truncation,
    outlier_bound,
)
from transforms.rules.near_duplicates import find_largest_group

#: Answers whose texts are compared with each other: a group of a tenth of them shows in any sample of this size.
SAMPLED_ANSWERS = 2000
_EXAMPLES = 3
_FILTERED = "content_filtered"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the findings of one run are looked for."""

    run: Run
    tables: RunTables
    groups: CallGroups
    answers: list[Answers]


def own_findings(evidence: Evidence) -> Iterator[Finding | None]:
    """Yield the findings of six kinds, those that need no other run."""
    yield _truncation(evidence)
    yield _refusals(evidence)
    yield _repairs(evidence)
    yield _cost_outliers(evidence.tables)
    for answers in evidence.answers:
        if answers.kind in ("category", "boolean"):
            yield _dominant_value(evidence.tables, answers)
        elif answers.kind == "text":
            yield _near_duplicates(evidence.tables, answers)


def _truncation(evidence: Evidence) -> Finding | None:
    outcomes = evidence.groups.by_outcome()
    longest = evidence.tables.one(
        "SELECT max(output_tokens) AS n FROM calls WHERE call_type = 'LLM' AND outcome = 'ok'"
    )
    limit = (evidence.run.manifest["job"]["model"].get("params") or {}).get("max_output_tokens")
    rows = rows_of_outcome(evidence.tables, ["truncated"])
    return find_truncation(outcomes["truncated"], evidence.groups.count("replies"), limit, longest["n"], rows)


def _refusals(evidence: Evidence) -> Finding | None:
    outcomes = evidence.groups.by_outcome()
    refused, filtered = outcomes["refusal"], outcomes[_FILTERED]
    # A filter may refuse the prompt itself, with an error in place of a reply.
    unread = evidence.groups.count(where=lambda group: group["outcome"] == _FILTERED)
    unread -= evidence.groups.count("replies", lambda group: group["outcome"] == _FILTERED)
    rows = rows_of_outcome(evidence.tables, ["refusal", _FILTERED])
    return find_refusals(refused, filtered, evidence.groups.count("replies") + unread, rows)


def _repairs(evidence: Evidence) -> Finding | None:
    groups = evidence.groups
    answered = groups.count(where=lambda group: group["lane"] == "main" and group["outcome"] == "ok")
    repairs = evidence.tables.one(
        "SELECT count(DISTINCT root_request_id) AS repaired, "
        "count(DISTINCT root_request_id) FILTER (outcome = 'ok') AS healed, sum(cost_usd) AS cost_usd, "
        "arg_min(DISTINCT root_request_id, root_request_id, ?) AS examples "
        "FROM calls WHERE call_type = 'LLM' AND lane = 'repair'",
        [_EXAMPLES],
    )
    cost = None if repairs["cost_usd"] is None else money(repairs["cost_usd"])
    rows = row_ids(evidence.tables, repairs["examples"] or [])
    return find_repairs(repairs["repaired"], repairs["healed"], answered, cost, rows)


def _cost_outliers(tables: RunTables) -> Finding | None:
    """Compare each call with those of its model, mode and lane: a batch costs half, a repair asks more."""
    paid = (
        "SELECT c.call_id, c.root_request_id, CAST(c.cost_usd AS DOUBLE) AS usd, "
        "concat_ws(' ', c.request_model, b.mode, c.lane) AS kind "
        "FROM calls c LEFT JOIN batches b USING (batch_id) WHERE c.call_type = 'LLM' AND c.cost_usd > 0"
    )
    kinds = tables.select(
        "SELECT kind, count(*) AS calls, sum(usd) AS usd, median(ln(usd)) AS middle, mad(ln(usd)) AS mad "  # noqa: S608
        f"FROM ({paid}) GROUP BY 1 ORDER BY 1"
    )
    if not kinds:
        return None
    bounds = {each["kind"]: outlier_bound(each["middle"], each["mad"]) for each in kinds}
    found = tables.one(
        "SELECT count(*) AS outliers, coalesce(sum(usd), 0) AS usd, coalesce(max(usd / exp(middle)), 0) AS factor, "  # noqa: S608
        f"arg_max(root_request_id, usd, ?) AS dearest FROM ({paid}) JOIN (SELECT unnest(?) AS kind, unnest(?) AS bound, "
        "unnest(?) AS middle) USING (kind) WHERE usd > bound",
        [_EXAMPLES, list(bounds), list(bounds.values()), [each["middle"] for each in kinds]],
    )
    total = sum(each["usd"] for each in kinds)
    rows = row_ids(tables, found["dearest"] or [])
    calls = sum(each["calls"] for each in kinds)
    return find_cost_outliers(found["outliers"], calls, found["usd"], total, found["factor"], rows)


def _dominant_value(tables: RunTables, answers: Answers) -> Finding | None:
    counts = answers.counts or {}
    options = 2 if answers.kind == "boolean" else answers.options
    found = find_dominant_value(answers.path, counts, options)
    if found is None:
        return None
    return find_dominant_value(
        answers.path, counts, options, rows_with(tables, answers, max(counts, key=counts.__getitem__))
    )


def rows_with(tables: RunTables, answers: Answers, value: str) -> list[str]:
    """Return some rows whose answer is this value, as `Answers.counts` writes it."""
    query = f"SELECT DISTINCT rid FROM ({answers.query}) WHERE CAST(v AS VARCHAR) = ? ORDER BY rid LIMIT ?"  # noqa: S608
    found = tables.select(query, [value, _EXAMPLES])
    return row_ids(tables, [each["rid"] for each in found])


def _near_duplicates(tables: RunTables, answers: Answers) -> Finding | None:
    """Compare a sample of the texts, one for each request: rows that share a request share its answer by right."""
    count = answers.facts["count"]
    sample = tables.select(
        f"SELECT rid, min(v) AS v FROM ({sampled(answers.query, count, 2 * SAMPLED_ANSWERS)}) "  # noqa: S608
        "GROUP BY 1 ORDER BY rid LIMIT ?",
        [SAMPLED_ANSWERS],
    )
    group = find_largest_group([each["v"] for each in sample])
    if not group:
        return None
    rows = row_ids(tables, [sample[place]["rid"] for place in group[:_EXAMPLES]])
    example = sample[group[0]]["v"]
    return find_near_duplicates(answers.path, len(group), len(sample), count, example, rows)


def cost_per_row(cost: dict[str, Any]) -> Decimal | None:
    """Return what a row cost, from the facts "cost"."""
    per_1000 = cost["per_1000_rows_usd"]
    return None if per_1000 is None else Decimal(per_1000) / 1000
