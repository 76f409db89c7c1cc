"""`rowbeam batches --resolve`: a person says what became of a batch where the provider does not.

That is a create that got no reply and that no listing settles, or a batch that the provider has lost.

Sends nothing. Takes the output's lease, so that no run reads the batch while what is known of it changes.
"""

import time
from typing import Any

from pipelines.batches import SHORT, find_entry, ledger_of, phase_words, provider_id
from pipelines.batches_log import append_operator_line
from transforms.records.batch import BatchStatus
from transforms.records.errors import ConfigError
from transforms.storage.batch_claims import claims
from transforms.storage.batch_entry import LOST, BatchEntry, Ended, Handle, Intent, Phase, Void
from transforms.storage.batch_ledger import list_entries, record_ended, record_handle, record_void
from transforms.storage.lease import Lease

ABSENT = "absent"
GONE = "gone"
_OPERATOR = "operator"
#: Shown in place of a run id to whoever meets the lease meanwhile.
_HOLDER = "batches-resolve"
_MAX_ID = 200


def resolve_batch(output: str, name: str, verdict: str) -> dict[str, Any]:
    """Record what became of a batch.

    Args:
        output: the job's output folder.
        name: the batch, as `find_entry` takes it.
        verdict: of a batch in doubt: "absent", or the provider's id of it; of any that is in flight: "gone".

    Returns:
        {"output", "key", "short_key", "batch_id", "provider", "provider_batch_id", "phase", "says", "next"}.

    Raises:
        ConfigError: there is no doubt about the batch, or the verdict can't be right; nothing was changed.
        OutputBusyError: a run is at work.
        InternalError: a file of the ledger is damaged.
    """
    ledger = ledger_of(output)
    _check_verdict(verdict)
    with Lease(ledger, _HOLDER):
        entries = list_entries(ledger)
        entry = find_entry(output, entries, name)
        says, then = _resolve(ledger, entries, entry, verdict)
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


def _resolve(ledger: str, entries: list[BatchEntry], entry: BatchEntry, verdict: str) -> tuple[str, str]:
    if verdict.lower() == GONE:
        return _gone(ledger, entry)
    intent = _doubtful(entry)
    if verdict.lower() == ABSENT:
        return _absent(ledger, entry, intent)
    _check_unclaimed(ledger, entries, entry, verdict)
    return _present(ledger, entry, intent, verdict)


def _check_verdict(verdict: str) -> None:
    if not (0 < len(verdict) <= _MAX_ID and verdict.isascii() and verdict.isprintable() and " " not in verdict):
        raise ConfigError(
            f"--as: {verdict[:_MAX_ID]!r} is no batch id; give the provider's id of the batch, absent or gone"
        )


def _doubtful(entry: BatchEntry) -> Intent:
    """Return the intent whose create is in doubt."""
    phase = phase_words(entry)
    if phase != "in doubt" or entry.intent is None:
        known = provider_id(entry)
        as_what = "" if known is None else f", and {entry.staged.provider_name} calls it {known}"
        then = "if it is lost there, say --as gone" if entry.is_in_flight else "there is nothing to say"
        raise ConfigError(f"batch {entry.key[:SHORT]} is not in doubt: it is {phase}{as_what}; {then}")
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


def _gone(ledger: str, entry: BatchEntry) -> tuple[str, str]:
    """Record that a batch is lost: as its end, or, where it has no id or another end, as an attempt that came to nothing."""
    if not entry.is_in_flight:
        raise ConfigError(
            f"batch {entry.key[:SHORT]} can't be gone: it is {phase_words(entry)}, so {entry.staged.provider_name} "
            "holds nothing that is missed"
        )
    if entry.ended is not None and entry.ended.status is BatchStatus.GONE:
        raise ConfigError(f"batch {entry.key[:SHORT]} is on record as gone already; run the job")
    now = time.time()
    append_operator_line(ledger, entry.key, {"at_s": now, "what": "resolve", "as": GONE})
    count = f"{entry.staged.request_count:,}"
    says = f"on record: {entry.staged.provider_name} has lost it."
    if entry.phase is Phase.SUBMITTED:
        ended = Ended(BatchStatus.GONE, _OPERATOR, None, None, None, None, None, None, now)
        record_ended(ledger, entry.key, entry.attempt, ended)
        return says, (
            f"The next run gives its {count} requests up (results_gone); the one after that asks them again, and they "
            "are paid for again."
        )
    record_void(ledger, entry.key, entry.attempt, Void("the operator says that it is lost", LOST, now))
    return says, f"The next run asks its {count} requests again, and they are paid for again."


def _present(ledger: str, entry: BatchEntry, intent: Intent, verdict: str) -> tuple[str, str]:
    append_operator_line(ledger, entry.key, {"at_s": time.time(), "what": "resolve", "as": verdict})
    handle = Handle(verdict, entry.file_id, intent.intended_at_s, intent.run_id, proven=True)
    record_handle(ledger, entry.key, intent.attempt, handle)
    says = f"on record: it is {verdict} at {entry.staged.provider_name}."
    return says, "The next run asks for its state, and collects its results once it has ended."
