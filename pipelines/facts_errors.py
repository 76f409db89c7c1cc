"""What went wrong in a run, by kind, with examples: dead rows first, then calls that another try made good."""

from collections import Counter
from typing import Any

from pipelines.advice import advice
from pipelines.run_tables import Run, RunTables
from pipelines.sent_prompt import read_error

_EXAMPLES = 3
#: Dead letters of a kind that the examples are chosen from.
_SAMPLED = 50
_LONGEST_REASON = 400


def outcome_facts(tables: RunTables, run: Run) -> list[dict[str, Any]]:
    """Return the facts "outcomes": enriched, the dead letters by kind, pending; only what there is."""
    rows = row_counts(run)
    dead = tables.select("SELECT kind, count(*) AS rows FROM letters GROUP BY 1 ORDER BY 2 DESC, 1")
    kinds = {reason["kind"] for reason in run.summary.get("pending_reasons") or []}
    waiting = kinds.pop() if len(kinds) == 1 else None
    found = [
        {"outcome": "enriched", "kind": None, "rows": rows["enriched"]},
        *({"outcome": "dead_lettered", **each} for each in dead),
        {"outcome": "pending", "kind": waiting, "rows": rows["pending"]},
    ]
    return [each for each in found if each["rows"]]


def row_counts(run: Run) -> dict[str, int | None]:
    """Return the facts "rows"; all null of a crashed run."""
    counts = (run.manifest["counts"] or {}).get("rows") or {}
    return {name: counts.get(name) for name in ("in", "enriched", "dead_lettered", "pending")}


def error_facts(tables: RunTables, run: Run, calls_by_outcome: Counter[str]) -> list[dict[str, Any]]:
    """Return the facts "errors", by rows and then by calls.

    `rows` died of the kind; `calls` ended with it, also those of rows that another try saved. Reasons may quote a
    prompt or a reply: where the job keeps no payloads, examples have none.
    """
    keeps_payloads = (run.manifest["job"].get("audit") or {}).get("payloads", "full") == "full"
    dead = tables.select("SELECT kind, stage, count(*) AS rows FROM letters GROUP BY 1, 2")
    found = [_error(each["kind"], each["stage"], each["rows"], calls_by_outcome) for each in dead]
    told = {each["kind"] for each in dead}
    found += [_error(kind, "call", 0, calls_by_outcome) for kind in calls_by_outcome if kind not in told | {"ok"}]
    letters, calls = _letter_examples(tables), _call_examples(tables)
    for error in found:
        examples = letters.get((error["kind"], error["stage"])) or calls.get(error["kind"], [])
        error["examples"] = examples if keeps_payloads else [example | {"reason": None} for example in examples]
    return sorted(found, key=lambda error: (-error["rows"], -error["calls"], error["kind"]))


def rows_of_outcome(tables: RunTables, outcomes: list[str], limit: int = _EXAMPLES) -> list[str]:
    """Return some rows that died of these kinds."""
    found = tables.select(
        "SELECT row_id FROM letters WHERE list_contains(?, kind) ORDER BY row_id LIMIT ?", [outcomes, limit]
    )
    return [each["row_id"] for each in found]


def _error(kind: str, stage: str, rows: int, calls: Counter[str]) -> dict[str, Any]:
    sent = calls[kind] if stage == "call" else 0
    return {"kind": kind, "stage": stage, "rows": rows, "calls": sent, "advice": advice(kind), "examples": []}


def _letter_examples(tables: RunTables) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return examples by (kind, stage), of a sample: different reasons first, since equal ones teach nothing."""
    found = tables.select(
        "SELECT kind, stage, arg_min({row_id: row_id, source: source.path || ':' || source.line, reason: reason, "
        "call_id: call_id}, hash(row_id), ?) AS sample FROM letters GROUP BY 1, 2",
        [_SAMPLED],
    )
    return {(each["kind"], each["stage"]): _most_varied(each["sample"]) for each in found}


def _most_varied(sample: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first letter of each reason, then others, as many as are shown."""
    first = {letter["reason"]: letter for letter in reversed(sample)}
    chosen = list(first.values())[::-1]
    chosen += [letter for letter in sample if letter not in chosen]
    return [letter | {"reason": _cut(letter["reason"])} for letter in chosen[:_EXAMPLES]]


def _call_examples(tables: RunTables) -> dict[str, list[dict[str, Any]]]:
    """Return failed calls by outcome, each with a row that they were made for, where the run has outcomes of rows."""
    found = tables.select(
        "WITH ids AS (SELECT unnest(arg_min(call_id, started_at, ?)) AS call_id FROM calls "
        "WHERE call_type = 'LLM' AND status = 'ERROR' GROUP BY outcome), "
        "failed AS (SELECT outcome, call_id, error_json, root_request_id FROM calls WHERE call_id IN (FROM ids)) "
        "SELECT failed.outcome, failed.call_id, any_value(failed.error_json) AS error_json, "
        "min(rows.row_id) AS row_id, arg_min(rows.source, rows.row_id) AS source "
        "FROM failed LEFT JOIN rows ON rows.request_id = failed.root_request_id GROUP BY 1, 2 ORDER BY 1, 2",
        [_EXAMPLES],
    )
    examples: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        reason = (read_error(each["error_json"]) or {}).get("message")
        facts = {"row_id": each["row_id"], "source": each["source"], "reason": _cut(reason), "call_id": each["call_id"]}
        examples.setdefault(each["outcome"], []).append(facts)
    return examples


def _cut(reason: str | None) -> str | None:
    return reason if reason is None or len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "..."
