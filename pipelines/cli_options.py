"""Arguments and options that several commands share."""

from typing import Annotated

import typer

JobFile = Annotated[str, typer.Argument(metavar="JOB", help="The job file (YAML).")]
OutputFolder = Annotated[str, typer.Argument(metavar="OUTPUT", help="The job's output folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the job; may be repeated."),
]
