"""How a run's answers are distributed, one entry for each place in the answer that holds a plain value.

Every enriched row counts, also one whose answer an earlier run paid for. Texts are counted by their hashes, so that a
million different ones take some bytes each.
"""

from dataclasses import dataclass, field
from typing import Any

from pipelines.facts_numbers import describe_numbers
from pipelines.run_tables import Run, RunTables, quoted
from transforms.rules.answer_leaves import ITEMS, Leaf, allowed_values, find_leaves

#: Values told in the facts, the most frequent first.
SHOWN_VALUES = 12
#: Values of a category that are compared with another run's.
MOST_CATEGORIES = 1000

#: Without an enum in the schema, texts are categories when there are few, short ones, each often.
_FEW_TEXTS = 50
_SHORT_TEXT = 60
_OFTEN = 5
_SHOWN_TEXT = 300


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers at one leaf.

    Attributes:
        facts: the entry of the facts "answers".
        query: gives them as columns v and rid (the request's id), nulls left out.
        counts: answers by value of a category or a boolean; None of other kinds.
        options: how many values the schema allows; None where it leaves them open.
    """

    path: str
    facts: dict[str, Any]
    query: str
    counts: dict[str, int] | None = field(default=None)
    options: int | None = None

    @property
    def kind(self) -> str:
        """Category, number, boolean or text."""
        return str(self.facts["kind"])


def describe_answers(tables: RunTables, run: Run, prefix: str = "") -> list[Answers]:
    """Return the answers of each leaf, in the order of the schema.

    Args:
        tables: with the run's views.
        run: the run.
        prefix: of its views.
    """
    schema = run.manifest["job"]["answer"].get("schema")
    return [
        _describe(tables, run.field, leaf, reached, allowed_values(schema, leaf))
        for leaf, reached in _reached_leaves(tables, run, prefix)
    ]


def answer_queries(tables: RunTables, run: Run) -> dict[str, str]:
    """Return, by the leaf's path, the query of its values (v, rid), nulls left out."""
    return {leaf.path(run.field): _known(reached) for leaf, reached in _reached_leaves(tables, run, "")}


def count_values(tables: RunTables, query: str) -> dict[str, int]:
    """Return the most frequent values with their counts, as `Answers.counts` has them."""
    found = tables.select(
        f"SELECT CAST(v AS VARCHAR) AS value, count(*) AS n FROM ({query}) GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?",  # noqa: S608
        [MOST_CATEGORIES],
    )
    return {each["value"]: each["n"] for each in found}


def sampled(query: str, count: int, wanted: int) -> str:
    """Return the query of about `wanted` of a leaf's `count` values, always the same: request ids are even hashes."""
    if count <= wanted:
        return query
    end = f"{int(wanted / count * 16**8):08x}"
    return f"SELECT v, rid FROM ({query}) WHERE rid < '{end}'"  # noqa: S608 - hex digits


def _reached_leaves(tables: RunTables, run: Run, prefix: str) -> list[tuple[Leaf, str]]:
    columns = tables.columns(f"{prefix}enriched")
    if run.field not in columns:
        return []
    failed = quoted(f"{run.field}_error")
    where = f"WHERE {failed} IS NULL" if f"{run.field}_error" in columns else ""
    answered = (
        f"SELECT {quoted(run.field)} AS v, {quoted(run.field + '_request_id')} AS rid FROM {prefix}enriched {where}"  # noqa: S608
    )
    return [(leaf, _reach(answered, leaf)) for leaf in find_leaves(columns[run.field])]


def _known(reached: str) -> str:
    return f"SELECT v, rid FROM ({reached}) WHERE v IS NOT NULL"  # noqa: S608 - our own words


def row_ids(tables: RunTables, request_ids: list[str], limit: int = 3, prefix: str = "") -> list[str]:
    """Return some rows that asked these requests, in order."""
    found = tables.select(
        f"SELECT row_id FROM {prefix}rows WHERE list_contains(?, request_id) ORDER BY row_id LIMIT ?",  # noqa: S608
        [request_ids, limit],
    )
    return [each["row_id"] for each in found]


def _describe(tables: RunTables, name: str, leaf: Leaf, reached: str, allowed: list[Any] | None) -> Answers:
    query = _known(reached)
    counted = tables.one(f"SELECT count(v) AS count, count(*) - count(v) AS nulls FROM ({reached})")  # noqa: S608
    facts = {"field": leaf.path(name), "kind": leaf.kind, **counted, "distinct": 0, "values": [], "stats": None}
    facts |= {"histogram": None, "length": None}
    options = None if allowed is None else len(allowed)
    if leaf.kind in ("integer", "number"):
        facts |= _number_facts(tables, query, counted["count"], whole=leaf.kind == "integer")
        return Answers(facts["field"], facts, query, options=options)
    kind, counts, more = _value_facts(tables, query, counted["count"], leaf.kind, is_enum=allowed is not None)
    return Answers(facts["field"], facts | more | {"kind": kind}, query, counts, options)


def _reach(answered: str, leaf: Leaf) -> str:
    """Return the query of a leaf's values: a step down for each of its steps."""
    query = answered
    for step in leaf.steps:
        taken = "unnest(v)" if step is ITEMS else f"v.{quoted(step)}"
        query = f"SELECT {taken} AS v, rid FROM ({query})"  # noqa: S608 - quoted names
    return query


def _number_facts(tables: RunTables, query: str, count: int, *, whole: bool) -> dict[str, Any]:
    found = describe_numbers(tables, query, whole=whole)
    distinct = tables.one(f"SELECT count(DISTINCT v) AS n FROM ({query})")["n"]  # noqa: S608 - our own words
    values: list[dict[str, Any]] = []
    if distinct <= SHOWN_VALUES:
        values = tables.select(f"SELECT v AS value, count(*) AS count FROM ({query}) GROUP BY v ORDER BY 2 DESC, 1")  # noqa: S608
    return {
        "kind": "number",
        "distinct": distinct,
        "values": [each | {"share": _share(each["count"], count)} for each in values],
        "stats": found and {name: found[name] for name in ("min", "p50", "mean", "max")},
        "histogram": found and found["histogram"],
    }


def _value_facts(
    tables: RunTables, query: str, count: int, kind: str, *, is_enum: bool
) -> tuple[str, dict[str, int] | None, dict[str, Any]]:
    """Return the kind, the counts of a category, and the facts of texts and booleans."""
    tables.run(
        f"CREATE OR REPLACE TEMP TABLE hashes AS SELECT hash(v) AS h, count(*) AS n FROM ({query}) GROUP BY 1"  # noqa: S608
    )
    distinct = tables.one("SELECT count(*) AS n FROM hashes")["n"]
    length = None if kind == "boolean" else _lengths(tables, query)
    longest = length["max"] if length else 0
    is_few = distinct <= _FEW_TEXTS and count >= _OFTEN * distinct and longest <= _SHORT_TEXT
    found_kind = "boolean" if kind == "boolean" else "category" if is_enum or (is_few and count) else "text"
    values = _top_values(tables, query, SHOWN_VALUES if found_kind == "text" else MOST_CATEGORIES)
    shown = [
        {"value": _shown(each["value"]), "count": each["count"], "share": _share(each["count"], count)}
        for each in values[:SHOWN_VALUES]
    ]
    facts = {"distinct": distinct, "values": shown, "length": length if found_kind == "text" else None}
    if found_kind == "text":
        return found_kind, None, facts
    return found_kind, {_text(each["value"]): each["count"] for each in values}, facts


def _top_values(tables: RunTables, query: str, limit: int) -> list[dict[str, Any]]:
    """Return the most frequent values; only of these the texts are looked up."""
    return tables.select(
        "WITH top AS (SELECT h, n FROM hashes ORDER BY n DESC, h LIMIT ?), "  # noqa: S608 - our own words
        f"named AS (SELECT hash(v) AS h, min(v) AS value FROM ({query}) WHERE hash(v) IN (SELECT h FROM top) GROUP BY 1) "
        "SELECT value, n AS count FROM top JOIN named USING (h) ORDER BY n DESC, value",
        [limit],
    )


def _lengths(tables: RunTables, query: str) -> dict[str, int] | None:
    found = tables.one(
        f"SELECT quantile_disc(length(v), [0.5, 0.99]) AS quantiles, max(length(v)) AS max FROM ({query})"  # noqa: S608
    )
    if found["max"] is None:
        return None
    p50, p99 = found["quantiles"]
    return {"p50": p50, "p99": p99, "max": found["max"]}


def _share(count: int, total: int) -> float:
    return round(count / total, 6)


def _shown(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= _SHOWN_TEXT else value[:_SHOWN_TEXT] + "..."


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
