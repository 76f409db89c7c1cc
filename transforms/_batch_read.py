"""Reading a batch's results: each line becomes a record in the ledger and the end of its request.

Rows are told by their own status, never by the provider's counts, and ids are compared with what was sent.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import orjson

from transforms._batch_alike import AlikeReader
from transforms._batch_desk import LOG, BatchDesk
from transforms._batch_ends import answered, failed
from transforms._batch_orphans import Orphans
from transforms._batch_watch import DEADLINE
from transforms.providers.batch_client import Downloaded
from transforms.providers.session import Stop, pending_request
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.batch import BatchLine, BatchRef
from transforms.records.call import CallRecord
from transforms.records.failure import RUN_STOPPING, SETTLED, FailureKind
from transforms.records.reply import CallError, Reply
from transforms.records.request import ModelRequest, unpack
from transforms.rules.call_record import CallRecorder, Exchange, reason_of
from transforms.storage.asked_file import AskedFile
from transforms.storage.batch_calls import RecordedCalls
from transforms.storage.batch_entry import BatchEntry, Ended, Handle
from transforms.storage.batch_results import ResultIds, read_lines
from transforms.storage.ledger_lines import encode

_MISSING = CallError(
    FailureKind.MISSING_RESULT, "the batch's results hold no line for this request", may_be_billed=True
)
_CUT_OFF = frozenset({FailureKind.CANCELLED, FailureKind.EXPIRED, FailureKind.MISSING_RESULT})


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request that its batch left without an answer; by_batch: it may go into another batch, else it goes real time."""

    request_id: str
    packed: bytes
    by_batch: bool


#: What collecting a batch gives.
Collectable = ModelAnswer | PendingRequest | Unanswered | CallRecord

#: The record to make of a result, its line of the ledger, and the end of its request; None where it is on record, or
#: not this run's.
_Result = tuple[CallRecord | None, bytes, Collectable | None]

#: Refusals of the account: what they hit waits for a run after they are put right.
REFUSALS = frozenset({FailureKind.AUTH, FailureKind.QUOTA_EXHAUSTED, FailureKind.RESULTS_WITHHELD})
#: Results recorded by one write. Fetched anew when a kill comes first, so nothing is lost by waiting for some more.
_CHUNK = 100


@dataclass(slots=True)
class Work:
    """One batch being collected. members: request_id by custom_id, in the order of sending."""

    ref: BatchRef
    entry: BatchEntry
    handle: Handle
    ended: Ended
    asked: AskedFile
    members: dict[str, str]
    recorded: RecordedCalls
    counts: Counter[str]
    started_at_us: int
    latency_ms: float


