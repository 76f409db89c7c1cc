"""An output's state on the terminal; draws what `status.read_status` found."""

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.budget import budget_line
from pipelines.estimate_text import estimate_line
from pipelines.plan_text import make_facts
from pipelines.text import duration, moment, money, number, one_line, plural, size

_STYLES = {"done": "green", "running": "cyan", "pending": "yellow", "killed": "red", "crashed": "red", "broken": "red"}
_WORDS = {"too_many_dead_letters": "dead letters", "incomplete_input": "damaged input"}
_BATCH_STYLES = {"submitted": "cyan", "in doubt": "bold red"}
_SHOWN_RUNS = 20
_SHOWN_BATCHES = 10
_ALL = ("rows", "enriched", "dead", "pending", "calls", "cost", "time")
_NARROW = ("rows", "enriched", "dead", "cost")
#: Terminals below this width get the _NARROW columns.
_WIDE = 105
#: Terminals below this width get the cost alone, uncut, and run ids on two lines where they must.
_TIGHT = 80


def draw_status(status: dict[str, Any], console: Console) -> None:
    """Draw the whole state."""
    console.print(
        Text.assemble(("Output ", "bold"), (status["output"], "bold cyan"), f"  {status['job'] or 'no run yet'}")
    )
    console.print()
    facts = make_facts()
    facts.add_row("Held by", _lease_text(status["lease"]))
    facts.add_row("Waiting", _pending_text(status["pending_rows"]))
    ledger = status["ledger"]
    facts.add_row(
        "Ledger",
        f"{plural(ledger['settled_requests'], 'settled request')} in {plural(ledger['segments'], 'segment')}, "
        f"{size(ledger['bytes'])}",
    )
    if status["budget"]:
        facts.add_row("Budget", budget_line(status["budget"]))
    if status["batches"]:
        facts.add_row("Batches", _batches_text(status["batches"]))
    if compared := estimate_line(status["estimate"]):
        facts.add_row("Estimate", compared)
    console.print(facts)
    if status["batches"]:
        console.print()
        console.print(_batches_table(status["batches"], console.width))
    if status["runs"]:
        console.print()
        console.print(_runs_table(status["runs"][-_SHOWN_RUNS:], console.width))
        hidden = len(status["runs"]) - _SHOWN_RUNS
        if hidden > 0:
            console.print(Text(f"{plural(hidden, 'older run')} not shown (all with --json).", style="dim"))


def _lease_text(lease: dict[str, Any] | None) -> str:
    if lease is None:
        return "nobody"
    if not lease["alive"]:
        return f"nobody: run {lease['run_id']} left its lease behind, and the next run takes over"
    since = moment(lease["since"])
    return f"run {lease['run_id']} (process {lease['pid']} on {lease['host']}) since {since}"


def _pending_text(pending: int | None) -> str:
    if pending is None:
        return "unknown: no run has come to its end"
    return f"{plural(pending, 'row')}: run the job again" if pending else "nothing"


def _batches_text(batches: list[dict[str, Any]]) -> str:
    phases = Counter(batch["phase"] for batch in batches)
    return f"{plural(len(batches), 'open batch', 'open batches')}: " + ", ".join(
        f"{number(count)} {phase}" for phase, count in phases.items()
    )


def _batches_table(batches: list[dict[str, Any]], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("batch", "where", "requests", "submitted", "at the provider"):
        table.add_column(name, justify="right" if name == "requests" else "left", no_wrap=True)
    for batch in batches[-_SHOWN_BATCHES:]:
        place = batch["provider_batch_id"] or "-"
        room = max(12, width - 64)
        table.add_row(
            batch["short_key"], Text(batch["phase"], _BATCH_STYLES.get(batch["phase"], "yellow")),
            number(batch["requests"]), moment(batch["submitted_at"]), one_line(place, room),
        )  # fmt: skip
    if len(batches) > _SHOWN_BATCHES:
        table.add_row(Text(f"and {number(len(batches) - _SHOWN_BATCHES)} older", style="dim"))
    return table


def _runs_table(runs: list[dict[str, Any]], width: int) -> Table:
    columns = ("cost",) if width < _TIGHT else _NARROW if width < _WIDE else _ALL
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold", no_wrap=width >= _TIGHT)
    table.add_column("status", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        status = Text(_WORDS.get(run["status"], run["status"]), style=_STYLES.get(run["status"], "yellow"))
        facts = _facts(run)
        table.add_row(run["run_id"], status, *(facts[name] for name in columns))
    return table


def _facts(run: dict[str, Any]) -> dict[str, str]:
    rows, calls = run["rows"] or {}, run["calls"] or {}
    return {
        "rows": number(rows.get("in")),
        "enriched": number(rows.get("enriched")),
        "dead": number(rows.get("dead_lettered")),
        "pending": number(rows.get("pending")),
        "calls": number(calls.get("sent")),
        "cost": "-" if run["calls"] is None else money(run["cost_usd"]),
        "time": duration(run["duration_s"]),
    }
