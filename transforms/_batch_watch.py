"""Watching a batch until it ends: status checks, the deadline, batches held back, and what each state means.

One step never waits; it says when to come again.
"""

import time
from itertools import islice
from tempfile import TemporaryDirectory

from transforms._batch_board import board
from transforms._batch_desk import LOG, BatchDesk
from transforms._batch_send import STOPPING, BatchSender, backoff_s
from transforms.providers.batch_states import NOT_FOUND
from transforms.records.batch import BatchRef, BatchState, BatchStatus, BatchTurn, Turn
from transforms.records.failure import RETRYABLE, FailureKind
from transforms.records.reply import CallError
from transforms.storage.batch_claims import disown
from transforms.storage.batch_entry import BatchEntry, Cancel, Ended, Handle, Phase, Void
from transforms.storage.batch_ledger import read_members, record_cancel, record_ended
from transforms.storage.batch_results import read_lines
from transforms.storage.objects import is_remote, parent

_TOKEN_LIMIT = "token_limit_exceeded"  # noqa: S105 - a provider's error code
#: Looks at a create in doubt, or status checks, that may fail one after another before the batch is left for later.
_MAX_FAILED_LOOKS = 12
_LINES_TO_TELL = 100
#: Looks in a row that must find nothing before a batch counts as gone: at the default interval some four minutes.
_LOOKS_FOR_GONE = 6
#: Providers say that cancelling takes up to ten minutes.
_CANCEL_TAKES_S = 3600.0
#: Why a batch was cancelled: `Cancel.why`.
DEADLINE = "deadline"


