"""The plan on the terminal; draws what `plan.make_plan` found."""

from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.advice import advice
from pipelines.text import duration, money, number, plural

#: Terminals up to this width get narrower gaps.
_NARROW = 100
#: Terminals below this width get the ways one below the other, for no amount may be cut.
_TIGHT = 64


def draw_plan(plan: dict[str, Any], console: Console) -> None:
    """Draw the whole plan: what would be sent, what it would cost each way, and what to know before deciding."""
    console.print(
        Text.assemble(("Plan of ", "bold"), (plan["job"], "bold cyan"), f"  {plan['provider']} {plan['model']}")
    )
    console.print()
    console.print(_size_table(plan))
    if plan["requests"]["to_send"]:
        console.print()
        console.print(_ways_table(plan, console.width))
        console.print()
        console.print(_decision(plan))
        if plan["budget"] is not None:
            console.print(_budget_text(plan["budget"]))
    _draw_failures(plan["failures"], console)
    if plan["warnings"]:
        console.print()
        for warning in plan["warnings"]:
            console.print(Text.assemble(("Warning: ", "yellow"), f"{warning}."))
    if plan["requests"]["to_send"]:
        _draw_assumptions(plan, console)
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


def _size_table(plan: dict[str, Any]) -> Table:
    table = make_facts()
    table.add_row("Rows", _rows_text(plan["rows"]))
    table.add_row("Requests", Text(f"{number(plan['requests']['to_send'])} to send", style="bold"))
    for label, words in _savings(plan["savings"]):
        table.add_row(label, words)
    if plan["requests"]["to_send"]:
        table.add_row("Tokens", _tokens_text(plan["tokens"]))
    else:
        table.add_row("Cost", Text("$0: no calls to wait for", style="bold"))
    return table


def _savings(savings: dict[str, dict[str, Any]]) -> list[tuple[str, Text]]:
    """Say what need not be sent, a line for each reason; only the first has the label."""
    words = {
        "shared": ("row shares another row's request", "rows share another row's request"),
        "reused": ("answered already by the ledger", "answered already by the ledger"),
        "in_flight": ("in a batch of an earlier run", "in batches of an earlier run"),
    }
    found: list[tuple[str, Text]] = []
    for name, (one, many) in words.items():
        saved = savings[name]
        if saved["requests"]:
            usd = _saved_usd(saved["usd"])
            tokens = saved["input_tokens"] + saved["output_tokens"]
            line = Text(f"{number(saved['requests'])} {one if saved['requests'] == 1 else many}: ")
            line.append(f"{usd}, {number(tokens)} tokens", style="green")
            found.append(("" if found else "Not sent", line))
    return found


def _saved_usd(usd: str | None) -> str:
    if usd is None:
        return "unknown dollars"
    return f"about {money(usd)}" if Decimal(usd) else money(usd)


def _tokens_text(tokens: dict[str, Any]) -> str:
    return f"about {number(tokens['input'])} in, {number(tokens['output_expected'])} out"


def _ways_table(plan: dict[str, Any], width: int) -> Table:
    """Lay real time and batch side by side: the way the run would go is marked."""
    is_batch, batch = plan["route"]["chosen"] == "batch", plan["batch"]
    ways = [_way("Real time", plan["cost_usd"], _span(plan["time"]), is_chosen=not is_batch)]
    if batch["available"]:
        ways.append(_way("Batch", batch["cost_usd"], _wait(batch["time"]), is_chosen=is_batch))
    names = ("expected", "at least", "at most")
    if width < _TIGHT:
        return _stacked(ways, (*names, "time"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3 if width > _NARROW else 2, 0, 0))
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("time", overflow="fold")
    for way in ways:
        table.add_row(*way)
    return table


