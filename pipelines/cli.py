"""The command line `rowbeam` (DESIGN section 6): arguments in, one function of another module each, an exit code out.

Imports nothing heavy before a command runs, and Beam only for `run`.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines import cli_audit
from pipelines.cli_options import AsJson, JobFile, OutputFolder, Overrides
from pipelines.screen import Screen

app = typer.Typer(
    name="rowbeam",
    help="Run an LLM over every row of a table: no row lost, nothing paid twice, every answer explained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would triple the time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)

LogLevel = Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What to log on standard error.")]
LogFormat = Annotated[Literal["console", "json"], typer.Option(help="How log lines look.")]


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="rowbeam")


def _print_version(asked: bool) -> None:
    if asked:
        from transforms.storage.runs import versions

        typer.echo(f"rowbeam {versions()['rowbeam'] or 'from source'}")
        raise typer.Exit


@app.callback()
def _rowbeam(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    job: JobFile,
    beam_options: Annotated[
        list[str] | None, typer.Argument(metavar="[-- BEAM OPTIONS]", help="Options of Beam, after a lone --.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything but the calls, and keep nothing.")] = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Submit batches, collect those that are done, and exit 5 if others are not."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run without asking, also where the budget can't be held for lack of a price.")
    ] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write the run's report.html.")] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
    log_level: LogLevel = "warning",
    log_format: LogFormat = "console",
) -> None:
    """Run a job: ask the model about every row, write the answers.

    Prints some rows, the counts, what failed and why, and where the files are; with --json the summary as one line.
    Exit codes: 0 done, 1 too many dead letters, 2 the job or command line is wrong, 3 internal, 4 the budget has no
    room, 5 rows pending, 6 the provider refused.
    """
    options = beam_options or []
    if options and not options[0].startswith("-"):
        raise typer.BadParameter(f"unexpected argument {options[0]!r}; Beam's options come after a lone --")
    screen = Screen(as_json=as_json, debug=log_level == "debug")
    with screen.guard():
        from pipelines.run_command import DETACH, run_to_screen

        settings = [*(overrides or []), *([DETACH] if detach else [])]
        exit_code = run_to_screen(
            screen, job, settings, options, dry_run=dry_run, yes=yes, report=report, log_level=log_level,
            log_format=log_format,
        )  # fmt: skip
    raise typer.Exit(exit_code)


@app.command()
def plan(job: JobFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what a run would send and cost; sends nothing."""
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.job import load_job
        from pipelines.plan import make_plan
        from pipelines.plan_text import draw_plan
        from pipelines.prepare import prepare

        screen.show(make_plan(prepare(load_job(job, overrides or []), "plan")), draw_plan)


@app.command()
def check(job: JobFile, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a job, its input, the key and the provider.

    Makes one free request (the models list). Exit codes: 0 all is well, 2 something is wrong, 6 the key is refused.
    """
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.check import check_job
        from pipelines.check_text import draw_check
        from pipelines.job import load_job
        from pipelines.job_secrets import job_secrets
        from pipelines.prepare import prepare

        loaded = load_job(job, overrides or [])
        screen.keep_secret(job_secrets(loaded.job))
        facts, exit_code = check_job(prepare(loaded, "check"))
        screen.show(facts, draw_check)
    raise typer.Exit(exit_code)


@app.command()
def models(
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="Only this provider's models.")] = None,
    job: Annotated[
        str | None, typer.Option(metavar="JOB", help="Mark this job's model; its manifest file counts too.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List the models that are known: limits, abilities, prices, and when they end. Sends nothing."""
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.models_command import models_to_screen

        models_to_screen(screen, provider, job, overrides or [])


@app.command()
def status(output: OutputFolder, as_json: AsJson = False) -> None:
    """Show an output's runs, who holds it, and what waits."""
    screen = Screen(as_json=as_json)
    with screen.guard():
        from datetime import UTC, datetime

        from pipelines.status import read_status
        from pipelines.status_text import draw_status

        screen.show(read_status(output, datetime.now(UTC)), draw_status)


cli_audit.register(app)


@app.command()
def batches(
    output: OutputFolder,
    cancel: Annotated[
        list[str] | None,
        typer.Option("--cancel", metavar="ID", help="Cancel this batch at its provider; may be repeated."),
    ] = None,
    resolve: Annotated[
        str | None, typer.Option("--resolve", metavar="KEY", help="Say what became of this batch, in doubt or lost.")
    ] = None,
    verdict: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="absent|ID|gone", help="With --resolve: it never was, or its provider's id, or it is lost."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the batches at providers; cancel some.

    ID and KEY are a batch's key or the beginning of it, its batch id, or the provider's id of it.
    What a cancelled batch has finished is kept and charged. Listing and --resolve send nothing.
    Exit codes: 0 done, 2 it can't be done, as the line says, 6 the provider refused the key.
    """
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.batches_command import batches_to_screen

        exit_code = batches_to_screen(screen, output, cancel or [], resolve, verdict)
    raise typer.Exit(exit_code)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 lets the system choose.")] = 8400,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    latency: Annotated[float, typer.Option(min=0, help="Seconds every answer takes.")] = 0.2,
    jitter: Annotated[float, typer.Option(min=0, help="Seconds added at most.")] = 0.1,
    faults: Annotated[
        str, typer.Option(help="What goes wrong: a YAML or JSON file, or rate_limit=0.05,reset=0.01,storm=2s-5s.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Changes all answers and faults.")] = 0,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Limit per provider and model.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Limit per provider and model.")] = None,
    bill: Annotated[
        Path | None, typer.Option(help="Append every request accepted for payment to this JSONL file.")
    ] = None,
    batch_validating: Annotated[float, typer.Option(min=0, help="Seconds a batch is validated.")] = 0.05,
    batch_queue: Annotated[float, typer.Option(min=0, help="Seconds a batch waits before its first row.")] = 0.05,
    batch_duration: Annotated[float, typer.Option(min=0, help="Seconds the rows of a batch take together.")] = 0.5,
    batch_window: Annotated[
        float | None, typer.Option(min=0, help="Seconds until a batch expires; 24 hours if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a rehearsal provider on this machine, free of charge.

    Speaks OpenAI, Azure, Anthropic and OpenRouter over real HTTP, with a bill, rate limits and faults on demand.
    """
    screen = Screen(as_json=as_json)
    with screen.guard():
        from pipelines.sandbox.batch_clock import BatchTiming
        from pipelines.sandbox.faults import load_plan
        from pipelines.sandbox.server import SandboxSettings
        from pipelines.sandbox.server import run as serve
        from transforms.records.errors import ConfigError

        try:
            settings = SandboxSettings(
                port=port,
                host=host,
                latency_s=latency,
                jitter_s=jitter,
                faults=load_plan(faults),
                seed=seed,
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
                bill_path=bill,
                batch=BatchTiming(batch_validating, batch_queue, batch_duration, batch_window),
            )
            serve(settings, as_json=as_json)
        except (ValueError, OSError) as error:
            raise ConfigError(str(error)) from error


if __name__ == "__main__":
    main()