class BatchWatcher:
    """Takes batches step by step to their end. Of one DoFn; may be handed any batch at any time."""

    def __init__(self, desk: BatchDesk) -> None:
        self._desk = desk
        self._sender = BatchSender(desk)
        self._rounds: dict[str, int] = {}
        self._failed_looks: dict[str, int] = {}
        self._not_found_looks: dict[str, int] = {}
        self._warned: set[str] = set()

    def step(self, ref: BatchRef) -> tuple[BatchTurn, float]:
        """Do what can be done for a batch now; return where it stands and, if WAITING, seconds until the next step."""
        with self._desk.serving(ref) as entry:
            turn = self._turn(ref, entry)
            if turn.turn is Turn.LEFT and self._desk.worker.budget is not None:
                self._desk.worker.budget.leave(ref.batch_key)
            board.turn(ref, turn)
            return turn, self._wait_s(ref) if turn.turn is Turn.WAITING else 0.0

    def _turn(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn:
        stop = self._desk.worker.pool.stop
        if stop is not None and not (stop.kind is FailureKind.BUDGET and entry.is_in_flight):
            return BatchTurn(ref, Turn.LEFT, stop.reason, stop.kind)
        if entry.phase in (Phase.STAGED, Phase.IN_DOUBT):
            return self._before(ref, entry)
        if entry.phase is Phase.SUBMITTED:
            return self._look(ref, entry)
        self._desk.open(ref)
        return BatchTurn(ref, Turn.ENDED)

    def _before(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn:
        turn = self._sender.advance(ref, entry)
        after = self._desk.entry(ref)
        if turn.turn is not Turn.WAITING:
            return turn
        if after.phase is Phase.SUBMITTED:
            self._rounds[ref.batch_key] = -1
            return turn
        if turn.reason:
            return self._failed_look(ref, turn.reason)
        if after.phase is not Phase.STAGED:
            return turn
        if after.attempt == entry.attempt:
            # Our own limits hold it back, and to look again is no exchange: it goes as soon as there is room.
            self._rounds[ref.batch_key] = -1
        return self._held_back(ref, after)

    def _held_back(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn:
        """Decide about a batch that waits for room at the provider: its deadline counts from its staging."""
        batching = self._desk.batching
        is_late = time.time() - entry.staged.staged_at_s > batching.deadline
        if not (is_late or batching.detach):
            return BatchTurn(ref, Turn.WAITING)
        why = entry.voids[-1].reason if entry.voids else "the provider's limits hold it back"
        if is_late and batching.on_deadline == "real_time" and not batching.detach:
            return BatchTurn(ref, Turn.UNSENT, f"batch {ref.batch_id} could not be submitted in time ({why})")
        return BatchTurn(ref, Turn.LEFT, f"batch {ref.batch_id} is not submitted yet ({why}); run the job again")

    def _failed_look(self, ref: BatchRef, reason: str) -> BatchTurn:
        looks = self._failed_looks[ref.batch_key] = self._failed_looks.get(ref.batch_key, 0) + 1
        if looks >= _MAX_FAILED_LOOKS or self._desk.batching.detach:
            return BatchTurn(ref, Turn.LEFT, reason)
        return BatchTurn(ref, Turn.WAITING)

    def _look(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn:
        desk, handle = self._desk, entry.handle
        assert handle is not None  # noqa: S101 - the phase says so
        desk.open(ref)
        state = desk.client.status(handle.provider_batch_id)
        if isinstance(state, CallError):
            return self._no_status(ref, state)
        return self._seen(ref, entry, handle, state)

    def _seen(self, ref: BatchRef, entry: BatchEntry, handle: Handle, state: BatchState) -> BatchTurn:
        desk = self._desk
        board.state(ref, state, desk.api.shows_progress, handle.submitted_at_s)
        if not state.is_known and state.raw_status not in self._warned:
            self._warned.add(state.raw_status)
            LOG.warning("batch_status_unknown", extra={"batch_id": ref.batch_id, "status": state.raw_status})
        if state.withheld is not None:
            reason = f"the results of batch {ref.batch_id} are withheld, not lost: {state.withheld}; add credits"
            return BatchTurn(ref, Turn.LEFT, reason, FailureKind.RESULTS_WITHHELD)
        if state.status is BatchStatus.GONE and state.raw_status == NOT_FOUND:
            return self._not_found(ref, handle)
        self._not_found_looks.pop(ref.batch_key, None)
        if state.is_terminal:
            return self._ended(ref, entry, handle, state)
        # Not before: looks at the results of an ended batch fail one after another, too.
        self._failed_looks.pop(ref.batch_key, None)
        late = time.time() - handle.submitted_at_s > desk.batching.deadline
        if late and (left := self._give_up(ref, entry, handle)):
            return left
        if desk.batching.detach:
            return BatchTurn(ref, Turn.LEFT, f"batch {ref.batch_id} is {state.raw_status} at {desk.name}")
        return BatchTurn(ref, Turn.WAITING)

    def _not_found(self, ref: BatchRef, handle: Handle) -> BatchTurn:
        """Decide about a batch that the provider does not know: that may pass, and may be the wrong key or project.

        Only the run that created it, by several looks, takes it for gone: to be wrong throws paid answers away.
        """
        looks = self._not_found_looks[ref.batch_key] = self._not_found_looks.get(ref.batch_key, 0) + 1
        if looks < _LOOKS_FOR_GONE and not self._desk.batching.detach:
            return BatchTurn(ref, Turn.WAITING)
        name, key = self._desk.name, ref.batch_key[:12]
        reason = (
            f"{name} knows no batch {handle.provider_batch_id}: is it the key, organisation and project that created "
            f"it? If it is lost, say so: rowbeam batches OUTPUT --resolve {key} --as gone"
        )
        if self._desk.batching.detach or handle.run_id != self._desk.settings.run_id:
            return BatchTurn(ref, Turn.LEFT, reason)
        now = time.time()
        ended = Ended(BatchStatus.GONE, NOT_FOUND, None, None, None, None, None, None, now)
        record_ended(self._desk.ledger, ref.batch_key, self._desk.entry(ref).attempt, ended)
        return BatchTurn(ref, Turn.ENDED)

    def _no_status(self, ref: BatchRef, error: CallError) -> BatchTurn:
        desk = self._desk
        message = desk.say(error.message)
        if error.kind in STOPPING:
            reason = f"{desk.name} refused the run ({error.kind}): {message}"
            return BatchTurn(ref, Turn.LEFT, reason, error.kind)
        reason = f"the status of batch {ref.batch_id} can't be had ({error.kind}: {message})"
        if error.kind not in RETRYABLE:
            return BatchTurn(ref, Turn.LEFT, reason)
        return self._failed_look(ref, reason)

    def _ended(self, ref: BatchRef, entry: BatchEntry, handle: Handle, state: BatchState) -> BatchTurn:
        desk, attempt, now = self._desk, entry.attempt, time.time()
        is_ours = handle.proven or self._is_ours(ref, state)
        if isinstance(is_ours, CallError):
            return self._failed_look(
                ref, f"the results of batch {ref.batch_id} can't be had ({desk.say(is_ours.message)})"
            )
        if not is_ours:
            disown(desk.ledger, entry.key, attempt, handle.provider_batch_id)
            LOG.warning(
                "batch_not_ours", extra={"batch_id": ref.batch_id, "provider_batch_id": handle.provider_batch_id}
            )
            return BatchTurn(ref, Turn.WAITING)
        if state.status is not BatchStatus.REJECTED:
            ended = Ended(state.status, state.raw_status, state.total, state.completed, state.failed,
                          state.output_file_id, state.error_file_id, state.results_url, now, state.has_inline_results)  # fmt: skip
            record_ended(desk.ledger, entry.key, attempt, ended)
            return BatchTurn(ref, Turn.ENDED)
        said = desk.say("; ".join(problem.message for problem in state.problems[:3]) or state.raw_status)
        is_queue_full = any(problem.code == _TOKEN_LIMIT for problem in state.problems)
        kind = FailureKind.ENQUEUED_LIMIT if is_queue_full else FailureKind.BATCH_REJECTED
        desk.void(ref, attempt, Void(said, str(kind), now))
        LOG.warning("batch_rejected", extra={"batch_id": ref.batch_id, "kind": str(kind), "reason": said})
        # Nothing ran. A full queue takes the same file when there is room; whatever else is wrong stays wrong.
        turn = Turn.WAITING if is_queue_full else Turn.UNSENT
        return BatchTurn(ref, turn, "" if is_queue_full else f"the provider rejected the whole batch: {said}")

    def _is_ours(self, ref: BatchRef, state: BatchState) -> bool | CallError:
        """Tell by the custom ids of its results whether a batch that time and count led to is the one we created."""
        desk = self._desk
        # Beside the asked file, where there is room for results; on this machine where that is in a bucket.
        with TemporaryDirectory(dir=None if is_remote(ref.asked_path) else parent(ref.asked_path)) as folder:
            fetched = desk.client.fetch(state, folder)
            if isinstance(fetched, CallError):
                return fetched
            ours = {member.custom_id for member in read_members(desk.ledger, ref.batch_key)}
            lines = (desk.api.read_line(line) for part in fetched for line in read_lines(part.path))
            told = {line.custom_id for line in islice(lines, _LINES_TO_TELL)} - {None}
        if not told and state.completed:
            # An empty page proves nothing: to disown our own batch is to pay for it twice.
            message = f"they name no request, though the provider counts {state.completed} as done"
            return CallError(FailureKind.MISSING_RESULT, message)
        return not told.isdisjoint(ours)

    def _give_up(self, ref: BatchRef, entry: BatchEntry, handle: Handle) -> BatchTurn | None:
        """Act on the deadline: leave the batch, or have it cancelled; None: go on waiting for its end."""
        desk = self._desk
        why = f"batch {ref.batch_id} is past batching.deadline"
        if desk.batching.on_deadline == "detach":
            return BatchTurn(ref, Turn.LEFT, f"{why}; the next run looks again")
        if not desk.api.can_cancel:
            cause = f"{why} and {desk.name} can't cancel: sending its requests again would be paid twice"
            return BatchTurn(ref, Turn.LEFT, cause)
        if not handle.proven:
            cause = (
                f"{why}, and whether {handle.provider_batch_id} is the one is not certain, so it is not cancelled; "
                f"when you know: rowbeam batches OUTPUT --cancel {handle.provider_batch_id}"
            )
            return BatchTurn(ref, Turn.LEFT, cause)
        if entry.cancel is not None and time.time() - entry.cancel.at_s > _CANCEL_TAKES_S:
            return BatchTurn(ref, Turn.LEFT, f"{why} and its cancelling does not come to an end; run the job again")
        if entry.cancel is None:
            asked = desk.client.cancel(handle.provider_batch_id)
            if not isinstance(asked, CallError):
                record_cancel(desk.ledger, entry.key, entry.attempt, Cancel(DEADLINE, time.time()))
                LOG.warning("batch_cancelled_at_deadline", extra={"batch_id": ref.batch_id})
        return None

    def _wait_s(self, ref: BatchRef) -> float:
        round_number = self._rounds[ref.batch_key] = self._rounds.get(ref.batch_key, -1) + 1
        batching, asked_for_s = self._desk.batching, self._desk.api.min_poll_s
        # Who sets an interval knows the provider's wish; the default bows to it.
        is_set = "poll_interval" in batching.model_fields_set
        return backoff_s(round_number, batching.poll_interval if is_set else max(batching.poll_interval, asked_for_s))
