"""The figures as a table on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Figure, Outcome

_STYLES = {"met": "green", "missed": "red", "unmeasured": "yellow"}
_MIN_WIDTH = 120


def print_outcomes(outcomes: Sequence[Outcome], machine: str) -> None:
    """Print all figures, one table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_MIN_WIDTH)
    table = Table(title=f"Rowbeam's numbers ({machine})", title_justify="left")
    for heading in ("what", "measured", "target", "", "note"):
        table.add_column(heading, justify="right" if heading in ("measured", "target") else "left")
    for outcome in outcomes:
        table.add_section()
        for figure in outcome.figures:
            style = _STYLES.get(figure.verdict, "")
            verdict = f"[{style}]{figure.verdict}[/{style}]" if style else ""
            table.add_row(figure.name, _number(figure.value, figure.unit), _target(figure), verdict, figure.note)
    console.print(table)


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = "≥" if figure.bound == "at least" else "≤"
    return f"{sign} {_number(figure.target, figure.unit)}"


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "ratio":
        return f"{value:.0%}"
    digits = 0 if abs(value) >= 100 or unit == "requests" else 2
    return f"{value:,.{digits}f} {unit}"
