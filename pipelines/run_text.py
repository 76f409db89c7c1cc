"""The end of a run on the terminal: some rows, the counts, what failed and what to do, and the next command."""

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.advice import advice
from pipelines.audit_query import AuditQuery, plain
from pipelines.budget import budget_line
from pipelines.estimate_text import estimate_line
from pipelines.plan_text import make_facts
from pipelines.summary import COLLECT_HINT
from pipelines.text import cells, duration, money, number, one_line, plural
from transforms.storage.objects import is_remote, list_files, local_copy, open_read

_SAMPLE_ROWS = 5
_TOP_FAILURES = 5
_MIN_COLUMN = 8
_MAX_ANSWER = 48


def sample_rows(folder: str, field: str, hidden: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the first few enriched rows of a run as JSON values: the input's columns, but for hidden ones, and the answer's own."""
    rows: list[dict[str, Any]] = []
    for path in list_files(folder):
        found = _first_parquet(path, field) if path.endswith(".parquet") else _first_lines(path, field)
        rows += [row for row in found if row[field] is not None]
        if len(rows) >= _SAMPLE_ROWS:
            break
    shown = [{name: value for name, value in row.items() if name not in hidden} for row in rows[:_SAMPLE_ROWS]]
    return [plain(row) for row in shown]


def find_example(output: str, run_id: str) -> str | None:
    """Return the id of a row of this run that is worth explaining: a failed one if there is any."""
    with AuditQuery(output) as audit:
        return audit.example(run_id)


def draw_run(facts: dict[str, Any], console: Console) -> None:
    """Draw the end of a run.

    Args:
        facts: {"summary", "field", "sample", "example", "output", "dry_run"}.
        console: where to.
    """
    summary = facts["summary"]
    if facts["sample"]:
        console.print(_sample_table(facts["sample"], facts["field"], console.width))
        console.print()
    console.print(_counts(summary))
    _draw_pending(summary, console)
    _draw_failures(summary, console)
    if not facts["dry_run"]:
        _draw_outputs(summary, console)
        _draw_next(facts, console)


def _first_parquet(path: str, field: str) -> list[dict[str, Any]]:
    with pq.ParquetFile(local_copy(path)) as file:
        names = file.schema_arrow.names
        columns = names[: names.index(field) + 1]
        batch = next(file.iter_batches(batch_size=4 * _SAMPLE_ROWS, columns=columns), None)
    found: list[dict[str, Any]] = [] if batch is None else batch.to_pylist()
    return found


def _first_lines(path: str, field: str) -> list[dict[str, Any]]:
    rows = []
    with open_read(path) as file:
        for line in file:
            row = orjson.loads(line)
            names = list(row)
            rows.append({name: row[name] for name in names[: names.index(field) + 1]})
            if len(rows) >= 4 * _SAMPLE_ROWS:
                break
    return rows


def _sample_table(rows: list[dict[str, Any]], field: str, width: int) -> Table:
    """Lay out the rows: the answer gets the room it needs, the input's columns share the rest."""
    texts = [{name: _cell(value) for name, value in row.items()} for row in rows]
    answer_width = min(max([len(field), *(cells(row[field]) for row in texts)]), _MAX_ANSWER, width // 2)
    names = [name for name in rows[0] if name != field]
    widths = _share(
        {name: max([len(name), *(cells(row[name]) for row in texts)]) for name in names}, width - answer_width - 2
    )
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, column_width in widths.items():
        table.add_column(one_line(name, column_width), width=column_width, no_wrap=True)
    table.add_column(Text(one_line(field, answer_width), style="bold green"), width=answer_width, no_wrap=True)
    for row in texts:
        shown = [one_line(row[name], column_width) for name, column_width in widths.items()]
        table.add_row(*shown, Text(one_line(row[field], answer_width), style="green"))
    return table


def _share(wanted: dict[str, int], room: int) -> dict[str, int]:
    """Give each column what it wants, up to an equal share of the room; the last that don't fit are left out."""
    shown = dict(list(wanted.items())[: max(1, room // (_MIN_COLUMN + 2))])
    widths: dict[str, int] = {}
    left = room - 2 * len(shown)
    for place, name in enumerate(sorted(shown, key=lambda name: shown[name])):
        widths[name] = max(1, min(shown[name], left // (len(shown) - place)))
        left -= widths[name]
    return {name: widths[name] for name in shown}


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(member)}" for name, member in value.items())
    if isinstance(value, list):
        return orjson.dumps(value, default=str).decode()
    return "" if value is None else str(value)


def _counts(summary: dict[str, Any]) -> Table:
    rows, calls, tokens = summary["rows"], summary["calls"], summary["tokens"]
    table = make_facts()
    row_text = Text(f"{number(rows['in'])} in: ")
    row_text.append(f"{number(rows['enriched'])} enriched", style="green")
    row_text.append(f", {number(rows['dead_lettered'])} dead letters", style="red" if rows["dead_lettered"] else "")
    row_text.append(f", {number(rows['pending'])} pending", style="yellow" if rows["pending"] else "")
    table.add_row("Rows", row_text)
    table.add_row(
        "Calls",
        f"{number(calls['sent'])} sent: {number(calls['succeeded'])} succeeded, {number(calls['failed'])} failed; "
        f"{plural(calls['reused'], 'request')} answered by the ledger",
    )
    if any(summary["batches"].values()):
        table.add_row("Batches", _batches(summary["batches"]))
    table.add_row("Tokens", f"{number(tokens['input'])} in, {number(tokens['output'])} out")
    table.add_row("Cost", Text(_cost(summary), style="bold"))
    if summary.get("budget"):
        table.add_row("Budget", budget_line(summary["budget"]))
    if compared := estimate_line(summary.get("estimate")):
        table.add_row("Estimate", compared)
    table.add_row("Time", duration(summary["duration_s"]))
    return table


def _cost(summary: dict[str, Any]) -> str:
    unknown = summary["calls_of_unknown_cost"]
    if not unknown:
        return money(summary["cost_usd"])
    reasons = sorted(summary["cost_reasons"], key=lambda reason: -summary["cost_reasons"][reason])
    why = f" ({reasons[0]})" if reasons else ""
    if summary["cost_usd"] is None:
        return f"unknown{why}"
    return f"at least {money(summary['cost_usd'])}: {plural(unknown, 'call')} of unknown cost{why}"


def _batches(batches: dict[str, int]) -> Text:
    words = {
        "submitted": "submitted",
        "collected": "collected",
        "left": "left for the next run",
        "not_taken": "not taken by the provider",
    }
    parts = [f"{number(batches[name])} {said}" for name, said in words.items() if batches[name]]
    return Text(", ".join(parts), style="yellow" if batches["left"] else "")


def _draw_pending(summary: dict[str, Any], console: Console) -> None:
    """Draw what rows wait for, and what to do, where batches hold them."""
    reasons = sorted(summary["pending_reasons"], key=lambda entry: -entry["requests"])
    if not reasons or not summary["batches"]["left"]:
        return
    console.print()
    console.print(Text("Pending", style="bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for entry in reasons[:_TOP_FAILURES]:
        table.add_row(f"  {plural(entry['requests'], 'request')}", Text(entry["reason"], style="yellow"))
    more = sum(entry["requests"] for entry in reasons[_TOP_FAILURES:])
    if more:
        table.add_row(f"  {plural(more, 'request')}", Text("for other reasons", style="dim"))
    console.print(table)
    kind = next((entry["kind"] for entry in reasons if entry["kind"]), None)
    todo = f"{advice(kind)[0].upper()}{advice(kind)[1:]}" if kind else COLLECT_HINT
    console.print(Text(f"  {todo}."), soft_wrap=True)


def _draw_failures(summary: dict[str, Any], console: Console) -> None:
    letters = sorted(summary["dead_letters"], key=lambda entry: -entry["rows"])
    if not letters:
        return
    console.print()
    console.print(Text("Dead letters", style="bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right")
    table.add_column(style="red", no_wrap=True)
    table.add_column(overflow="fold")
    for entry in letters[:_TOP_FAILURES]:
        table.add_row(f"  {number(entry['rows'])}", entry["kind"], advice(entry["kind"]))
    console.print(table)
    more = sum(entry["rows"] for entry in letters[_TOP_FAILURES:])
    if more:
        console.print(Text(f"  {plural(more, 'row')} of other kinds", style="dim"))


def _draw_outputs(summary: dict[str, Any], console: Console) -> None:
    console.print()
    table = make_facts()
    names = {"enriched": "Enriched", "dead_letters": "Dead letters", "audit": "Audit", "report": "Report"}
    for name, label in names.items():
        path = summary["outputs"].get(name)
        if path and (is_remote(path) or Path(path).exists()):
            table.add_row(label, Text(short_path(path)))
    if tables := summary["outputs"].get("bigquery"):
        table.add_row("BigQuery", Text(tables))
    console.print(table)


def _draw_next(facts: dict[str, Any], console: Console) -> None:
    if facts["example"] is None:
        return
    command = f"rowbeam explain {shlex.quote(short_path(facts['output']))} {shlex.quote(facts['example'])}"
    console.print()
    console.print(Text.assemble(("Next: ", "bold"), (command, "cyan")), soft_wrap=True)


def short_path(path: str) -> str:
    """Return a path relative to where the command runs, if it lies below, else as it is."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
