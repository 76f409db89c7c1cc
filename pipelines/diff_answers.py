"""The answers of two runs: as tables by request, to tell which rows changed, and their distributions side by side."""

from typing import Any

import orjson

from pipelines.facts_answers import SHOWN_VALUES, Answers
from pipelines.run_tables import Run, RunTables, literal, quoted
from transforms.rules.answer_type import AnswerType
from transforms.rules.drift import total_variation


def make_answer_view(tables: RunTables, run: Run, prefix: str) -> None:
    """Make the view <prefix>answers of a run: one line for each request, with a hash that tells answers apart.

    What is hashed are members by name, so that a schema that lists them in another order changes no row, and whole
    numbers like others, so that 3 is 3.0.
    """
    columns = tables.columns(f"{prefix}enriched")
    field, request = quoted(run.field), quoted(f"{run.field}_request_id")
    failed = f"{run.field}_error"
    where = f"AND {quoted(failed)} IS NULL" if failed in columns else ""
    asked = f"FROM {prefix}enriched WHERE {request} IS NOT NULL {where}"
    likened = _likened(columns[run.field], field)
    tables.run(
        f"CREATE TEMP VIEW {prefix}answers AS SELECT {request} AS rid, "
        f"any_value(hash(CAST({likened} AS VARCHAR))) AS likened {asked} GROUP BY 1"
    )
    tables.run(
        f"CREATE TEMP VIEW {prefix}texts AS SELECT {request} AS rid, CAST(to_json({field}) AS VARCHAR) AS answer {asked}"
    )


def answers_of(tables: RunTables, prefix: str, request_ids: list[str]) -> dict[str, Any]:
    """Return the answers of some requests as JSON values."""
    found = tables.select(
        f"SELECT rid, any_value(answer) AS answer FROM {prefix}texts WHERE list_contains(?, rid) GROUP BY 1",  # noqa: S608
        [list(dict.fromkeys(request_ids))],
    )
    return {each["rid"]: None if each["answer"] is None else orjson.loads(each["answer"]) for each in found}


def compare_answers(before: list[Answers], now: list[Answers]) -> list[dict[str, Any]]:
    """Set the distributions of both runs side by side, field by field.

    Returns:
        {field, kind, moved (total variation of categories and booleans that both runs have, else null), values: [{value, before, now,
        before_share, now_share}] (of categories), before, now}, where before and now are the facts "answers" of the
        field in either run, or null where it has none.
    """
    old, new = ({answers.path: answers for answers in side} for side in (before, now))
    return [_compare(path, old.get(path), new.get(path)) for path in dict.fromkeys([*new, *old])]


def _compare(path: str, before: Answers | None, now: Answers | None) -> dict[str, Any]:
    kinds = {side.kind for side in (before, now) if side}
    old, new = _counts(before), _counts(now)
    both = old is not None and new is not None
    return {
        "field": path,
        "kind": kinds.pop() if len(kinds) == 1 else "mixed",
        "moved": round(total_variation(old, new), 6) if old and new else None,
        "values": _values(old or {}, new or {}) if both else [],
        "before": before and before.facts,
        "now": now and now.facts,
    }


def _counts(side: Answers | None) -> dict[str, int] | None:
    return {} if side is None else side.counts


def _values(before: dict[str, int], now: dict[str, int]) -> list[dict[str, Any]]:
    was, has = sum(before.values()), sum(now.values())
    names = sorted(before.keys() | now.keys(), key=lambda name: (-before.get(name, 0) - now.get(name, 0), name))
    return [
        {
            "value": name,
            "before": before.get(name, 0),
            "now": now.get(name, 0),
            "before_share": round(before.get(name, 0) / was, 6) if was else None,
            "now_share": round(now.get(name, 0) / has, 6) if has else None,
        }
        for name in names[:SHOWN_VALUES]
    ]


def _likened(kind: AnswerType, value: str) -> str:
    if kind.kind == "object":
        members = sorted(kind.fields, key=lambda member: member[0])
        parts = ", ".join(f"{literal(name)}, {_likened(member, f'{value}.{quoted(name)}')}" for name, member in members)
        return f"CASE WHEN {value} IS NULL THEN NULL ELSE json_object({parts}) END"
    if kind.kind in ("integer", "number"):
        return f"CAST({value} AS DOUBLE)"
    return f"to_json({value})"
