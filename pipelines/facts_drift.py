"""Findings of drift: a run against the newest earlier run of its output that it can be compared with."""

from collections.abc import Iterator
from typing import Any

from pipelines.facts_answers import Answers, answer_queries, count_values, sampled
from pipelines.facts_calls import CallGroups, cost_facts, own_rows
from pipelines.facts_errors import row_counts, rows_of_outcome
from pipelines.facts_findings import Evidence, cost_per_row, rows_with
from pipelines.run_tables import Run, RunTables, previous_runs
from pipelines.text import money
from transforms.rules.drift import (
    FEWEST,
    Against,
    Sample,
    find_dead_letter_drift,
    find_distribution_drift,
    find_mean_drift,
)
from transforms.rules.findings import Finding
from transforms.rules.job_changes import job_changes

#: Of the calls; with more of unknown cost the rest says nothing of a row's.
_UNKNOWN_SHARE = 0.01
#: Values that tell whether a distribution of numbers has moved; a tenth of them is more than any chance.
_COMPARED = 100_000
_TENTHS = [tenth / 10 for tenth in range(1, 10)]


def comparable_run(run: Run) -> Run | None:
    """Return the newest earlier run with answers to the same field, enough of them to compare, that came to its end."""
    for earlier in previous_runs(run):
        if earlier.field == run.field and (row_counts(earlier)["enriched"] or 0) >= FEWEST:
            return earlier
    return None


def drift_findings(evidence: Evidence, earlier: Run) -> Iterator[Finding | None]:
    """Yield what has changed more than chance and more than little."""
    changes = job_changes(earlier.manifest["job"], evidence.run.manifest["job"])
    against = Against(earlier.run_id, tuple(change["key"] for change in changes))
    with RunTables() as tables:
        tables.add(earlier)
        queries = answer_queries(tables, earlier)
        for answers in evidence.answers:
            if answers.path in queries:
                yield _moved_answers(evidence, answers, tables, queries[answers.path], against)
        yield _more_dead_letters(evidence, earlier, against)
        yield from _other_means(evidence, tables, earlier, against)


def _moved_answers(evidence: Evidence, now: Answers, tables: RunTables, query: str, against: Against) -> Finding | None:
    if now.counts is None:
        return _moved_numbers(evidence, now, tables, query, against)
    before = count_values(tables, query)
    if find_distribution_drift(now.path, before, now.counts, against) is None:
        return None
    rows = rows_with(evidence.tables, now, _grown(before, now.counts))
    return find_distribution_drift(now.path, before, now.counts, against, rows=rows)


def _moved_numbers(evidence: Evidence, now: Answers, tables: RunTables, query: str, against: Against) -> Finding | None:
    """Compare numbers, and texts by their lengths, over the ranges that hold a tenth of the earlier run's each."""
    value, what = ("TRY_CAST(v AS DOUBLE)", "median") if now.kind == "number" else ("length(v)", "median length")
    count = tables.one(f"SELECT count(*) AS n FROM ({query})")["n"]  # noqa: S608 - our own words
    if min(count, now.facts["count"]) < FEWEST:
        return None
    before_query = sampled(query, count, _COMPARED)
    now_query = sampled(now.query, now.facts["count"], _COMPARED)
    edges, old_middle = _tenths(tables, before_query, value)
    _, new_middle = _tenths(evidence.tables, now_query, value)
    if old_middle is None or new_middle is None:
        return None
    old, new = _binned(tables, before_query, value, edges), _binned(evidence.tables, now_query, value, edges)
    told = f"The {what} is {new_middle:g} after {old_middle:g}"
    return find_distribution_drift(now.path, old, new, against, told)


def _grown(before: dict[str, int], now: dict[str, int]) -> str:
    was, has = sum(before.values()) or 1, sum(now.values()) or 1
    return max(now, key=lambda value: now[value] / has - before.get(value, 0) / was)


def _tenths(tables: RunTables, query: str, value: str) -> tuple[list[float], float | None]:
    """Return the edges of the tenths, each once, and the median; none where no value is of this kind."""
    found = tables.one(f"SELECT quantile_cont({value}, ?) AS edges FROM ({query})", [_TENTHS])["edges"]  # noqa: S608
    edges = [float(edge) for edge in found or []]
    return sorted(set(edges)), edges[4] if edges else None


def _binned(tables: RunTables, query: str, value: str, edges: list[float]) -> dict[str, int]:
    """Count the values between the edges; a value on an edge belongs below it."""
    found = tables.select(
        f"SELECT len(list_filter(CAST(? AS DOUBLE[]), lambda edge: edge < {value})) AS bin, count(*) AS n "  # noqa: S608
        f"FROM ({query}) GROUP BY 1",
        [edges],
    )
    return {str(each["bin"]): each["n"] for each in found}


def _more_dead_letters(evidence: Evidence, earlier: Run, against: Against) -> Finding | None:
    old, new = _dead_of_settled(earlier), _dead_of_settled(evidence.run)
    kinds = evidence.tables.select("SELECT DISTINCT kind FROM letters")
    rows = rows_of_outcome(evidence.tables, [each["kind"] for each in kinds])
    return find_dead_letter_drift(old, new, against, rows)


def _dead_of_settled(run: Run) -> tuple[int, int]:
    rows = row_counts(run)
    dead = rows["dead_lettered"] or 0
    return dead, dead + (rows["enriched"] or 0)


def _other_means(evidence: Evidence, tables: RunTables, earlier: Run, against: Against) -> Iterator[Finding | None]:
    old, new = _call_means(tables), _call_means(evidence.tables)
    for name, what in (("input_tokens", "Input per answer"), ("output_tokens", "Output per answer")):
        before, now = (_sample(means, name) for means in (old, new))
        shown = (f"{before.mean:,.0f} tokens", f"{now.mean:,.0f} tokens")
        yield find_mean_drift(what, before, now, against, shown)
    costs = (_cost_sample(tables, earlier, old), _cost_sample(evidence.tables, evidence.run, new))
    shown_costs = (f"{money(f'{cost.mean * 1000:f}')} per 1,000 rows" for cost in costs)
    yield find_mean_drift("The cost per row", *costs, against, (next(shown_costs), next(shown_costs)))


def _call_means(tables: RunTables) -> dict[str, Any]:
    parts = [
        f"count({name}) AS {name}_n, avg({name}) AS {name}_mean, stddev_samp({name}) AS {name}_deviation"
        for name in ("input_tokens", "output_tokens", "cost_usd")
    ]
    # Of answers alone: refusals are short, and a storm of errors has no tokens.
    query = f"SELECT {', '.join(parts)} FROM calls WHERE call_type = 'LLM' AND outcome = 'ok'"  # noqa: S608 - our own words
    return tables.one(query)


def _sample(means: dict[str, Any], name: str) -> Sample:
    return Sample(means[f"{name}_n"], float(means[f"{name}_mean"] or 0), float(means[f"{name}_deviation"] or 0))


def _cost_sample(tables: RunTables, run: Run, means: dict[str, Any]) -> Sample:
    """Return the cost per row that the run's own calls settled; no sample where too much of it is not known."""
    groups = CallGroups(tables)
    cost = cost_facts(tables, groups, run)
    per_row = cost_per_row(cost)
    if per_row is None or cost["unknown_calls"] > _UNKNOWN_SHARE * groups.count():
        return Sample(0, 0.0, 0.0)
    return Sample(own_rows(tables), float(per_row), _sample(means, "cost_usd").deviation)
