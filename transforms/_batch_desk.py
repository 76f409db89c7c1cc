"""What the batch stages of one process share: the client, and the record of every exchange with the batch API.

Exchanges are numbered inside their batch and are in the ledger before the step that made them returns (P4).
"""

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count

import orjson

from transforms import _worker
from transforms.providers import make_batch_api
from transforms.providers.batch_base import BatchApi, CreateFacts
from transforms.providers.batch_client import BatchClient, HttpExchange
from transforms.providers.session import Stop
from transforms.records.batch import BatchRef
from transforms.records.call import BatchEnded, BatchOpened, CallRecord, CallStatus, CallType, CostSource
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind
from transforms.records.run import CallSettings
from transforms.rules.call_record import not_kept
from transforms.storage.batch_calls import recorded_calls
from transforms.storage.batch_entry import Void
from transforms.storage.batch_ledger import BatchEntry, read_entry, record_void
from transforms.storage.batch_members import read_member_ids

LOG = logging.getLogger("rowbeam.batches")

#: The next call_index of each batch, by run; a step of `count` is one for all threads, without a lock.
_numbers: dict[tuple[str, str], "count[int]"] = {}
#: How many of them are used, exchange by exchange: what goes with a batch to whichever process has it next.
_used: dict[tuple[str, str], int] = {}
_opened: set[tuple[str, str]] = set()
#: Batches whose numbers go on where another process or run stopped, and what tells this process's ids from its.
_resumed: set[tuple[str, str]] = set()
_PROCESS = secrets.token_hex(2)
_lock = threading.Lock()
#: How long a pause goes on before it looks whether the run has to stop, seconds.
_NAP_S = 0.2


@dataclass(slots=True)
class _Current:
    """The batch that is being served, and the records made meanwhile."""

    ref: BatchRef | None = None
    records: list[CallRecord] = field(default_factory=list)


