"""What was checked, on the terminal; draws what `check.check_job` found."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_MARKS = {True: Text("ok", style="green"), False: Text("wrong", style="bold red"), None: Text("note", style="yellow")}


def draw_check(facts: dict[str, Any], console: Console) -> None:
    """Draw each finding on its line, and the verdict."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for entry in facts["checks"]:
        table.add_row(_MARKS[entry["ok"]], entry["name"], Text(entry["says"]))
    console.print(table)
    console.print()
    if facts["ok"]:
        console.print(Text.assemble(("The job can run.", "bold green")))
    else:
        console.print(Text.assemble(("The job can't run.", "bold red"), " Put right what is wrong above."))
