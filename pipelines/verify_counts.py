"""Conservation and costs: the rows and the money of each run, counted from its files against what it says of itself."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from pipelines.verify_findings import Check, Scope
from pipelines.verify_tables import Tables
from transforms.records.failure import Stage
from transforms.storage.ledger_lines import parse_line
from transforms.storage.objects import read_bytes

_CHUNK = 50_000
#: What a table's column of money can't hold of one call.
_ROUNDED = Decimal("1e-18")
_OUTCOMES = ("enriched", "dead_lettered", "pending")

_CALL_SUMS = """
    SELECT run_id, count(*), count(*) FILTER (status = 'SUCCESS'), count(*) FILTER (cost_usd IS NULL), sum(cost_usd),
        coalesce(sum(input_tokens), 0)::BIGINT, coalesce(sum(output_tokens), 0)::BIGINT
    FROM calls WHERE call_type = 'LLM' GROUP BY run_id
"""
_RUNS = "SELECT run_id, calls_sent, calls_succeeded, calls_failed, input_tokens, output_tokens, cost_usd FROM runs"
_FAILED = f"""
    SELECT run_id, sum(failed)::BIGINT, sum(kept)::BIGINT FROM (
        SELECT run_id, 1 AS failed, 0 AS kept FROM answers WHERE error IS NOT NULL
        UNION ALL SELECT run_id, 0, 1 FROM letters WHERE stage <> '{Stage.READ}')
    GROUP BY run_id
"""  # noqa: S608 - our own words


def load_rows(scope: Scope, tables: Tables) -> list[Check]:
    """Load dead letters and enriched rows of the runs that ended by themselves; say which files can't be read."""
    check = Check("rows.files", "dead letters and enriched rows can be read")
    for manifest in scope.ended:
        run_id = manifest["run_id"]
        for path in scope.listed(manifest, "dead_letters"):
            for chunk in _chunks(check, run_id, path):
                ids, stages = [_utf8(one.get("row_id")) for one in chunk], [one.get("stage") for one in chunk]
                tables.add("letters", run_id, row_id=ids, stage=stages)
        _load_enriched(scope, tables, check, manifest)
    return [check]


def check_conservation(scope: Scope, tables: Tables) -> list[Check]:
    """Check rows in = enriched + dead-lettered + pending, and that failed rows are kept where the job says so."""
    counts = Check("conservation", "rows in = enriched + dead-lettered + pending, in the tables and in the manifest")
    kept = Check("kept", "failed rows are among the enriched ones where the job keeps them, and nowhere else")
    found = {
        (run_id, end): n for run_id, end, n in tables.rows("SELECT run_id, outcome, count(*) FROM rows GROUP BY ALL")
    }
    failed = {run_id: numbers for run_id, *numbers in tables.rows(_FAILED)}
    for manifest in scope.ended:
        run_id = manifest["run_id"]
        _check_rows(counts, manifest, {end: found.get((run_id, end), 0) for end in _OUTCOMES})
        errors, letters = failed.get(run_id, (0, 0))
        if errors != (letters if _keeps(manifest) else 0):
            kept.found(f"run {run_id}: {errors:,} enriched rows have an error, {letters:,} rows failed after reading")
    return [counts, kept]


def check_costs(scope: Scope, tables: Tables) -> list[Check]:
    """Check the sums over the calls of each run: counts, tokens, money, calls of unknown cost."""
    check = Check("costs", "calls, tokens and costs add up to what runs, manifest and summary say")
    sums = {row[0]: row[1:] for row in tables.rows(_CALL_SUMS)}
    said = {row[0]: row[1:] for row in tables.rows(_RUNS)}
    for manifest in scope.checked:
        run_id = manifest["run_id"]
        sent, succeeded, unknown, cost, read, written = sums.get(run_id, (0, 0, 0, None, 0, 0))
        cost = (cost or Decimal(0)) if unknown < sent or not sent else None
        counted = (sent, succeeded, sent - succeeded, read, written, cost)
        for name, other in (("manifest.json", _said(manifest)), ("table runs", said.get(run_id))):
            if other is None or not _is_equal(counted, other):
                check.found(f"run {run_id}: its calls come to {_words(counted)}, {name} says {_words(other)}")
        _check_summary(scope, check, manifest, unknown)
    return [check]


