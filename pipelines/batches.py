"""The provider batches of an output, as its ledger has them. Reads files only: sends nothing and takes no lease.

A run may be at work meanwhile; every file of the ledger is whole or absent, so what is shown was true a moment ago.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from transforms.records.errors import ConfigError
from transforms.storage.batch_entry import ABANDONED, BatchEntry, Phase
from transforms.storage.batch_ledger import list_entries
from transforms.storage.objects import join, list_folders
from transforms.storage.runs import list_runs

#: Characters of a batch's key that people see and give.
SHORT = 12
_SHORTEST_PREFIX = 4
_GIVEN_UP = "given up"


def read_batches(output: str) -> dict[str, Any]:
    """Return all provider batches of an output, oldest first, as JSON values with stable keys.

    Keys: output, job, phases (how many batches are in each phase that occurs), batches. Of each batch: key, short_key,
    batch_id, provider, address, model, provider_batch_id, proven (False: found by time and count, its results will
    tell), phase (staged, in doubt, submitted, ended, collected, given up), status and provider_status (how it ended,
    in our word and the provider's), requests, staged_at, staged_by, submitted_at, submitted_by, cancel_asked_at,
    cancel_why, ended_at, succeeded, failed (with those missing), missing, closed_at, closed_by, not_taken (creates
    that came to nothing: kind, reason, at), to_do. Times are UTC, `_by` are run ids; what is not so yet is null.

    Args:
        output: the job's output folder.

    Raises:
        ConfigError: there is no output.
        InternalError: a file of the ledger is damaged.
    """
    entries = list_entries(ledger_of(output))
    runs = list_runs(output)
    batches = [_batch(output, entry) for entry in entries]
    return {
        "output": output,
        "job": runs[-1]["job_name"] if runs else None,
        "phases": dict(Counter(batch["phase"] for batch in batches)),
        "batches": batches,
    }


def ledger_of(output: str) -> str:
    """Return the ledger's folder. Raises ConfigError when there is no output."""
    if not {"ledger", "runs"} & set(list_folders(output)):
        raise ConfigError(f"{output} is not the output of a job: it has no runs and no ledger; name the job's `output`")
    return join(output, "ledger")


def find_entry(output: str, entries: Sequence[BatchEntry], name: str) -> BatchEntry:
    """Return the batch that a person means.

    Args:
        output: for the error's sentence.
        entries: the batches.
        name: its batch id, the provider's id of it, its key, or the beginning of its key (4 characters or more).

    Raises:
        ConfigError: no batch, or more than one, goes by that name.
    """
    found = [entry for entry in entries if name in (entry.key, entry.staged.batch_id, provider_id(entry))]
    if not found and len(name) >= _SHORTEST_PREFIX:
        found = [entry for entry in entries if entry.key.startswith(name)]
    if not found:
        raise ConfigError(f"no batch goes by {name!r}; see: rowbeam batches {shlex.quote(output)}")
    if len(found) > 1:
        keys = ", ".join(entry.key[: len(name) + SHORT] for entry in found[:5])
        raise ConfigError(f"{len(found)} batches go by {name!r} ({keys}); give more of the key")
    return found[0]


def provider_id(entry: BatchEntry) -> str | None:
    """Return what the provider calls the batch, as far as that is known."""
    return None if entry.handle is None else entry.handle.provider_batch_id


def phase_words(entry: BatchEntry) -> str:
    """Return where the batch is, for people."""
    if entry.collected is not None and entry.collected.status == ABANDONED:
        return _GIVEN_UP
    return entry.phase.replace("_", " ")


def _batch(output: str, entry: BatchEntry) -> dict[str, Any]:
    staged, handle, ended, cancel, closed = entry.staged, entry.handle, entry.ended, entry.cancel, entry.collected
    counts = None if closed is None or closed.status == ABANDONED else closed
    return {
        "key": entry.key,
        "short_key": entry.key[:SHORT],
        "batch_id": staged.batch_id,
        "provider": staged.provider_name,
        "address": staged.address or None,
        "model": staged.request_model,
        "provider_batch_id": provider_id(entry),
        "proven": handle and handle.proven,
        "phase": phase_words(entry),
        "status": ended and str(ended.status),
        "provider_status": ended and ended.raw_status,
        "requests": staged.request_count,
        "staged_at": _iso(staged.staged_at_s),
        "staged_by": staged.run_id,
        "submitted_at": handle and _iso(handle.submitted_at_s),
        "submitted_by": handle and _sender(entry),
        "cancel_asked_at": cancel and _iso(cancel.at_s),
        "cancel_why": cancel and cancel.why,
        "ended_at": ended and _iso(ended.ended_at_s),
        "succeeded": counts and counts.succeeded,
        "failed": counts and counts.failed,
        "missing": counts and counts.missing,
        "closed_at": closed and _iso(closed.at_s),
        "closed_by": closed and closed.run_id,
        "not_taken": [{"kind": void.kind, "reason": void.reason, "at": _iso(void.at_s)} for void in entry.voids],
        "to_do": _to_do(output, entry),
    }


def _sender(entry: BatchEntry) -> str | None:
    """Return the run that sent the create; a later one may have found the batch."""
    if entry.intent is not None:
        return entry.intent.run_id
    return None if entry.handle is None else entry.handle.run_id


def _to_do(output: str, entry: BatchEntry) -> str | None:
    provider = entry.staged.provider_name
    if entry.phase is Phase.STAGED:
        return "run the job again: what it asks was not sent"
    if entry.phase is Phase.IN_DOUBT:
        command = f"rowbeam batches {shlex.quote(output)} --resolve {entry.key[:SHORT]}"
        return (
            f"its create got no reply, so nobody knows whether {provider} has it; run the job again: it looks in "
            f"{provider}'s list; or look there yourself and say: {command} --as absent, or --as ID, with {provider}'s "
            f"id of it"
        )
    if entry.phase is Phase.SUBMITTED:
        return f"run the job: it collects the batch once {provider} has ended it"
    return "run the job: it collects the results" if entry.phase is Phase.ENDED else None


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
