"""Collecting a batch: every result of every terminal state is recorded, and every request of it gets its end (P3).

Results are downloaded to files and read line by line; what travels on is one answer at a time. Rows are told by
their own status, never by the provider's counts, and ids are compared with what was sent. A collection that was cut
off is done again: what is in the ledger already is taken from there.
"""

import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import orjson

from transforms._batch_board import board
from transforms._batch_desk import LOG, BatchDesk
from transforms._batch_ends import failed, state_of
from transforms._batch_orphans import Orphans
from transforms._batch_read import REFUSALS, BatchReader, Collectable, Unanswered, Work
from transforms._budget_batches import BatchSpend
from transforms.providers.batch_client import Downloaded
from transforms.providers.session import Stop, pending_request
from transforms.records.batch import BatchRef, BatchState, BatchStatus, BatchTurn, Turn
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError
from transforms.records.request import unpack
from transforms.storage.asked_file import AskedFile, results_folder
from transforms.storage.batch_calls import RecordedCalls, recorded_calls
from transforms.storage.batch_entry import BatchEntry, Collected, Phase
from transforms.storage.batch_ledger import (
    give_up,
    read_entry,
    record_collected,
    requests_path,
)
from transforms.storage.batch_members import read_member_ids
from transforms.storage.batch_results import ResultIds, read_lines
from transforms.storage.objects import create_if_absent, ensure_folder, join, remove

_GONE = "the provider no longer has the results of its batch; running the job again pays for them again"


#: How often results that are short of the provider's counts are fetched, and the longest wait between, seconds.
_FETCHES = 3
_LATE_S = 60.0