class BatchReader:
    """Turns results into records and ends. Of one DoFn."""

    def __init__(self, desk: BatchDesk) -> None:
        self._desk = desk
        worker = desk.worker
        self._provider = worker.provider
        self._recorder: CallRecorder = worker.pool.recorder
        self._hides = bool(desk.settings.audit.redact)
        # What an orphan's row held back is unknown here, so nothing of its payload is shown.
        no_payload = self._hides and self._recorder.payloads == "full"
        self._orphan_recorder = replace(self._recorder, payloads="hash") if no_payload else self._recorder

    def on_record(self, results: Iterator[_Result]) -> Iterator[Collectable]:
        """Yield records and ends of results when they are in the ledger, and not before (P4)."""
        while chunk := list(islice(results, _CHUNK)):
            worker = self._desk.worker
            worker.segment.extend_encoded([line for _, line, _ in chunk if line])
            if worker.telemetry is not None:
                worker.telemetry.observe_batch([record for record, _, _ in chunk if record is not None])
            for record, _, end in chunk:
                if record is not None:
                    yield record
                if end is not None:
                    yield end

    def results(self, work: Work, fetched: list[Downloaded], ids: ResultIds, orphans: Orphans) -> Iterator[_Result]:
        """Yield what the lines of downloaded results come to."""
        alike = AlikeReader(self._desk, work.ref, work.started_at_us, work.latency_ms)
        for part in fetched:
            for raw in read_lines(part.path):
                result = self._read(work, raw, alike, ids, orphans)
                if result is not None:
                    yield result

    def _read(self, work: Work, raw: bytes, alike: AlikeReader, ids: ResultIds, orphans: Orphans) -> _Result | None:
        """Return what a line comes to; by its likeness to others where that is enough."""
        line: BatchLine | None = None
        custom_id: str | None
        if (fit := alike.fit(raw)) is not None:
            custom_id = fit.custom_id
        else:
            line = self._desk.api.read_line(raw)
            custom_id = line.custom_id
        seen = "malformed" if custom_id is None else ids.see(custom_id)
        if seen != "expected" or custom_id is None:
            self._odd(work, seen, line or self._desk.api.read_line(raw))
            return None
        work.counts["seen"] += 1
        request_id = work.members[custom_id]
        packed = work.asked.take(request_id, ids.number(custom_id))
        if packed is None or custom_id in work.recorded.custom_ids:
            line = line or self._desk.api.read_line(raw)
            return self._take(work, custom_id, request_id, packed, line, orphans)
        if fit is not None and (taken := alike.take(fit, request_id, packed)) is not None:
            work.counts["recorded"] += 1
            work.counts["ok"] += 1
            return taken
        result = self._take(work, custom_id, request_id, packed, line or self._desk.api.read_line(raw), orphans)
        if line is not None and result[0] is not None:
            alike.learn(raw, line, result[0])
        return result

    def missing(self, work: Work, ids: ResultIds, orphans: Orphans) -> Iterator[_Result]:
        """Yield what becomes of requests that the results hold no line of."""
        nothing = BatchLine(None, None, _MISSING)
        for custom_id in ids.missing():
            request_id = work.members[custom_id]
            if request_id in work.asked or custom_id in work.recorded.custom_ids:
                work.counts["missing"] += 1
                yield self._take(work, custom_id, request_id, work.asked.take(request_id), nothing, orphans)

    def _odd(self, work: Work, what: str, line: BatchLine) -> None:
        work.counts[what] += 1
        if work.counts[what] <= 3:
            told = line.custom_id or (line.error.message if line.error else "")
            LOG.warning(f"batch_result_{what}", extra={"batch_id": work.ref.batch_id, "line": self._desk.say(told)})

    def _take(
        self, work: Work, custom_id: str, request_id: str, packed: bytes | None, line: BatchLine, orphans: Orphans
    ) -> _Result:
        if custom_id in work.recorded.custom_ids:
            return None, b"", self._again(work, custom_id, request_id, packed)
        work.counts["recorded"] += 1
        request = orphans.request(custom_id) if packed is None else unpack(packed)
        read = _MISSING if line.response is None else self._provider.read(line.response)
        outcome = self._recorder.clean(line.error or read)
        if packed is None and self._hides and isinstance(outcome, CallError):
            outcome = replace(outcome, message="not shown: the row is not at hand, so nothing of it could be redacted")
        record = self._record(work, custom_id, request, line, outcome, orphans if packed is None else None)
        work.counts["ok"] += outcome.kind is FailureKind.OK
        if packed is None:
            work.counts["orphans"] += 1
            return record, encode(record), None
        return record, encode(record), self._end(work, request, packed, outcome, record)

    def _again(self, work: Work, custom_id: str, request_id: str, packed: bytes | None) -> Collectable | None:
        """Return the end of a request whose call is in the ledger already; None where this run did not ask it."""
        settled = work.recorded.settled.get(request_id)
        work.counts["before"] += 1
        work.counts["ok_before"] += settled is not None and settled.kind is FailureKind.OK
        if packed is None:
            return None
        request = unpack(packed)
        if settled is not None:
            return settled.answer(request)
        kind = work.recorded.kinds[custom_id]
        return self._after_error(work, request, packed, CallError(kind, f"its batch gave {kind}"), None)

    def _record(
        self, work: Work, custom_id: str, request: ModelRequest, line: BatchLine, outcome: Reply | CallError,
        orphans: Orphans | None,
    ) -> CallRecord:  # fmt: skip
        index = self._desk.next_index(work.ref)
        shown = (
            orphans.body(custom_id)
            if orphans
            else orjson.dumps(self._provider.body(request.shown_prompt or request.prompt))
        )
        batch_id = work.ref.batch_id
        exchange = Exchange(
            request, batch_id, index, self._desk.call_id(work.ref, index), custom_id, 1, work.started_at_us, work.latency_ms, 0.0,
            shown, line.response, outcome, line.provider_request_id, "batch",
        )  # fmt: skip
        return (self._orphan_recorder if orphans else self._recorder).record(exchange)

    def _end(
        self, work: Work, request: ModelRequest, packed: bytes, outcome: Reply | CallError, record: CallRecord
    ) -> Collectable:
        if isinstance(outcome, Reply):
            reason = None if outcome.kind is FailureKind.OK else self._recorder.shown(reason_of(outcome), request)
            return answered(request, outcome, reason, record)
        reason = self._recorder.shown(reason_of(outcome), request)
        return self._after_error(work, request, packed, replace(outcome, message=reason), record)

    def _after_error(
        self, work: Work, request: ModelRequest, packed: bytes, error: CallError, record: CallRecord | None
    ) -> Collectable:
        if error.kind in REFUSALS:
            reason = f"{self._desk.name} refused ({error.kind}): {error.message}"
            return pending_request(request, Stop(reason, error.kind))
        if error.kind in SETTLED or error.kind in RUN_STOPPING:
            # One row's 403 or 404 among answered ones is the row's own.
            return failed(request, error.kind, error.message, record, self._desk.settings.run_id)
        return self._unanswered(work, request, packed, error, record)

    def _unanswered(
        self, work: Work, request: ModelRequest, packed: bytes, error: CallError, record: CallRecord | None
    ) -> Collectable:
        """Send a request on by the job's rule: what a deadline cut off by on_deadline, all else by retry_failed."""
        batching = self._desk.batching
        is_late = work.entry.cancel is not None and work.entry.cancel.why == DEADLINE
        rule: str = batching.on_deadline if is_late and error.kind in _CUT_OFF else batching.retry_failed
        if rule in ("real_time", "batch"):
            return Unanswered(request.request_id, packed, by_batch=rule == "batch")
        return failed(request, error.kind, error.message, record, self._desk.settings.run_id)
