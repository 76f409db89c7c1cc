"""The command `run`: a job run with progress on standard error and its end on standard output."""

import logging
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Literal

from pipelines.job import LoadedJob, load_job
from pipelines.job_secrets import job_secrets
from pipelines.logs import setup_logs
from pipelines.mishaps import EXIT_INTERRUPTED
from pipelines.prepare import PreparedJob
from pipelines.progress import choose_form, shown_progress
from pipelines.run import RunRequest, run_job
from pipelines.run_meter import is_local_run, is_local_runner
from pipelines.screen import Screen, leave
from pipelines.summary import EXIT_DONE, RunResult
from transforms.providers import make_provider

#: What --detach stands for; the manifest shows it like any other override.
DETACH = "batching.detach=true"
#: How often somebody who is asked is looked at, seconds.
_LOOK_S = 0.2


def run_to_screen(
    screen: Screen,
    job_path: str,
    overrides: Sequence[str],
    beam_args: Sequence[str],
    *,
    dry_run: bool,
    yes: bool,
    report: bool,
    log_level: str,
    log_format: Literal["console", "json"],
) -> int:
    """Run a job and show it; return the exit code.

    Raises:
        Exception: what `run_job` raises; screen.running tells whether answers may be in the ledger.
    """
    loaded = load_job(job_path, overrides)
    secrets = job_secrets(loaded.job)
    screen.keep_secret(secrets)
    setup_logs(log_level, log_format, secrets)
    is_local = is_local_run(beam_args)
    if is_local_runner(beam_args) and not dry_run:
        _require_key(loaded)
    form = choose_form(as_json=screen.as_json, log_format=log_format)

    with _quiet_interrupt(), shown_progress(form, is_local=is_local) as follow:

        def began(prepared: PreparedJob) -> None:
            screen.running = not dry_run
            follow(prepared.ledger)

        agree = partial(_agree, yes=yes, as_json=screen.as_json)
        result = run_job(RunRequest(loaded, beam_args, dry_run, agree, report), began)
    screen.running = False
    _show(screen, loaded, result, dry_run=dry_run)
    return result.exit_code


def _agree(gap: str, *, yes: bool, as_json: bool) -> bool:
    """Ask whether to run though the budget can't be held; where nobody can be asked, only --yes is a yes."""
    if yes or as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return yes
    sys.stderr.write(f"{gap}. Run all the same, counting only the costs that are known? [y/N]: ")
    sys.stderr.flush()
    answer = ""
    try:
        # A Ctrl-C that comes just before a read would be seen only after it: so nothing is read before it is there.
        while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
            pass
        answer = sys.stdin.readline()
    finally:
        # Neither Ctrl-C nor the end of the input ends the line.
        if not answer:
            sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def _quiet_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the run without the logs of everything it breaks; a second Ctrl-C ends the process at once."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        logging.disable(logging.CRITICAL)
        signal.signal(signal.SIGINT, lambda *_: leave(EXIT_INTERRUPTED))
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _require_key(loaded: LoadedJob) -> None:
    """Stop before anything begins when the calls of this process would lack their key. Raises ConfigError."""
    from transforms._worker import read_key

    read_key(make_provider(loaded.job.model, None))


def _show(screen: Screen, loaded: LoadedJob, result: RunResult, *, dry_run: bool) -> None:
    if screen.as_json:
        screen.print_json(result.summary)
    else:
        from pipelines.run_text import draw_run

        screen.show(_facts(loaded, result, dry_run=dry_run), draw_run)
    if result.sentence and (result.exit_code != EXIT_DONE or dry_run):
        screen.complain(result.sentence)


def _facts(loaded: LoadedJob, result: RunResult, *, dry_run: bool) -> dict[str, Any]:
    """Gather what the end of a run shows beside its summary."""
    from pipelines.run_text import find_example, sample_rows

    job, summary = loaded.job, result.summary
    return {
        "summary": summary,
        "field": job.answer.field,
        "sample": [] if dry_run else sample_rows(summary["outputs"]["enriched"], job.answer.field, job.audit.redact),
        "example": None if dry_run else find_example(job.output, summary["run_id"]),
        "output": job.output,
        "dry_run": dry_run,
    }