def _stacked(ways: list[list[Text]], names: tuple[str, ...]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for title, *cells in ways:
        table.add_row(title, "")
        for name, cell in zip(names, cells, strict=True):
            table.add_row(Text(f"    {name}", style="dim"), cell)
    return table


def _way(name: str, cost: dict[str, str | None], time: str, *, is_chosen: bool) -> list[Text]:
    mark, style = ("> ", "bold") if is_chosen else ("  ", "")
    most = money(cost["high"]) if cost["high"] else _no_bound(cost)
    expected = Text(money(cost["expected"]), style="bold green" if is_chosen else "")
    return [Text(mark + name, style=style), expected, *(Text(cell) for cell in (money(cost["low"]), most, time))]


def _no_bound(cost: dict[str, str | None]) -> str:
    return "unknown" if cost["low"] is None else "no limit"


def _span(time: dict[str, Any]) -> str:
    low, high = duration(time["low_s"]), duration(time["high_s"])
    return low if low == high else f"{low} to {high}"


def _wait(time: dict[str, Any]) -> str:
    usual, most = time["usual_s"], time["at_most_s"]
    if most is None:
        return "24 h or longer"
    return f"up to {_hours(most)}" if usual is None else f"often {_hours(usual)}, up to {_hours(most)}"


def _hours(seconds: int) -> str:
    return f"{seconds // 3600} h"


def _decision(plan: dict[str, Any]) -> Text:
    """Say which way the run goes and why, and what the other way would save."""
    route, batch = plan["route"], plan["batch"]
    word = "by batch" if route["chosen"] == "batch" else "in real time"
    text = Text.assemble("Goes ", (word, "bold"), f": {route['why']}.")
    if route["chosen"] == "batch" or not batch["available"]:
        return text
    now, then = plan["cost_usd"]["expected"], batch["cost_usd"]["expected"]
    if now is None or then is None or Decimal(then) >= Decimal(now):
        return text
    share = (Decimal(now) - Decimal(then)) / Decimal(now)
    text.append(f" By batch it would cost {money(Decimal(now) - Decimal(then))} less ({share:.0%}): ")
    text.append("--set batching.mode=provider_batch_api", style="cyan")
    return text


def _budget_text(budget: dict[str, Any]) -> Text:
    """Say what is left of the budget, and whether the worst case fits into it."""
    text = Text.assemble("Budget: ", (money(budget["left_usd"]), "bold"))
    text.append(
        f" left of {money(budget['max_usd'])} ({'this run' if budget['per'] == 'run' else 'all runs together'}); "
    )
    worst = budget["worst_case_usd"]
    if worst is None:
        return text.append("worst case unknown", style="yellow")
    if budget["left_usd"] is None:
        return text.append(f"worst case {money(worst)}", style="yellow")
    fits = Decimal(worst) <= Decimal(budget["left_usd"])
    return text.append(
        f"worst case {money(worst)} {'fits' if fits else 'does not fit'}", style="green" if fits else "yellow"
    )


def _draw_assumptions(plan: dict[str, Any], console: Console) -> None:
    """Say what the numbers rest on, and what is not known."""
    tokens, time, batch = plan["tokens"], plan["time"], plan["batch"]
    table = make_facts()
    for name, cost in _other_way(plan):
        table.add_row("Unknown", Text(f"the cost {name}: {cost['unknown']}", style="yellow"))
    table.add_row("Estimate", Text(f"input {tokens['error']} ({tokens['method']}); output: {tokens['output_method']}; "
                                   "retries and repairs come on top", style="dim"))  # fmt: skip
    table.add_row("Model", Text(_model_words(plan), style="dim"))
    table.add_row("Real time", Text(f"by {time['limited_by']}, if {time['assumption']}", style="dim"))
    table.add_row("Batch", Text(_batch_words(batch), style="dim"))
    console.print()
    console.print(table)


def _model_words(plan: dict[str, Any]) -> str:
    """Say what the model manifest knows of the model, and how the longest request fits."""
    longest = f"the longest request has about {number(plan['tokens']['longest_input'])} tokens"
    entry = plan["model_entry"]
    if entry is None:
        return f"not in the model manifest, so its limits are not known; {longest}"
    if "context_tokens" not in entry:
        return f"{entry['name']}; {longest}"
    return f"{entry['name']}, {number(entry['context_tokens'])} tokens of context; {longest}"


def _other_way(plan: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the way that the run would not go, if its price is not known; a warning tells of the other one's."""
    is_batch = plan["route"]["chosen"] == "batch"
    name, cost = ("in real time", plan["cost_usd"]) if is_batch else ("by batch", plan["batch"]["cost_usd"])
    reason = cost["unknown"]
    if not plan["batch"]["available"] or cost["low"] is not None or any(reason in said for said in plan["warnings"]):
        return []
    return [(name, cost)]


def _batch_words(batch: dict[str, Any]) -> str:
    if not batch["available"]:
        return f"not possible: {batch['unavailable']}"
    time = batch["time"]
    return (
        f"{plural(batch['batches'], 'batch', 'batches')} of at most {number(batch['max_requests'])} requests; "
        f"{time['says']}; given up after {duration(time['deadline_s'])} (batching.deadline)"
    )


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
