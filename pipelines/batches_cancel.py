"""`rowbeam batches --cancel`: asks the provider to end batches early. Needs no lease: a run may be waiting for them.

Each exchange is a line of `ledger/batches/<batch_key>/operator.jsonl`, on disk before its outcome is looked at: it is
no run's, so it is in no run's audit. The ledger's cancel record is what runs see.
"""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.batches import SHORT, find_entry, ledger_of, phase_words, provider_id
from pipelines.batches_log import append_operator_line
from pipelines.summary import EXIT_CONFIG, EXIT_DONE, EXIT_REFUSED
from transforms._worker import read_key
from transforms.providers import make_batch_api, make_provider
from transforms.providers.batch_base import BatchApi
from transforms.providers.batch_client import BatchClient, HttpExchange
from transforms.providers.batch_http import BatchHttp
from transforms.records.batch import BatchState, BatchStatus
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError
from transforms.records.settings import Job
from transforms.rules.place import is_same_place
from transforms.rules.redaction import Redactor
from transforms.storage.batch_entry import BatchEntry, Cancel, Phase
from transforms.storage.batch_ledger import list_entries, record_cancel
from transforms.storage.runs import list_runs

#: Why a batch was cancelled: `Cancel.why`.
OPERATOR = "operator"
_REFUSALS = frozenset({FailureKind.AUTH, FailureKind.PERMISSION, FailureKind.QUOTA_EXHAUSTED})
_CANCELLED = frozenset({BatchStatus.CANCELLING, BatchStatus.CANCELLED})
_COLLECT = "Run the job to collect its results."
_GIVEN_UP = "It has no results any more: run the job to give its requests up."
_REST = {
    "real_time": "is asked again in real time, at its full price",
    "batch": "goes into another batch",
    "none": "becomes dead letters",
}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one batch: a word, a clause, what comes next, and the exit code it asks for."""

    word: str
    says: str
    next: str | None = None
    exit_code: int = EXIT_DONE


def cancel_batches(output: str, names: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Cancel batches at their provider.

    Args:
        output: the job's output folder.
        names: as `find_entry` takes them; all are checked before anything is sent.

    Returns:
        {"output", "cancelled": [{"key", "short_key", "batch_id", "provider", "provider_batch_id", "outcome", "says",
        "next"}]}, outcome being cancelling, ended (there was nothing left to cancel) or failed; and the exit code: 0,
        2 when one failed, 6 when the provider refuses the key.

    Raises:
        ConfigError: one of the names can't be cancelled; says why and what to do. Nothing was sent.
        InternalError: a file of the ledger is damaged.
    """
    ledger = ledger_of(output)
    entries = list_entries(ledger)
    found = {entry.key: (name, entry) for name in names for entry in (find_entry(output, entries, name),)}
    open_now = [_open_now(output, name, entry) for name, entry in found.values() if entry.phase not in _OVER]
    outcomes = {entry.key: _over(entry) for _, entry in found.values() if entry.phase in _OVER}
    if open_now:
        with _door(output, ledger, open_now) as door:
            outcomes |= {entry.key: door.cancel(entry) for entry in open_now}
    facts = [_facts(entry, outcomes[entry.key]) for _, entry in found.values()]
    codes = {outcome.exit_code for outcome in outcomes.values()}
    return {"output": output, "cancelled": facts}, max(codes)


_OVER = frozenset({Phase.ENDED, Phase.COLLECTED})


def _open_now(output: str, name: str, entry: BatchEntry) -> BatchEntry:
    """Return the batch if it is one that a provider can be asked to cancel."""
    short = entry.key[:SHORT]
    if entry.phase is Phase.STAGED:
        raise ConfigError(
            f"batch {short} is staged, not submitted: there is nothing to cancel at {entry.staged.provider_name}; "
            "stop the run that is about to send it"
        )
    if entry.handle is None:
        raise ConfigError(
            f"batch {short} is in doubt: nobody knows {entry.staged.provider_name}'s id of it; first say what became "
            f"of it: rowbeam batches {shlex.quote(output)} --resolve {short} --as absent, or --as ID"
        )
    if not entry.handle.proven and name != entry.handle.provider_batch_id:
        raise ConfigError(
            f"batch {short} was found by its time and size, and may be somebody else's; if you know it is this job's, "
            f"name it by {entry.staged.provider_name}'s id: --cancel {entry.handle.provider_batch_id}"
        )
    return entry


def _over(entry: BatchEntry) -> _Outcome:
    says = f"nothing to cancel: it is {phase_words(entry)}"
    if entry.collected is not None:
        return _Outcome("ended", f"{says}, by run {entry.collected.run_id}.")
    status = entry.ended.status if entry.ended else ""
    then = _GIVEN_UP if status == BatchStatus.GONE else _COLLECT
    return _Outcome("ended", f"{says} ({status}).", then)


