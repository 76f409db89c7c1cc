"""Two runs side by side on the terminal; draws what `diff.diff_runs` found."""

from collections.abc import Iterator
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.diff import cost_change
from pipelines.text import duration, money, number, one_line, plural
from transforms.rules.findings import percent

_OUTCOMES = {"enriched": "enriched", "dead_lettered": "dead letter", "pending": "pending"}
_STYLES = {"enriched": "green", "dead_lettered": "red", "pending": "yellow"}
_SHOWN_VALUES = 8
_SHOWN_CHANGES = 10
_SHOWN_IDS = 6
_BAR_CELLS = 14


def draw_diff(diff: dict[str, Any], console: Console) -> None:
    """Draw the whole comparison."""
    console.print(Text.assemble(("Output ", "bold"), (diff["output"], "bold cyan"), f"  {diff['b']['job_name']}"))
    console.print()
    console.print(_sides(diff["a"], diff["b"]))
    _draw_job_changes(diff["changes"], console)
    _draw_rows(diff, console)
    _draw_changed(diff, console)
    _draw_distributions(diff["answers"], console)


def _sides(a: dict[str, Any], b: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column(f"A  {a['run_id']}", justify="right", no_wrap=True)
    table.add_column(f"B  {b['run_id']}", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, style="dim")
    for name, old, new, change in _side_rows(a, b):
        table.add_row(Text(name, style="dim"), old, Text(new, style="" if old == new else "bold"), change)
    return table


def _side_rows(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    yield "status", a["status"], b["status"], ""
    yield "model", a["model"], b["model"], ""
    for name, words in (
        ("in", "rows"),
        ("enriched", "enriched"),
        ("dead_lettered", "dead letters"),
        ("pending", "pending"),
    ):
        yield words, *_numbers(a["rows"][name], b["rows"][name])
    yield "calls", *_numbers(a["calls"]["sent"], b["calls"]["sent"])
    yield "reused", *_numbers(a["calls"]["reused"], b["calls"]["reused"])
    for name in ("input", "output"):
        yield f"tokens {'in' if name == 'input' else 'out'}", *_numbers(a["tokens"][name], b["tokens"][name])
    yield "cost", _cost(a), _cost(b), _dearer(a["cost_usd"], b["cost_usd"])
    old, new = a["cost_per_1000_rows_usd"], b["cost_per_1000_rows_usd"]
    yield "per 1,000 rows", _per_row(old), _per_row(new), _dearer(old, new)
    yield "time", duration(a["duration_s"]), duration(b["duration_s"]), ""
    yield "template", _hash(a["template_hash"]), _hash(b["template_hash"]), _same(a, b, "template_hash")
    if a["lookup_hash"] or b["lookup_hash"]:
        yield "lookup", _hash(a["lookup_hash"]), _hash(b["lookup_hash"]), _same(a, b, "lookup_hash")


def _numbers(old: int | None, new: int | None) -> tuple[str, str, str]:
    change = "" if old is None or new is None or old == new else f"{new - old:+,}"
    return number(old), number(new), change


def _cost(side: dict[str, Any]) -> str:
    shown = money(side["cost_usd"])
    return f"at least {shown}" if side["unknown_calls"] and side["cost_usd"] is not None else shown


def _per_row(usd: str | None) -> str:
    return "-" if usd is None else money(usd)


def _dearer(a: str | None, b: str | None) -> str:
    change = cost_change(a, b)
    if change is None or not round(change, 3):
        return ""
    return f"{'+' if change > 0 else '-'}{percent(abs(change))}"


def _hash(digest: str | None) -> str:
    return "-" if digest is None else digest[:12]


def _same(a: dict[str, Any], b: dict[str, Any], key: str) -> str:
    if a[key] is None or b[key] is None:
        return ""
    return "the same" if a[key] == b[key] else "changed"


def _draw_job_changes(changes: list[dict[str, Any]], console: Console) -> None:
    if not changes:
        return
    console.print()
    console.print(Text("The job changed", style="bold"))
    for change in changes[:_SHOWN_CHANGES]:
        room = max(16, (console.width - len(change["key"]) - 8) // 2)
        line = Text(f"  {change['key']}  ")
        old, new = (_shown(change[side]) for side in ("before", "now"))
        if max(len(old), len(new)) > room:
            line.append("see --json", style="dim")
        else:
            line.append(one_line(old, room), style="dim").append(" -> ").append(one_line(new, room))
        console.print(line)
    if len(changes) > _SHOWN_CHANGES:
        console.print(Text(f"  and {plural(len(changes) - _SHOWN_CHANGES, 'more')} (with --json)", style="dim"))


def _draw_rows(diff: dict[str, Any], console: Console) -> None:
    rows = diff["rows"]
    console.print()
    answered = rows["changed"] + rows["unchanged"]
    console.print(Text("Rows", style="bold"))
    words = f"  {number(rows['in_both'])} in both runs"
    if answered:
        words += f"; {number(answered)} answered in both, {number(rows['changed'])} of them otherwise in B"
        words += f" ({percent(rows['changed'] / answered)})"
    console.print(Text(words))
    for side in ("a", "b"):
        only = diff[f"only_in_{side}"]
        if rows[f"only_in_{side}"]:
            ids = _ids([row["row_id"] for row in only], rows[f"only_in_{side}"], console.width - 30)
            console.print(Text.assemble(f"  {number(rows[f'only_in_{side}'])} only in {side.upper()}: ", (ids, "dim")))
    for each in diff["outcomes"]:
        console.print(_outcome_line(each, console.width))


def _outcome_line(each: dict[str, Any], width: int) -> Text:
    line = Text(f"  {number(each['rows'])} ")
    line.append(_OUTCOMES[each["before"]], style=_STYLES[each["before"]]).append(" -> ")
    line.append(_OUTCOMES[each["now"]], style=_STYLES[each["now"]])
    if each["kind"]:
        line.append(f" ({each['kind']})")
    return line.append(f"  {_ids(each['examples'], each['rows'], max(20, width - len(line.plain) - 2))}", style="dim")


def _draw_changed(diff: dict[str, Any], console: Console) -> None:
    changed = diff["changed"]
    if not changed:
        return
    console.print()
    total = diff["rows"]["changed"]
    shown = "" if total == len(changed) else f", the first {len(changed)} of {number(total)} (more with --json)"
    console.print(Text.assemble(("Answers that changed", "bold"), (shown, "dim")))
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 2))
    widest = min(max(len(row["row_id"]) for row in changed), max(12, console.width // 4))
    for row in changed:
        room = max(20, console.width - widest - 8)
        table.add_row(Text(one_line(row["row_id"], widest)), _moved(row["before"], row["now"], room))
    console.print(table)


def _moved(before: Any, now: Any, room: int) -> Text:
    """Return what changed in an answer: of an object only the members that did."""
    pairs = list(_differences(before, now, ""))
    parts: list[Text] = []
    each_room = max(10, (room // max(1, min(len(pairs), 2)) - 20) // 2)
    for path, old, new in pairs:
        part = Text(f"{path} " if path else "", style="dim")
        part.append(one_line(_shown(old), each_room)).append(" -> ", style="dim")
        parts.append(part.append(one_line(_shown(new), each_room), style="bold"))
    return Text(", ").join(parts)


def _differences(before: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(name), now.get(name), f"{path}.{name}" if path else name)
    elif before != now:
        yield path, before, now


def _draw_distributions(answers: list[dict[str, Any]], console: Console) -> None:
    for field in answers:
        drawn = _category_table(field) if field["values"] else _summary_table(field)
        if drawn is None:
            continue
        console.print()
        moved = field["moved"]
        note = f"  {percent(moved)} of the answers moved" if moved else "  unmoved" if moved == 0 else ""
        console.print(Text.assemble((field["field"], "bold"), (note, "dim")))
        console.print(drawn)


def _category_table(field: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 2))
    table.add_column("value", overflow="ellipsis", max_width=40)
    for side in ("A", "", "B", " "):
        table.add_column(side, justify="left" if side.strip() == "" else "right", no_wrap=True)
    for value in field["values"][:_SHOWN_VALUES]:
        table.add_row(
            one_line(value["value"], 40),
            *_bar(value["before"], value["before_share"], "dim"),
            *_bar(value["now"], value["now_share"], "cyan"),
        )
    hidden = len(field["values"]) - _SHOWN_VALUES
    if hidden > 0:
        table.add_row(Text(f"and {hidden} more with --json", style="dim"))
    return table


def _bar(count: int, share: float | None, style: str) -> tuple[Text, Text]:
    if share is None:
        return Text("-"), Text("")
    filled = round(share * _BAR_CELLS)
    return Text(f"{number(count)}  {percent(share):>6}"), Text("█" * filled + "·" * (_BAR_CELLS - filled), style=style)


def _summary_table(field: dict[str, Any]) -> Table | None:
    part = "stats" if field["kind"] == "number" else "length"
    sides = [(name, side[part]) for name, side in (("A", field["before"]), ("B", field["now"])) if side and side[part]]
    if not sides:
        return None
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 2))
    table.add_column("length" if part == "length" else "")
    for name in sides[0][1]:
        table.add_column({"p50": "median"}.get(name, name), justify="right")
    for side, numbers in sides:
        table.add_row(
            side, *(f"{value:,.4g}" if isinstance(value, float) else number(value) for value in numbers.values())
        )
    return table


def _ids(ids: list[str], total: int, width: int) -> str:
    shown = ", ".join(ids[:_SHOWN_IDS])
    return one_line(shown + (", ..." if total > _SHOWN_IDS else ""), max(10, width))


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
