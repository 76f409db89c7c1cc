"""Collecting a batch: every result of every terminal state is recorded, and every request of it gets its end (P3).

Results are downloaded to files and read line by line; what travels on is one answer at a time. Rows are told by
their own status, never by the provider's counts, and ids are compared with what was sent. A collection that was cut
off is done again: what is in the ledger already is taken from there.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import orjson

from transforms._batch_board import board
from transforms._batch_desk import LOG, BatchDesk
from transforms._batch_ends import answered, failed, state_of
from transforms._batch_orphans import Orphans
from transforms._batch_watch import DEADLINE
from transforms.providers.batch_client import Downloaded
from transforms.providers.session import Stop, pending_request
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.batch import BatchLine, BatchRef, BatchStatus, BatchTurn, Turn
from transforms.records.call import CallRecord
from transforms.records.failure import RUN_STOPPING, SETTLED, FailureKind
from transforms.records.reply import CallError, Reply
from transforms.records.request import ModelRequest, unpack
from transforms.rules.call_record import CallRecorder, Exchange, reason_of
from transforms.storage.asked_file import AskedFile
from transforms.storage.batch_calls import RecordedCalls, recorded_calls
from transforms.storage.batch_entry import BatchEntry, Collected, Ended, Handle, Phase
from transforms.storage.batch_ledger import (
    give_up,
    record_collected,
    requests_path,
)
from transforms.storage.batch_members import read_member_ids
from transforms.storage.batch_results import ResultIds, read_lines
from transforms.storage.objects import create_if_absent

_MISSING = CallError(FailureKind.MISSING_RESULT, "the batch's results hold no line for this request")
_GONE = "the provider no longer has the results of its batch; running the job again pays for them again"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request that its batch left without an answer; by_batch: it may go into another batch, else it goes real time."""

    request_id: str
    packed: bytes
    by_batch: bool


#: What collecting a batch gives.
Collectable = ModelAnswer | PendingRequest | Unanswered | CallRecord

#: The record to make of a result, and the end of its request; None where it is on record, or not this run's.
_Result = tuple[CallRecord | None, Collectable | None]

#: Results recorded by one write. Fetched anew when a kill comes first, so nothing is lost by waiting for some more.
_CHUNK = 100


@dataclass(slots=True)
class _Work:
    """One batch being collected."""

    ref: BatchRef
    entry: BatchEntry
    handle: Handle
    ended: Ended
    asked: AskedFile
    recorded: RecordedCalls
    counts: Counter[str]
    started_at_us: int
    latency_ms: float