@contextmanager
def _door(output: str, ledger: str, entries: Sequence[BatchEntry]) -> Iterator["_Door"]:
    """Give a way to the provider of the output's newest run, which must be that of all these batches.

    Raises:
        ConfigError: it is not, or it has no cancel, or the key is missing.
    """
    job = _newest_job(output)
    provider = make_provider(job.model, None)
    for entry in entries:
        staged = entry.staged
        if not is_same_place((staged.provider_name, staged.address), (provider.name, provider.base_url)):
            raise ConfigError(
                f"batch {entry.key[:SHORT]} is at {staged.provider_name} ({staged.address}), but the newest run of "
                f"this output asks {provider.name} ({provider.base_url}); run the job there again first, or cancel "
                f"{provider_id(entry)} at {staged.provider_name} itself"
            )
    api = make_batch_api(job.model, None, provider)
    if api is None or not api.can_cancel:
        raise ConfigError(
            f"{provider.name}'s batch API can't cancel; a batch there runs to its end: run the job to collect it"
        )
    key = read_key(provider)
    http = BatchHttp()
    try:
        yield _Door(ledger, job, api, key, http)
    finally:
        http.close()


def _newest_job(output: str) -> Job:
    runs = list_runs(output)
    if not runs:
        raise ConfigError(f"{output} holds no run whose provider could be asked; run the job again first")
    try:
        return Job.model_validate(runs[-1]["job"])
    except ValueError as error:
        raise ConfigError(
            f"the job of run {runs[-1]['run_id']} can't be read by this version; run the job again first"
        ) from error


class _Door:
    """Cancels batches, one after another."""

    def __init__(self, ledger: str, job: Job, api: BatchApi, key: str | None, http: BatchHttp) -> None:
        self._ledger = ledger
        self._job = job
        self._redactor = Redactor([key] if key else [])
        self._client = BatchClient(api, key, http, self._record)
        self._batch_key = ""

    def cancel(self, entry: BatchEntry) -> _Outcome:
        """Ask for a batch's end; where the provider does not take that, find out whether it has ended already."""
        self._batch_key = entry.key
        named, provider = provider_id(entry) or "", entry.staged.provider_name
        state = self._client.cancel(named)
        assert state is not None  # noqa: S101 - can_cancel says so
        if isinstance(state, CallError):
            error = state
            state = error if error.kind in _REFUSALS else self._client.status(named)
            if isinstance(state, CallError) or not _is_stopping(state):
                return _failed(f"{provider} did not cancel {named}", error, self._redactor)
        if _is_stopping(state) and state.status not in _CANCELLED:
            return _Outcome("ended", f"nothing left to cancel: {named} is {state.status} at {provider}.", _COLLECT)
        record_cancel(self._ledger, entry.key, entry.attempt, Cancel(OPERATOR, time.time()))
        return _Outcome("cancelling", f"{named} is {state.status} at {provider}.", self._next())

    def _next(self) -> str:
        rule = self._job.batching.retry_failed
        return (
            "What is finished is kept and charged. Run the job to collect it, unless a run is waiting for it; the rest "
            f"{_REST[rule]} (batching.retry_failed: {rule})."
        )

    def _record(self, exchange: HttpExchange) -> None:
        append_operator_line(self._ledger, self._batch_key, _line(exchange, self._redactor))


def _is_stopping(state: BatchState) -> bool:
    """Whether the batch has ended, or is about to without any cancel."""
    return state.is_terminal or state.status in (BatchStatus.CANCELLING, BatchStatus.FINALIZING)


def _failed(what: str, error: CallError, redactor: Redactor) -> _Outcome:
    is_refused = error.kind in _REFUSALS
    cure = "put the key or the account right" if is_refused else "try again"
    says = redactor.text(f"{what} ({error.kind}): {error.message.rstrip('.')}; {cure}")
    return _Outcome("failed", says, exit_code=EXIT_REFUSED if is_refused else EXIT_CONFIG)


def _line(exchange: HttpExchange, redactor: Redactor) -> dict[str, Any]:
    error = exchange.error
    line = {
        "at_s": exchange.started_at_us / 1_000_000,
        "what": exchange.what,
        "request": {name: exchange.request_summary[name] for name in ("method", "url")},
        "status": exchange.status,
        "provider_request_id": exchange.provider_request_id,
        "error": None if error is None else {"kind": str(error.kind), "message": error.message},
    }
    shown: dict[str, Any] = redactor.value(line)
    return shown


def _facts(entry: BatchEntry, outcome: _Outcome) -> dict[str, Any]:
    return {
        "key": entry.key,
        "short_key": entry.key[:SHORT],
        "batch_id": entry.staged.batch_id,
        "provider": entry.staged.provider_name,
        "provider_batch_id": provider_id(entry),
        "outcome": outcome.word,
        "says": outcome.says,
        "next": outcome.next,
    }
