"""The command `forget`: payloads of old runs go, hashes, counts and costs stay."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.screen import Screen
from pipelines.summary import EXIT_DONE
from transforms.records.errors import ConfigError, OutputBusyError
from transforms.rules.retention import parse_age
from transforms.storage.lease import Lease
from transforms.storage.objects import is_remote
from transforms.storage.retention import RetentionRule, find_due, forget_run

#: Who holds the output meanwhile, for a run that finds it busy.
_HOLDER = "forget"


def forget_to_screen(
    screen: Screen,
    output: str,
    older_than: str,
    answers: bool = False,
    dry_run: bool = False,
    dead_letters: bool = False,
) -> int:
    """Drop the payloads of runs that ended longer ago, and show what went; return the exit code.

    Args:
        screen: where to.
        output: the job's output folder.
        older_than: an age with its unit, such as 30d.
        answers: also the answers' texts in the ledger: their rows are asked, and paid for, again.
        dry_run: change nothing, say what would go.
        dead_letters: also the rows in dead letters: they can't be replayed any more.

    Raises:
        ConfigError: the age or the output is wrong.
        OutputBusyError: a run holds the output.
        InternalError: a file is damaged.
    """
    from pipelines.forget_text import draw_forgotten

    facts = forget(output, older_than, answers=answers, dead_letters=dead_letters, dry_run=dry_run)
    screen.show(facts, draw_forgotten)
    return EXIT_DONE


def forget(output: str, older_than: str, *, answers: bool, dead_letters: bool, dry_run: bool) -> dict[str, Any]:
    """Do what `forget_to_screen` does; return facts with stable keys.

    Returns:
        JSON values: output, older_than, ended_before, answers, dead_letters, dry_run, runs [{run_id, record, files,
        dropped, bytes_before, bytes_after}], waiting [{run_id, why}], newer (runs), dropped, duration_s.
    """
    seconds = parse_age(older_than)
    if seconds is None:
        raise ConfigError(f"--older-than: {older_than!r} is no age; write a number with its unit, such as 30d, 12h, 8w")
    if is_remote(output):
        raise ConfigError(
            f"{output}: forget works on files of this machine; copy the output here, forget, and replace the bucket's files by it"
        )
    if not (Path(output) / "runs").is_dir():
        raise ConfigError(f"{output} holds no run; name the `output` folder of a job that has run")
    began, now = time.monotonic(), datetime.now(UTC)
    try:
        before = now - timedelta(seconds=seconds)
    except OverflowError as error:
        raise ConfigError(f"--older-than: {older_than} ago there was no calendar; write fewer, such as 30d") from error
    rule = RetentionRule(older_than, before, answers, dead_letters)
    if dry_run:
        due, done = _forget(output, rule, now, None)
    else:
        with Lease(str(Path(output) / "ledger"), _HOLDER) as lease:
            due, done = _forget(output, rule, now, lease)
    return {
        "output": output,
        **rule.json(),
        "dry_run": dry_run,
        "runs": done,
        "waiting": [{"run_id": run_id, "why": why} for run_id, why in due.waiting],
        "newer": due.newer,
        "dropped": sum(run["dropped"] for run in done),
        "duration_s": round(time.monotonic() - began, 3),
    }


def _forget(output: str, rule: RetentionRule, now: datetime, lease: Lease | None) -> tuple[Any, list[dict[str, Any]]]:
    due = find_due(output, rule)
    done = []
    for manifest in due.runs:
        if lease is not None and lease.lost:
            raise OutputBusyError(f"the lease on {output} was lost, and not all is dropped yet; run forget again")
        run_id = manifest["run_id"]
        facts = forget_run(output, run_id, due.requests.get(run_id, []), rule, now, write=lease is not None)
        if facts is not None:
            done.append(facts)
    return due, done