class BatchDesk:
    """One DoFn's way to the batch API. Not thread-safe: a DoFn instance serves one bundle at a time.

    Args:
        settings: of the run. Acquires the process's worker; `release` gives it back.
    """

    def __init__(self, settings: CallSettings) -> None:
        self.settings = settings
        self.batching = settings.batching
        self.ledger = settings.ledger
        self.worker = _worker.acquire(settings)
        api = make_batch_api(settings.model, settings.schema, self.worker.provider)
        if api is None:
            raise InternalError(f"{settings.model.provider} has no batch API, yet requests were routed to it")
        self.api: BatchApi = api
        self.client = BatchClient(api, self.worker.key, self.worker.batch_http(), self._record)
        self._current = _Current()

    def release(self) -> None:
        """Give the worker back."""
        _worker.release(self.settings)

    @contextmanager
    def serving(self, ref: BatchRef) -> Iterator[BatchEntry]:
        """Serve one batch: exchanges made inside the block are its own; gives the batch as the ledger has it."""
        self._current = _Current(ref)
        yield self.entry(ref)

    def entry(self, ref: BatchRef) -> BatchEntry:
        """Return the batch as the ledger has it now."""
        entry = read_entry(self.ledger, ref.batch_key)
        if entry is None:
            raise InternalError(f"the ledger has lost batch {ref.batch_key}; run the same job again")
        return entry

    def say(self, text: str) -> str:
        """Return a provider's words without secrets."""
        return self.worker.pool.recorder.redactor.text(text)

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.worker.provider.name

    def pause(self, seconds: float) -> Stop | None:
        """Wait, but not on once the run has to stop; return that stop. A spent budget stops no batch in flight."""
        until_s = time.monotonic() + seconds
        while True:
            stop = self.worker.pool.stop
            if stop is not None and stop.kind is not FailureKind.BUDGET:
                return stop
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            time.sleep(min(left_s, _NAP_S))

    def take_records(self) -> list[CallRecord]:
        """Return the records made while serving the last batch, for the audit; they are in the ledger already."""
        records, self._current.records = self._current.records, []
        return records

    def facts(self, entry: BatchEntry, attempt: int) -> CreateFacts:
        """Return what a create says of itself."""
        staged = entry.staged
        return CreateFacts(entry.key, attempt, staged.run_id, staged.nonce, staged.request_count)

    def open(self, ref: BatchRef, known: Mapping[str, str] | None = None) -> None:
        """Record, once per run and process, that this run has to do with the batch; members only where it staged it.

        Args:
            ref: the batch.
            known: its members, request_id by custom_id in sending order, where the caller has read them.
        """
        run_id = self.settings.run_id
        with _lock:
            if (run_id, ref.batch_id) in _opened:
                return
            _opened.add((run_id, ref.batch_id))
            if not ref.is_adopted and self.entry(ref).is_untouched:
                # What nobody has touched has no calls to look for.
                _numbers.setdefault((run_id, ref.batch_id), count())
        members: tuple[tuple[str, str], ...] = ()
        if ref.staged_run_id == run_id:
            members = tuple(read_member_ids(self.ledger, ref.batch_key) if known is None else known.items())
        provider = self.worker.provider
        opened = BatchOpened(ref.batch_id, ref.batch_key, run_id, "provider_batch_api", provider.name,
                             self.api.request_model, now_us(), members, ref.request_count)  # fmt: skip
        self.worker.segment.append(opened)
        self.worker.segment.sync()

    def void(self, ref: BatchRef, attempt: int, void: Void) -> None:
        """Record that an attempt came to nothing, and that nothing is charged for it."""
        record_void(self.ledger, ref.batch_key, attempt, void)
        if self.worker.budget is not None:
            self.worker.budget.void_batch(ref, attempt)

    def close(self, ref: BatchRef, status: str, succeeded: int, failed: int, pending: int) -> None:
        """Record how this run leaves the batch."""
        entry = read_entry(self.ledger, ref.batch_key)
        handle, ended = (None, None) if entry is None else (entry.handle, entry.ended)
        record = BatchEnded(
            batch_id=ref.batch_id,
            run_id=self.settings.run_id,
            status=status,
            ended_at_us=now_us(),
            succeeded=succeeded,
            failed=failed,
            pending=pending,
            provider_batch_id=handle.provider_batch_id if handle else None,
            input_file_id=handle.input_file_id if handle else None,
            output_file_id=ended.output_file_id if ended else None,
            error_file_id=ended.error_file_id if ended else None,
        )
        self.worker.segment.append(record)
        LOG.info("batch_left" if pending else "batch_ended", extra={"batch_id": ref.batch_id, "status": status})

    def next_index(self, ref: BatchRef) -> int:
        """Take the batch's next call_index; what other processes and runs have used is looked up once."""
        name = (self.settings.run_id, ref.batch_id)
        numbers = _numbers.get(name)
        if numbers is None:
            with _lock:
                numbers = _numbers.get(name)
                if numbers is None:
                    numbers = count(recorded_calls(self.ledger, ref.batch_id).next_index)
                    _resumed.add(name)  # first, as whoever finds the numbers asks for no lock
                    _numbers[name] = numbers
        return next(numbers)

    def resume(self, ref: BatchRef, next_index: int) -> None:
        """Go on numbering where another process stopped; 0: nobody said."""
        name = (self.settings.run_id, ref.batch_id)
        with _lock:
            if next_index > _used.get(name, 0):
                _resumed.add(name)
                _used[name] = next_index
                _numbers[name] = count(next_index)

    def used(self, ref: BatchRef) -> int:
        """Return how many numbers of a batch are used, as far as this process knows; for whoever has it next."""
        return _used.get((self.settings.run_id, ref.batch_id), 0)

    def call_id(self, ref: BatchRef, index: int) -> str:
        """Return the id of a call, which no other process gives even where two number alike for a moment."""
        again = f"-{_PROCESS}" if (self.settings.run_id, ref.batch_id) in _resumed else ""
        return f"{ref.batch_id}-{index:06d}{again}"

    def _record(self, exchange: HttpExchange) -> None:
        ref = self._current.ref
        if ref is None:
            raise InternalError("an exchange was made for no batch")
        index = self.next_index(ref)
        _used[self.settings.run_id, ref.batch_id] = index + 1
        record = self._call_record(ref, index, exchange)
        self.worker.segment.append(record)
        if self.worker.telemetry is not None:
            self.worker.telemetry.observe(record)
        self._current.records.append(record)

    def _call_record(self, ref: BatchRef, index: int, exchange: HttpExchange) -> CallRecord:
        recorder, error = self.worker.pool.recorder, exchange.error
        shown = None if recorder.payloads == "none" else recorder.redactor.text(_json(exchange.request_summary))
        body = None if exchange.response_summary is None else exchange.response_summary.decode("utf-8", "replace")
        said_id = exchange.provider_request_id
        told = None if error is None else {"kind": str(error.kind), "message": error.message, "code": error.code}
        if told is not None and recorder.payloads != "full" and exchange.status is not None:
            told["message"] = not_kept(recorder.payloads)
        return CallRecord(
            call_id=self.call_id(ref, index),
            run_id=self.settings.run_id,
            batch_id=ref.batch_id,
            call_index=index,
            call_type=CallType.HTTP,
            custom_id=None,
            request_id=None,
            root_request_id=None,
            lane=None,
            attempt=1,
            status=CallStatus.SUCCESS if error is None else CallStatus.ERROR,
            kind=FailureKind.OK if error is None else error.kind,
            http_status=exchange.status,
            provider_request_id=None if said_id is None else recorder.redactor.own(said_id),
            started_at_us=exchange.started_at_us,
            latency_ms=exchange.latency_ms,
            waited_ms=0.0,
            request_json=shown,
            response_json=None if body is None or recorder.payloads != "full" else recorder.redactor.text(body),
            error_json=None if told is None else recorder.redactor.text(_json(told)),
            provider_name=recorder.provider_name,
            request_model=self.api.request_model,
            response_model=None,
            input_tokens=None,
            output_tokens=None,
            cache_read_input_tokens=None,
            cache_write_input_tokens=None,
            reasoning_output_tokens=None,
            finish_reasons=(),
            cost_usd=Decimal(0),
            cost_source=CostSource.NOT_BILLED,
            cost_reason=f"{exchange.what} of a batch; providers bill answers only",
            prompt_sha256=None,
            template_sha256=None,
            variables_sha256=None,
            lookup_sha256=None,
            text=None,
        )


def now_us() -> int:
    """Return the time, microseconds since the epoch."""
    return time.time_ns() // 1000


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
