"""`rowbeam report`: write a run's report, and say where it is and what stands out."""

from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipelines.screen import Screen

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"serious": "bold red", "warning": "yellow", "info": "cyan"}


def report_to_screen(screen: Screen, output: str, run_id: str | None) -> None:
    """Write the report of a run (the latest, if None) and show its path and findings."""
    from pipelines.report import write_report

    screen.show(write_report(output, run_id), draw_report)


def draw_report(facts: dict[str, Any], console: "Console") -> None:
    """Draw {"run_id", "report", "findings"}."""
    for finding in facts["findings"]:
        console.print(Text.assemble((finding["title"], _STYLES.get(finding["severity"], "")), "  ", finding["detail"]))
    if not facts["findings"]:
        console.print("Nothing stands out.")
    console.print(Text.assemble("Report of run ", facts["run_id"], ": ", (facts["report"], "bold")), soft_wrap=True)