class BatchCollector:
    """Gives the requests of a batch their ends. Of one DoFn."""

    def __init__(self, desk: BatchDesk) -> None:
        self._desk = desk
        self._reader = BatchReader(desk)

    def finish(self, turn: BatchTurn) -> Iterator[Collectable]:
        """Yield what becomes of the requests that this run asked of a batch, and the records made on the way."""
        ref = turn.ref
        self._desk.resume(ref, turn.next_index)
        if turn.turn is Turn.UNSENT:
            yield from self._unsent(ref)
            return
        with self._desk.serving(ref) as entry, AskedFile(ref.asked_path) as asked:
            if turn.turn is Turn.LEFT:
                self._desk.open(ref)
                yield from self._left(ref, entry, asked, Stop(turn.reason, turn.kind))
            else:
                members = dict(read_member_ids(self._desk.ledger, entry.key, ref.request_count))
                self._desk.open(ref, members)
                yield from self._collect(ref, entry, asked, members)

    def _unsent(self, ref: BatchRef) -> Iterator[Collectable]:
        desk = self._desk
        entry = read_entry(desk.ledger, ref.batch_key)
        # A bundle that is tried again finds it given up already.
        if entry is not None and entry.phase is Phase.STAGED:
            desk.open(ref)
            desk.close(ref, "not_taken", 0, 0, 0)
            give_up(desk.ledger, entry, desk.settings.run_id, time.time())
        with AskedFile(ref.asked_path) as asked:
            for packed in asked.rest():
                yield Unanswered(unpack(packed).request_id, packed, by_batch=False)

    def _left(self, ref: BatchRef, entry: BatchEntry, asked: AskedFile, stop: Stop) -> Iterator[Collectable]:
        status = {Phase.STAGED: "held_back", Phase.IN_DOUBT: "unresolved"}.get(entry.phase, "submitted")
        if self._desk.worker.budget is not None:
            self._desk.worker.budget.leave(ref.batch_key)
        self._desk.close(ref, status, 0, 0, ref.request_count)
        for packed in asked.rest():
            yield pending_request(unpack(packed), stop)

    def _collect(
        self, ref: BatchRef, entry: BatchEntry, asked: AskedFile, members: dict[str, str]
    ) -> Iterator[Collectable]:
        desk, handle, ended = self._desk, entry.handle, entry.ended
        assert handle is not None  # noqa: S101 - the phase says so
        assert ended is not None  # noqa: S101 - likewise
        marker = join(desk.ledger, "batches", entry.key, "collecting.json")
        is_first = create_if_absent(marker, orjson.dumps({"run_id": desk.settings.run_id, "at_s": time.time()}))
        recorded = RecordedCalls()
        if not is_first:
            desk.worker.segment.sync()  # the try before may have been in this process
            recorded = recorded_calls(desk.ledger, ref.batch_id)
            desk.resume(ref, recorded.next_index)
        started_s = handle.submitted_at_s
        latency_ms = round(max(0.0, ended.ended_at_s - started_s) * 1000, 3)
        work = Work(
            ref, entry, handle, ended, asked, members, recorded, Counter(), round(started_s * 1_000_000), latency_ms
        )  # fmt: skip
        budget, harvest = desk.worker.budget, self._harvest(work)
        spend = BatchSpend(members, recorded.costs)
        error = yield from (harvest if budget is None else spend.watch(harvest))
        yield from desk.take_records()
        if error is not None:
            yield from self._left(ref, entry, asked, error if isinstance(error, Stop) else self._stop(error))
            return
        desk.worker.segment.sync()
        if budget is not None:
            budget.settle_batch(ref, entry.attempt, spend.known_usd, spend.unknown)
        self._close(work)

    def _stop(self, error: CallError) -> Stop:
        return Stop(self._desk.say(error.message), error.kind if error.kind in REFUSALS else None)

    def _harvest(self, work: Work) -> Generator[Collectable, None, CallError | Stop | None]:
        """Yield all that the results hold, and then what they lack; return why the batch has to be left instead.

        Results that are short of what the provider counts are fetched again, by a fresh look at the batch: to take
        for missing what is only late would be to pay for it twice. A run that has to stop meanwhile leaves it, too.
        """
        desk = self._desk
        state = state_of(work.handle, work.ended)
        ids, orphans = ResultIds(work.members), Orphans(desk.ledger, work.entry.key)
        fetched = self._fetch(work, state)
        for look in range(_FETCHES - 1):
            if isinstance(fetched, CallError) or self._is_whole(fetched, state):
                break
            LOG.warning("batch_results_short", extra={"batch_id": work.ref.batch_id})
            if (stop := desk.pause(min(_LATE_S, desk.batching.poll_interval * 2**look))) is not None:
                return stop
            state = self._newer(work, state)
            fetched = self._fetch(work, state)
        yield from desk.take_records()
        if isinstance(fetched, CallError):
            if fetched.kind is not FailureKind.RESULTS_GONE:
                return fetched
            yield from self._gone(work)
            return None
        yield from self._reader.on_record(self._reader.results(work, fetched, ids, orphans))
        for part in fetched:
            Path(part.path).unlink(missing_ok=True)
        if not work.counts["seen"] and state.completed and not _is_one_row_lost(work):
            # Rather wait than pay for all of it again: what is wrong here is not the rows.
            message = (
                f"the results of batch {work.ref.batch_id} hold none of its requests, though the provider counts "
                f"{state.completed} as done; nothing is sent again: run the job again, ask the provider, or, if they "
                f"are lost, say so: rowbeam batches OUTPUT --resolve {work.entry.key[:12]} --as gone"
            )
            return CallError(FailureKind.MISSING_RESULT, message)
        yield from self._reader.on_record(self._reader.missing(work, ids, orphans))
        return None

    def _newer(self, work: Work, state: BatchState) -> BatchState:
        """Look at an ended batch afresh; a look that does not find it can't make the results at hand worthless."""
        newer = self._desk.client.status(work.handle.provider_batch_id)
        if isinstance(newer, CallError) or not newer.is_terminal or newer.status is BatchStatus.GONE:
            return state
        return newer

    def _fetch(self, work: Work, state: BatchState) -> list[Downloaded] | CallError:
        if state.status is BatchStatus.GONE:
            return CallError(FailureKind.RESULTS_GONE, _GONE)
        folder = results_folder(work.ref.asked_path)
        ensure_folder(folder)
        try:
            fetched = self._desk.client.fetch(state, folder)
        except ConfigError as error:  # results at an address that must not see the key
            return CallError(FailureKind.INVALID_RESPONSE, str(error))
        if isinstance(fetched, CallError) and fetched.kind is not FailureKind.RESULTS_GONE:
            message = (
                f"the results of batch {work.ref.batch_id} can't be had now ({fetched.message}); run the job again"
            )
            return replace(fetched, message=message)
        return fetched

    def _is_whole(self, fetched: list[Downloaded], state: BatchState) -> bool:
        """Whether the files hold as many lines as the provider counts, and none is torn at its end."""
        count = 0
        for part in fetched:
            last = b""
            for line in read_lines(part.path):
                count += 1
                last = line
            if last and self._desk.api.read_line(last).custom_id is None:
                return False
        return count >= (state.completed or 0) + (state.failed or 0)

    def _close(self, work: Work) -> None:
        desk, counts, ref = self._desk, work.counts, work.ref
        # Each run's line of the audit counts what that run recorded; the ledger's mark counts all of it.
        desk.close(ref, str(work.ended.status), counts["ok"], counts["recorded"] - counts["ok"], 0)
        ok = counts["ok"] + counts["ok_before"]
        failed_ = counts["recorded"] + counts["before"] - ok
        collected = Collected(desk.settings.run_id, time.time(), ok, failed_, counts["missing"])
        record_collected(desk.ledger, ref.batch_key, collected)
        board.collected(ref, ok, failed_)
        if desk.settings.audit.payloads != "full" or desk.settings.audit.redact:
            # The prompts are in no file of the audit, so they don't stay in this one either.
            remove(requests_path(desk.ledger, ref.batch_key))
        facts = {name: counts[name] for name in ("ok", "missing", "duplicate", "unknown", "malformed", "orphans")}
        LOG.info("batch_collected", extra={"batch_id": ref.batch_id, **facts})

    def _gone(self, work: Work) -> Iterator[Collectable]:
        for packed in work.asked.rest():
            request = unpack(packed)
            yield failed(request, FailureKind.RESULTS_GONE, _GONE, None, self._desk.settings.run_id)


def _is_one_row_lost(work: Work) -> bool:
    """Whether a batch of one request lacks its line and nothing else: no more than a row that a larger one lacks."""
    return len(work.members) == 1 and not work.counts["malformed"]
