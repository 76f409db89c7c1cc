"""The commands that look back: what became of a row, a run, a cent. Registered by `cli.py`.

They read an output's files, and write nothing but reports and, for `forget`, what is to be forgotten.
"""

from typing import Annotated

import typer

from pipelines.cli_options import AsJson, OutputFolder
from pipelines.screen import Screen


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (explain, report, diff, verify, forget):
        app.command()(command)


def explain(
    output: OutputFolder,
    row_id: Annotated[str, typer.Argument(metavar="ROW_ID", help="The row: its key, or its id in the audit.")],
    run_id: Annotated[str | None, typer.Option("--run", metavar="ID", help="Tell what this run made of it.")] = None,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Write the story as one page for auditors; - prints it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell one row's story, from source line to answer and cost."""
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.explain_command import explain_to_screen

        explain_to_screen(screen, output, row_id, run_id, html)


def report(
    output: OutputFolder,
    run_id: Annotated[str | None, typer.Option("--run", metavar="ID", help="The run; the latest if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's report as one HTML page, and tell what stands out."""
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.report_command import report_to_screen

        report_to_screen(screen, output, run_id)


def diff(
    output: OutputFolder,
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="A run, the beginning of its id, previous or latest.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run to compare with it.")],
    as_json: AsJson = False,
) -> None:
    """Compare two runs: rows changed, cost, answers."""
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.diff_command import diff_to_screen

        exit_code = diff_to_screen(screen, output, run_a, run_b)
    raise typer.Exit(exit_code)


def verify(
    output: OutputFolder,
    run_id: Annotated[str | None, typer.Option("--run", metavar="ID", help="Look at this run alone.")] = None,
    expect: Annotated[
        str | None,
        typer.Option(metavar="SHA256", help="The head that verify printed earlier, as you noted it elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove an output from its files alone: hashes, references, conservation, sums.

    Exit codes: 0 all holds, 3 something does not, one line each.
    """
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.verify_command import verify_to_screen

        exit_code = verify_to_screen(screen, output, run_id, expect)
    raise typer.Exit(exit_code)


def forget(
    output: OutputFolder,
    older_than: Annotated[str, typer.Option("--older-than", metavar="AGE", help="Such as 30d or 12h.")],
    answers: Annotated[
        bool, typer.Option("--answers", help="Also the answers' texts in the ledger: those rows are asked again.")
    ] = False,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters", help="Also the rows inside dead letters, which are your own data.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop the texts of old requests and replies; hashes, counts and costs stay."""
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.forget_command import forget_to_screen

        forget_to_screen(screen, output, older_than, answers=answers, dry_run=dry_run, dead_letters=dead_letters)
