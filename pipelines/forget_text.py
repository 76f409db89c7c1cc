"""What `rowbeam forget` dropped, on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.text import moment, number, plural, size


def draw_forgotten(facts: dict[str, Any], console: Console) -> None:
    """Draw the runs whose payloads went, those that wait, and what is left on purpose."""
    console.print(Text.assemble(("Output ", "bold"), (facts["output"], "bold cyan")))
    console.print(Text(f"Runs that ended before {moment(facts['ended_before'])} ({facts['older_than']} ago)", "dim"))
    console.print()
    if facts["runs"]:
        console.print(_table(facts["runs"], is_dry=facts["dry_run"]))
        console.print()
    console.print(_verdict(facts))
    for run in facts["waiting"]:
        console.print(Text(f"Run {run['run_id']} has to wait: {run['why']}.", "yellow"))
    for sentence in _left(facts):
        console.print(Text(sentence, "dim"))


def _table(runs: list[dict[str, Any]], *, is_dry: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("run", no_wrap=True)
    for title in ("files", "texts", "bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("" if is_dry else "record", overflow="fold")
    for run in runs:
        held = size(run["bytes_before"])
        held = held if is_dry else f"{held} to {size(run['bytes_after'])}"
        table.add_row(
            run["run_id"], number(run["files"]), number(run["dropped"]), held, Text(run["record"] or "", "dim")
        )
    return table


def _verdict(facts: dict[str, Any]) -> Text:
    newer = f" {plural(facts['newer'], 'newer run')} kept." if facts["newer"] else ""
    texts, runs = plural(facts["dropped"], "text"), plural(len(facts["runs"]), "run")
    if not facts["runs"]:
        return Text(f"Nothing to drop.{newer}")
    if facts["dry_run"]:
        return Text.assemble(f"{texts} of {runs} would go", (" (dry run: nothing was changed).", "bold"), newer)
    return Text.assemble((f"{texts} of {runs} dropped; ", "bold green"), f"their hashes and sizes stay.{newer}")


def _left(facts: dict[str, Any]) -> list[str]:
    """Say what was left on purpose, or what follows from its going."""
    said = []
    if facts["answers"]:
        said.append(
            "Answers in the ledger go too: a next run that meets these requests asks, and pays for, them again."
        )
    else:
        said.append("Answers in the ledger stay (--answers drops them): without them their rows would be asked again.")
    if facts["dead_letters"]:
        said.append("Rows in dead letters go too: they can't be replayed any more.")
    else:
        said.append("Enriched rows and dead letters are your data and stay (--dead-letters drops the rows in those).")
    return said
