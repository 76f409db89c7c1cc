"""The plan on the terminal; draws what `plan.make_plan` found."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.advice import advice
from pipelines.text import duration, money, number, plural


def draw_plan(plan: dict[str, Any], console: Console) -> None:
    """Draw the whole plan."""
    console.print(
        Text.assemble(("Plan of ", "bold"), (plan["job"], "bold cyan"), f"  {plan['provider']} {plan['model']}")
    )
    console.print()
    table = make_facts()
    rows, requests = plan["rows"], plan["requests"]
    table.add_row("Rows", _rows_text(rows))
    table.add_row("Requests", _requests_text(requests))
    table.add_row("Tokens", _tokens_text(plan["tokens"]))
    if requests["to_send"]:
        table.add_row("Real time", _real_time_text(plan))
        table.add_row("Batch", _batch_text(plan["batch"]))
        table.add_row("Goes by", _route_text(plan["route"]))
    else:
        table.add_row("Cost", Text("$0: no calls to wait for", style="bold"))
    console.print(table)
    _draw_failures(plan["failures"], console)
    if plan["warnings"]:
        console.print()
        for warning in plan["warnings"]:
            console.print(Text.assemble(("Warning: ", "yellow"), f"{warning}."))
    console.print()
    console.print(Text("Nothing was sent.", style="dim"))


def make_facts() -> Table:
    """Return a table of two columns, names and what there is to say."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _rows_text(rows: dict[str, int]) -> str:
    words = f"{number(rows['in'])} in the input"
    if rows["failed"]:
        words += f", {number(rows['asked'])} to ask about, {number(rows['failed'])} dead before any call"
    return words


def _requests_text(requests: dict[str, int]) -> str:
    words = f"{number(requests['to_send'])} to send"
    parts = []
    if requests["shared"]:
        parts.append(f"{plural(requests['shared'], 'row')} share another row's request")
    if requests["reused"]:
        parts.append(f"{number(requests['reused'])} answered already by the ledger")
    if requests["in_flight"]:
        parts.append(f"{number(requests['in_flight'])} in a batch of an earlier run")
    return f"{words} ({'; '.join(parts)})" if parts else words


def _tokens_text(tokens: dict[str, Any]) -> str:
    high = tokens["output_high"]
    out = (
        f"{number(tokens['output_low'])} to {number(high)}"
        if high is not None
        else f"{number(tokens['output_low'])} or more"
    )
    return f"{number(tokens['input'])} in, {out} out (estimate: {tokens['method']})"


def _cost_text(cost: dict[str, str | None]) -> str:
    if cost["low"] is None:
        return f"unknown: {cost['unknown']}"
    if cost["high"] is None:
        return f"{money(cost['low'])} or more: {cost['unknown']}"
    if cost["low"] == cost["high"]:
        return money(cost["low"])
    return f"{money(cost['low'])} to {money(cost['high'])}"


def _real_time_text(plan: dict[str, Any]) -> Text:
    time = plan["time"]
    low, high = duration(time["low_s"]), duration(time["high_s"])
    span = low if low == high else f"{low} to {high}"
    return Text.assemble(
        (_cost_text(plan["cost_usd"]), "bold"),
        f"\n{span} of calls, by {time['limited_by']} (if {time['assumption']})",
    )


def _batch_text(batch: dict[str, Any]) -> Text:
    if not batch["available"]:
        return Text(f"not possible: {batch['unavailable']}")
    time = batch["time"]
    return Text.assemble(
        (_cost_text(batch["cost_usd"]), "bold"),
        f"\n{plural(batch['batches'], 'batch', 'batches')} of at most {number(batch['max_requests'])} requests; "
        f"{time['says']}; given up after {duration(time['deadline_s'])} (batching.deadline)",
    )


def _route_text(route: dict[str, Any]) -> Text:
    word = "batch" if route["chosen"] == "batch" else "real time"
    return Text.assemble((word, "bold"), f": {route['why']}")


def _draw_failures(failures: list[dict[str, Any]], console: Console) -> None:
    if not failures:
        return
    console.print()
    console.print(Text("Rows that can't be asked about", style="bold"))
    for failure in failures:
        line = Text(f"  {number(failure['rows'])} {failure['kind']}", style="red")
        line.append(f"  {advice(failure['kind'])}", style="not bold default")
        console.print(line)
        for example in failure["examples"]:
            console.print(Text(f"      {example['source']}  {example['reason']}", style="dim"))
