"""`rowbeam batches --resolve`: a person says what became of a create that got no reply and that no listing settles.

Sends nothing. Takes the output's lease, so that no run reads the batch while what is known of it changes.
"""

import time
from typing import Any

from pipelines.batches import SHORT, find_entry, ledger_of, phase_words, provider_id
from pipelines.batches_log import append_operator_line
from transforms.records.errors import ConfigError
from transforms.storage.batch_claims import claims
from transforms.storage.batch_entry import BatchEntry, Handle, Intent, Void
from transforms.storage.batch_ledger import list_entries, record_handle, record_void
from transforms.storage.lease import Lease

ABSENT = "absent"
_OPERATOR = "operator"
#: Shown in place of a run id to whoever meets the lease meanwhile.
_HOLDER = "batches-resolve"
_MAX_ID = 200


def resolve_batch(output: str, name: str, verdict: str) -> dict[str, Any]:
    """Record what became of a batch in doubt.

    Args:
        output: the job's output folder.
        name: the batch, as `find_entry` takes it.
        verdict: "absent", or the provider's id of the batch.

    Returns:
        {"output", "key", "short_key", "batch_id", "provider", "provider_batch_id", "phase", "says", "next"}.

    Raises:
        ConfigError: the batch is not in doubt, or the verdict can't be right; nothing was changed.
        OutputBusyError: a run is at work.
        InternalError: a file of the ledger is damaged.
    """
    ledger = ledger_of(output)
    _check_verdict(verdict)
    with Lease(ledger, _HOLDER):
        entries = list_entries(ledger)
        entry = find_entry(output, entries, name)
        intent = _doubtful(entry)
        if verdict.lower() == ABSENT:
            says, then = _absent(ledger, entry, intent)
        else:
            _check_unclaimed(ledger, entries, entry, verdict)
            says, then = _present(ledger, entry, intent, verdict)
        after = find_entry(output, list_entries(ledger), entry.key)
    return {
        "output": output,
        "key": entry.key,
        "short_key": entry.key[:SHORT],
        "batch_id": entry.staged.batch_id,
        "provider": entry.staged.provider_name,
        "provider_batch_id": provider_id(after),
        "phase": phase_words(after),
        "says": says,
        "next": then,
    }


def _check_verdict(verdict: str) -> None:
    if not (0 < len(verdict) <= _MAX_ID and verdict.isascii() and verdict.isprintable() and " " not in verdict):
        raise ConfigError(f"--as: {verdict[:_MAX_ID]!r} is no batch id; give the provider's id of the batch, or absent")


def _doubtful(entry: BatchEntry) -> Intent:
    """Return the intent whose create is in doubt."""
    phase = phase_words(entry)
    if phase != "in doubt" or entry.intent is None:
        known = provider_id(entry)
        as_what = "" if known is None else f", and {entry.staged.provider_name} calls it {known}"
        raise ConfigError(f"batch {entry.key[:SHORT]} is not in doubt: it is {phase}{as_what}; there is nothing to say")
    return entry.intent


def _check_unclaimed(ledger: str, entries: list[BatchEntry], entry: BatchEntry, verdict: str) -> None:
    owner = next((one for one in entries if provider_id(one) == verdict), None)
    if owner is not None:
        raise ConfigError(f"--as: {verdict} is batch {owner.key[:SHORT]} already; look for another, or say absent")
    if verdict in claims(ledger, entry.key).taken:
        raise ConfigError(f"--as: {verdict} is on record as a batch that is not this one; look for another")


def _absent(ledger: str, entry: BatchEntry, intent: Intent) -> tuple[str, str]:
    now = time.time()
    append_operator_line(ledger, entry.key, {"at_s": now, "what": "resolve", "as": ABSENT})
    record_void(ledger, entry.key, intent.attempt, Void("the operator says that it was never created", _OPERATOR, now))
    says = f"on record: {entry.staged.provider_name} has no such batch."
    return says, f"The next run asks its {entry.staged.request_count:,} requests again, as if it had never been."


def _present(ledger: str, entry: BatchEntry, intent: Intent, verdict: str) -> tuple[str, str]:
    append_operator_line(ledger, entry.key, {"at_s": time.time(), "what": "resolve", "as": verdict})
    handle = Handle(verdict, entry.file_id, intent.intended_at_s, intent.run_id, proven=True)
    record_handle(ledger, entry.key, intent.attempt, handle)
    says = f"on record: it is {verdict} at {entry.staged.provider_name}."
    return says, "The next run asks for its state, and collects its results once it has ended."