class BatchCollector:
    """Gives the requests of a batch their ends. Of one DoFn."""

    def __init__(self, desk: BatchDesk) -> None:
        self._desk = desk
        worker = desk.worker
        self._provider = worker.provider
        self._recorder: CallRecorder = worker.pool.recorder
        hides = bool(desk.settings.audit.redact) and self._recorder.payloads == "full"
        # What an orphan's row held back is unknown here, so nothing of its payload is shown.
        self._orphan_recorder = replace(self._recorder, payloads="hash") if hides else self._recorder

    def finish(self, turn: BatchTurn) -> Iterator[Collectable]:
        """Yield what becomes of the requests that this run asked of a batch, and the records made on the way."""
        ref = turn.ref
        with self._desk.serving(ref) as entry, AskedFile(ref.asked_path) as asked:
            self._desk.open(ref)
            if turn.turn is Turn.UNSENT:
                yield from self._unsent(ref, entry, asked)
            elif turn.turn is Turn.LEFT:
                yield from self._left(ref, entry, asked, Stop(turn.reason, turn.kind))
            else:
                yield from self._collect(ref, entry, asked)

    def _unsent(self, ref: BatchRef, entry: BatchEntry, asked: AskedFile) -> Iterator[Collectable]:
        self._desk.close(ref, "not_taken", 0, 0, 0)
        give_up(self._desk.ledger, entry, self._desk.settings.run_id, time.time())
        for packed in asked.rest():
            yield Unanswered(unpack(packed).request_id, packed, by_batch=False)

    def _left(self, ref: BatchRef, entry: BatchEntry, asked: AskedFile, stop: Stop) -> Iterator[Collectable]:
        status = {Phase.STAGED: "held_back", Phase.IN_DOUBT: "unresolved"}.get(entry.phase, "submitted")
        self._desk.close(ref, status, 0, 0, ref.request_count)
        for packed in asked.rest():
            yield pending_request(unpack(packed), stop)

    def _collect(self, ref: BatchRef, entry: BatchEntry, asked: AskedFile) -> Iterator[Collectable]:
        desk, handle, ended = self._desk, entry.handle, entry.ended
        assert handle is not None  # noqa: S101 - the phase says so
        assert ended is not None  # noqa: S101 - likewise
        marker = Path(desk.ledger) / "batches" / entry.key / "collecting.json"
        is_first = create_if_absent(str(marker), orjson.dumps({"run_id": desk.settings.run_id, "at_s": time.time()}))
        recorded = RecordedCalls() if is_first else recorded_calls(desk.ledger, ref.batch_id)
        started_s = handle.submitted_at_s
        latency_ms = round(max(0.0, ended.ended_at_s - started_s) * 1000, 3)
        work = _Work(
            ref, entry, handle, ended, asked, recorded, Counter(), round(started_s * 1_000_000), latency_ms
        )  # fmt: skip
        folder = Path(ref.asked_path).with_suffix(".results")
        folder.mkdir(exist_ok=True)
        fetched = [] if ended.status is BatchStatus.GONE else desk.client.fetch(state_of(handle, ended), str(folder))
        yield from desk.take_records()
        if isinstance(fetched, CallError) and fetched.kind is not FailureKind.RESULTS_GONE:
            reason = f"the results of batch {ref.batch_id} can't be had now ({desk.say(fetched.message)}); run again"
            stop = Stop(reason, fetched.kind if fetched.kind in RUN_STOPPING else None)
            yield from self._left(ref, entry, asked, stop)
            return
        if isinstance(fetched, CallError) or ended.status is BatchStatus.GONE:
            yield from self._gone(work)
        else:
            members = dict(read_member_ids(desk.ledger, entry.key))
            ids, orphans = ResultIds(members), Orphans(desk.ledger, entry.key)
            yield from self._on_record(self._results(work, fetched, members, ids, orphans))
            if not work.counts["recorded"] and ended.completed:
                # Rather wait than pay for all of it again: what is wrong here is not the rows.
                reason = (
                    f"the results of batch {ref.batch_id} hold none of its requests, though the provider counts "
                    f"{ended.completed} as done; nothing is sent again: run the job again, or ask the provider"
                )
                yield from self._left(ref, entry, asked, Stop(reason, None))
                return
            yield from self._on_record(self._missing(work, members, ids, orphans))
        desk.worker.segment.sync()
        self._close(work)
        for part in fetched if isinstance(fetched, list) else ():
            Path(part.path).unlink(missing_ok=True)

    def _close(self, work: _Work) -> None:
        desk, counts, ref = self._desk, work.counts, work.ref
        failed = counts["recorded"] - counts["ok"]
        desk.close(ref, str(work.ended.status), counts["ok"], failed, 0)
        collected = Collected(desk.settings.run_id, time.time(), counts["ok"], failed, counts["missing"])
        record_collected(desk.ledger, ref.batch_key, collected)
        board.collected(ref, counts["ok"], failed)
        if desk.settings.audit.payloads != "full" or desk.settings.audit.redact:
            # The prompts are in no file of the audit, so they don't stay in this one either.
            Path(requests_path(desk.ledger, ref.batch_key)).unlink(missing_ok=True)
        facts = {name: counts[name] for name in ("ok", "missing", "duplicate", "unknown", "malformed", "orphans")}
        LOG.info("batch_collected", extra={"batch_id": ref.batch_id, **facts})

    def _gone(self, work: _Work) -> Iterator[Collectable]:
        for packed in work.asked.rest():
            request = unpack(packed)
            yield failed(request, FailureKind.RESULTS_GONE, _GONE, None, self._desk.settings.run_id)

    def _on_record(self, results: Iterator[_Result]) -> Iterator[Collectable]:
        """Yield records and ends of results when they are in the ledger, and not before (P4)."""
        while chunk := list(islice(results, _CHUNK)):
            self._desk.worker.segment.extend([record for record, _ in chunk if record is not None])
            for record, end in chunk:
                if record is not None:
                    yield record
                if end is not None:
                    yield end

    def _results(
        self, work: _Work, fetched: list[Downloaded], members: dict[str, str], ids: ResultIds, orphans: Orphans
    ) -> Iterator[_Result]:
        for part in fetched:
            for raw in read_lines(part.path):
                line = self._desk.api.read_line(raw)
                seen = "malformed" if line.custom_id is None else ids.see(line.custom_id)
                if seen != "expected" or line.custom_id is None:
                    self._odd(work, seen, line)
                    continue
                yield self._take(work, line.custom_id, members[line.custom_id], line, orphans)

    def _missing(self, work: _Work, members: dict[str, str], ids: ResultIds, orphans: Orphans) -> Iterator[_Result]:
        nothing = BatchLine(None, None, _MISSING)
        for custom_id in ids.missing():
            if members[custom_id] in work.asked or custom_id in work.recorded.custom_ids:
                work.counts["missing"] += 1
                yield self._take(work, custom_id, members[custom_id], nothing, orphans)

    def _odd(self, work: _Work, what: str, line: BatchLine) -> None:
        work.counts[what] += 1
        if work.counts[what] <= 3:
            told = line.custom_id or (line.error.message if line.error else "")
            LOG.warning(f"batch_result_{what}", extra={"batch_id": work.ref.batch_id, "line": self._desk.say(told)})

    def _take(self, work: _Work, custom_id: str, request_id: str, line: BatchLine, orphans: Orphans) -> _Result:
        packed = work.asked.take(request_id)
        work.counts["recorded"] += 1
        if custom_id in work.recorded.custom_ids:
            return None, self._again(work, request_id, packed)
        request = orphans.request(custom_id) if packed is None else unpack(packed)
        read = _MISSING if line.response is None else self._provider.read(line.response)
        outcome = self._recorder.clean(line.error or read)
        record = self._record(work, custom_id, request, line, outcome, orphans if packed is None else None)
        work.counts["ok"] += outcome.kind is FailureKind.OK
        if packed is None:
            work.counts["orphans"] += 1
            return record, None
        return record, self._end(work, request, packed, outcome, record)

    def _again(self, work: _Work, request_id: str, packed: bytes | None) -> Collectable | None:
        """Return the end of a request whose call is in the ledger already; None where this run did not ask it."""
        settled = work.recorded.settled.get(request_id)
        work.counts["ok"] += settled is not None and settled.kind is FailureKind.OK
        if packed is None:
            return None
        request = unpack(packed)
        return self._unanswered(work, request, packed, _MISSING, None) if settled is None else settled.answer(request)

    def _record(
        self, work: _Work, custom_id: str, request: ModelRequest, line: BatchLine, outcome: Reply | CallError,
        orphans: Orphans | None,
    ) -> CallRecord:  # fmt: skip
        index = self._desk.next_index(work.ref)
        shown = (
            orphans.body(custom_id)
            if orphans
            else orjson.dumps(self._provider.body(request.shown_prompt or request.prompt))
        )
        exchange = Exchange(
            request=request,
            batch_id=work.ref.batch_id,
            call_index=index,
            call_id=f"{work.ref.batch_id}-{index:06d}",
            custom_id=custom_id,
            attempt=1,
            started_at_us=work.started_at_us,
            latency_ms=work.latency_ms,
            waited_ms=0.0,
            shown_body=shown,
            response=line.response,
            outcome=outcome,
            provider_request_id=line.provider_request_id,
            processing="batch",
        )
        return (self._orphan_recorder if orphans else self._recorder).record(exchange)

    def _end(
        self, work: _Work, request: ModelRequest, packed: bytes, outcome: Reply | CallError, record: CallRecord
    ) -> Collectable:
        if isinstance(outcome, Reply):
            reason = None if outcome.kind is FailureKind.OK else self._recorder.shown(reason_of(outcome), request)
            return answered(request, outcome, reason, record)
        reason = self._recorder.shown(reason_of(outcome), request)
        if outcome.kind in RUN_STOPPING:
            return pending_request(request, Stop(f"{self._desk.name} refused ({outcome.kind}): {reason}", outcome.kind))
        if outcome.kind in SETTLED:
            return failed(request, outcome.kind, reason, record, record.run_id)
        return self._unanswered(work, request, packed, replace(outcome, message=reason), record)

    def _unanswered(
        self, work: _Work, request: ModelRequest, packed: bytes, error: CallError, record: CallRecord | None
    ) -> Collectable:
        """Send a request on by the job's rule: what a deadline cut off by on_deadline, all else by retry_failed."""
        batching = self._desk.batching
        is_late = work.entry.cancel is not None and work.entry.cancel.why == DEADLINE
        rule: str = batching.on_deadline if is_late and error.kind in _CUT_OFF else batching.retry_failed
        if rule in ("real_time", "batch"):
            return Unanswered(request.request_id, packed, by_batch=rule == "batch")
        return failed(request, error.kind, error.message, record, self._desk.settings.run_id)


_CUT_OFF = frozenset({FailureKind.CANCELLED, FailureKind.EXPIRED, FailureKind.MISSING_RESULT})