def _keeps(manifest: dict[str, Any]) -> bool:
    return bool(manifest["job"].get("on_failure") == "keep")


def _check_rows(check: Check, manifest: dict[str, Any], counted: dict[str, int]) -> None:
    rows, run_id = manifest["counts"]["rows"], manifest["run_id"]
    if manifest["status"] == "broken":
        check.found(f"run {run_id} could not prove its rows, as its summary says: run the job again")
    elif rows["in"] != sum(counted.values()) or any(rows[end] != counted[end] for end in _OUTCOMES):
        told = ", ".join(f"{rows[end]} {end}" for end in _OUTCOMES)
        has = ", ".join(f"{counted[end]} {end}" for end in _OUTCOMES)
        check.found(f"run {run_id}: table rows has {has}; the manifest says {rows['in']} in, {told}")


def _load_enriched(scope: Scope, tables: Tables, check: Check, manifest: dict[str, Any]) -> None:
    run_id, field = manifest["run_id"], manifest["job"]["answer"]["field"]
    paths = scope.listed(manifest, "enriched")
    names = f"{field}_request_id", f"{field}_error" if _keeps(manifest) else None
    if parquet := [path for path in paths if path.endswith(".parquet")]:
        tables.add_answers(run_id, parquet, *names)
    for path in paths:
        for chunk in [] if path.endswith(".parquet") else _chunks(check, run_id, path):
            ids = [row.get(names[0]) for row in chunk]
            errors = [_utf8(row.get(names[1])) if names[1] else None for row in chunk]
            tables.add("lines", run_id, request_id=ids, error=errors)


def _said(manifest: dict[str, Any]) -> tuple[Any, ...]:
    calls, tokens, cost = manifest["counts"]["calls"], manifest["counts"]["tokens"], manifest["cost_usd"]
    money = None if cost is None else Decimal(cost)
    return calls["sent"], calls["succeeded"], calls["failed"], tokens["input"], tokens["output"], money


def _is_equal(counted: tuple[Any, ...], said: tuple[Any, ...]) -> bool:
    *counts, cost = counted
    *told, cost_told = said
    if counts != told or (cost is None) != (cost_told is None):
        return False
    return cost is None or abs(cost - cost_told) <= _ROUNDED * counts[0]


def _check_summary(scope: Scope, check: Check, manifest: dict[str, Any], unknown: int) -> None:
    run_id = manifest["run_id"]
    try:
        summary = orjson.loads(read_bytes(scope.folder(manifest).summary))
        said = ({part: summary[part] for part in ("rows", "calls", "tokens")}, summary["cost_usd"])
        unknown_said = summary["calls_of_unknown_cost"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        check.found(f"run {run_id}: summary.json can't be read ({error}): restore it")
        return
    if said != (manifest["counts"], manifest["cost_usd"]):
        check.found(f"run {run_id}: summary.json has other counts or another cost than manifest.json")
    if unknown_said != unknown:
        check.found(f"run {run_id}: {unknown:,} calls have no known cost, and summary.json says {unknown_said:,}")


def _words(sums: tuple[Any, ...] | None) -> str:
    if sums is None:
        return "nothing"
    sent, succeeded, failed, read, written, cost = sums
    money = "an unknown cost" if cost is None else f"{cost.normalize():f} USD"
    return f"{sent} calls ({succeeded} ok, {failed} failed), {read} + {written} tokens and {money}"


def _chunks(check: Check, run_id: str, path: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the objects of a JSON-lines file, some thousands at a time; a line that is none is a finding."""
    chunk = []
    with Path(path).open("rb", buffering=1 << 18) as lines:
        for number, line in enumerate(lines, 1):
            try:
                chunk.append(parse_line(line))
            except (ValueError, TypeError) as error:
                check.found(f"run {run_id}: {path}, line {number}, can't be read ({error}): restore it")
            if len(chunk) >= _CHUNK:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _utf8(text: object) -> str | None:
    """Return a text as tables hold it."""
    return None if text is None else str(text).encode("utf-8", "replace").decode("utf-8")
