"""Sending a batch: upload, intent, one create, handle; and finding out what became of a create without a reply (P2).

A create is sent by whoever created its intent, and by nobody else; a create whose reply was lost is looked for in
the provider's listing before another attempt is made.
"""

import random
import time
from collections.abc import Sequence

from transforms._batch_board import board
from transforms._batch_desk import LOG, BatchDesk
from transforms._budget import RunBudget
from transforms.providers.batch_client import Candidates, Found, LostReply
from transforms.records.batch import BatchRef, BatchState, BatchTurn, Turn
from transforms.records.failure import RETRYABLE, FailureKind
from transforms.records.reply import CallError
from transforms.storage.batch_claims import claims
from transforms.storage.batch_entry import BatchEntry, Handle, Intent, Phase, Void
from transforms.storage.batch_ledger import (
    create_intent,
    creates_since,
    record_handle,
    record_upload,
    requests_path,
    tokens_in_flight,
)
from transforms.storage.mutex import mutex
from transforms.storage.objects import local_copy

#: Creates of one batch, all told; a provider that turns this many away will not take the next.
MAX_ATTEMPTS = 500
_HOUR_S = 3600.0
#: An intent older than this at the moment of its create belongs to a process that stood still.
_STALE_INTENT_S = 30.0
#: Uploads and creates that may fail one after another, for reasons that may pass, before the requests go real time.
_MAX_FAILED_SENDS = 6
#: Refusals that stop the run: real-time calls would meet them, too.
STOPPING = frozenset({FailureKind.AUTH, FailureKind.QUOTA_EXHAUSTED})
#: Refusals for want of room: the batch waits for it, until its deadline.
_LATER = frozenset({FailureKind.ENQUEUED_LIMIT, FailureKind.RATE_LIMITED})
#: The turn in which an intent is made, and how long a batch waits for it before it is looked at again.
_CREATES, _PATIENCE_S = "creates", 5.0
#: When a batch may be tried again, by the provider's wish; time.monotonic of this process.
_not_before: dict[str, float] = {}


class BatchSender:
    """Brings staged batches to the provider. Of one DoFn."""

    def __init__(self, desk: BatchDesk) -> None:
        self._desk = desk
        self._absent_since: dict[tuple[str, int], float] = {}
        self._failed_sends: dict[str, int] = {}

    def advance(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn:
        """Take a batch that is staged or in doubt a step further; never blocks for longer than its exchanges take."""
        if entry.phase is Phase.IN_DOUBT:
            return self._reconcile(ref, entry)
        too_early = time.monotonic() < _not_before.get(entry.key, 0.0)
        if entry.phase is not Phase.STAGED or too_early or self._is_held_back(ref):
            return BatchTurn(ref, Turn.WAITING)
        return self._send(ref, entry)

    def _is_held_back(self, ref: BatchRef) -> bool:
        """Whether the provider's limits leave no room for this batch now."""
        desk, batching = self._desk, self._desk.batching
        place = (desk.name, desk.worker.provider.base_url)
        if creates_since(desk.ledger, time.time() - _HOUR_S, place=place) >= batching.batches_per_hour:
            return True
        limit = batching.enqueued_tokens
        waiting = 0 if limit is None else tokens_in_flight(desk.ledger, place=place)
        return limit is not None and waiting > 0 and waiting + ref.token_estimate > limit

    def _send(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn:
        if (turn := self._must_not_go(ref, entry)) is not None:
            return turn
        desk, attempt, budget = self._desk, entry.attempt, self._desk.worker.budget
        desk.open(ref)
        facts, path = desk.facts(entry, attempt), local_copy(requests_path(desk.ledger, entry.key))
        file_id = None
        if desk.api.uses_files:
            # A file of an attempt that came to nothing is still there.
            known = next(reversed(entry.uploads.values()), None)
            uploaded = known or desk.client.upload(facts, path)
            if isinstance(uploaded, CallError):
                return self._unsent(ref, uploaded, "upload")
            file_id = uploaded
            record_upload(desk.ledger, entry.key, attempt, file_id)
        if budget is not None and not budget.hold_batch(ref, attempt):
            return BatchTurn(ref, Turn.WAITING)  # another worker took what there was
        intent = self._intend(ref, entry)
        if intent is None:
            return BatchTurn(ref, Turn.WAITING)
        if desk.worker.pool.stop is not None or time.time() - intent.intended_at_s > _STALE_INTENT_S:
            # The upload took long, or this process stood still: by now another run may have the output.
            desk.void(ref, attempt, Void("the run had to stop before it", "not_sent", time.time()))
            return self._send(ref, desk.entry(ref)) if desk.worker.pool.stop else BatchTurn(ref, Turn.WAITING)
        return self._created(ref, attempt, file_id, desk.client.create(facts, file_id, path))

    def _intend(self, ref: BatchRef, entry: BatchEntry) -> Intent | None:
        """Put on record that a create comes next; None where it may not, now.

        The provider's limits are the job's: two workers that looked at the same moment must not both go.
        """
        desk, staged = self._desk, entry.staged
        with mutex(desk.ledger, _CREATES, _PATIENCE_S, shared=desk.settings.shared_limits) as has_turn:
            if not has_turn or self._is_held_back(ref):
                return None
            # Of now: to look may take its time, and an intent grows stale.
            intent = Intent(entry.key, entry.attempt, staged.run_id, staged.nonce, staged.request_count, time.time())
            return intent if create_intent(desk.ledger, intent) else None

    def _must_not_go(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn | None:
        """Return where a batch stands that is not to be sent now; None when it is."""
        worker = self._desk.worker
        stop = worker.pool.stop
        if stop is not None:
            # The run must send no more: the provider refused it, or another run has taken the output over.
            return BatchTurn(ref, Turn.LEFT, stop.reason, stop.kind)
        if entry.attempt >= MAX_ATTEMPTS:
            return BatchTurn(ref, Turn.UNSENT, f"the provider took none of {entry.attempt} creates")
        if worker.budget is not None and not worker.budget.has_room(ref, entry.attempt):
            return self._no_room(ref, worker.budget)
        return None

    def _no_room(self, ref: BatchRef, budget: RunBudget) -> BatchTurn:
        """Wait while something of this process may make room in the budget; else stop."""
        if not budget.may_free(ref.batch_key):
            return BatchTurn(ref, Turn.LEFT, budget.explain_batch(ref), FailureKind.BUDGET)
        late = time.time() - self._desk.entry(ref).staged.staged_at_s > self._desk.batching.deadline
        if not (self._desk.batching.detach or late):
            return BatchTurn(ref, Turn.WAITING)
        # Not real time, though it is late: that would cost twice as much, from the same budget.
        reason = "the budget has no room until other batches are collected; run the job again when they have ended"
        return BatchTurn(ref, Turn.LEFT, reason, FailureKind.BUDGET if late else None)

    def _created(
        self, ref: BatchRef, attempt: int, file_id: str | None, outcome: BatchState | CallError | LostReply
    ) -> BatchTurn:
        if isinstance(outcome, BatchState):
            self._keep(ref, attempt, outcome, file_id, is_proven=True)
            return BatchTurn(ref, Turn.WAITING)
        desk = self._desk
        if isinstance(outcome, LostReply):
            told = {"batch_id": ref.batch_id, "reason": desk.say(outcome.error.message)}
            LOG.warning("batch_create_in_doubt", extra=told)
            return BatchTurn(ref, Turn.WAITING)
        void = Void(desk.say(outcome.message), str(outcome.kind), time.time())
        desk.void(ref, attempt, void)
        return self._unsent(ref, outcome, "create")

    def _unsent(self, ref: BatchRef, error: CallError, what: str) -> BatchTurn:
        message, name = self._desk.say(error.message), self._desk.name
        if error.kind in STOPPING:
            return BatchTurn(ref, Turn.LEFT, f"{name} refused the run ({error.kind}): {message}", error.kind)
        if error.retry_after_s is not None:
            _not_before[ref.batch_key] = time.monotonic() + error.retry_after_s
        if error.kind in _LATER or self._may_pass(ref, error.kind):
            LOG.warning("batch_not_taken_yet", extra={"batch_id": ref.batch_id, "step": what, "reason": message})
            return BatchTurn(ref, Turn.WAITING)
        reason = f"{name}'s batch API did not take the {what} ({error.kind}): {message}"
        LOG.warning("batch_not_taken", extra={"batch_id": ref.batch_id, "reason": reason})
        return BatchTurn(ref, Turn.UNSENT, reason)

    def _may_pass(self, ref: BatchRef, kind: FailureKind) -> bool:
        """Whether a failed upload or create is worth another look: real time costs twice as much."""
        failed = self._failed_sends[ref.batch_key] = self._failed_sends.get(ref.batch_key, 0) + 1
        return kind in RETRYABLE and failed < _MAX_FAILED_SENDS

    def _keep(self, ref: BatchRef, attempt: int, state: BatchState, file_id: str | None, *, is_proven: bool) -> None:
        desk = self._desk
        submitted_at_s = state.created_at_s or time.time()
        given = state.input_file_id or file_id
        handle = Handle(state.provider_batch_id, given, submitted_at_s, desk.settings.run_id, is_proven)
        record_handle(desk.ledger, ref.batch_key, attempt, handle)
        board.state(ref, state, desk.api.shows_progress, submitted_at_s)
        facts = {"batch_id": ref.batch_id, "provider_batch_id": state.provider_batch_id, "requests": ref.request_count}
        LOG.info("batch_submitted" if is_proven else "batch_adopted", extra=facts)

    def _reconcile(self, ref: BatchRef, entry: BatchEntry) -> BatchTurn:
        """Look for the batch of a create without a reply; adopt it, or prove that there is none, or leave it open."""
        desk, intent = self._desk, entry.intent
        assert intent is not None  # noqa: S101 - the phase says so
        desk.open(ref)
        found = desk.client.find(desk.facts(entry, intent.attempt), intent.intended_at_s)
        if isinstance(found, CallError):
            key = entry.key[:12]
            reason = (
                f"nobody knows whether batch {key} exists at {desk.name}: its create got no reply and the listing "
                f"fails ({desk.say(found.message)}); run the job again, or decide: rowbeam batches OUTPUT --resolve {key}"
            )
            return BatchTurn(ref, Turn.WAITING, reason)
        if isinstance(found, Found):
            self._keep(ref, intent.attempt, found.state, entry.file_id, is_proven=True)
        elif isinstance(found, Candidates) and (turn := self._choose(ref, entry, intent, found.states)):
            return turn
        elif self._is_absent(entry):
            void = Void("the listing shows that it was never created", "absent", time.time())
            desk.void(ref, intent.attempt, void)
            return self.advance(ref, desk.entry(ref))
        return BatchTurn(ref, Turn.WAITING)

    def _choose(
        self, ref: BatchRef, entry: BatchEntry, intent: Intent, states: Sequence[BatchState]
    ) -> BatchTurn | None:
        """Adopt the earliest batch that may be ours and is nobody's, or wait where one may be; None: none may be."""
        desk = self._desk
        known = claims(desk.ledger, entry.key)
        states = [state for state in states if state.provider_batch_id not in known.taken]
        free = [state for state in states if state.provider_batch_id not in known.open]
        if free:
            self._keep(ref, intent.attempt, free[-1], entry.file_id, is_proven=False)
        elif not states:
            return None
        elif desk.batching.detach or time.time() - intent.intended_at_s > desk.batching.deadline:
            reason = (
                f"the create of batch {entry.key[:12]} got no reply; it may have made {states[-1].provider_batch_id}, "
                f"and so may another of this job, which shows when that one has ended; run the job again"
            )
            return BatchTurn(ref, Turn.LEFT, reason)
        self._absent_since.pop((entry.key, entry.attempt), None)
        return BatchTurn(ref, Turn.WAITING)

    def _is_absent(self, entry: BatchEntry) -> bool:
        """Whether two looks, some time apart, have shown nothing: a listing may lag behind a create."""
        now = time.time()
        first = self._absent_since.setdefault((entry.key, entry.attempt), now)
        return now - first >= self._desk.batching.settle


def backoff_s(round_number: int, first_s: float, most_s: float = 900.0) -> float:
    """Return seconds to the next look: growing by half each round from first_s to most_s, with a tenth of jitter."""
    grown = min(most_s, first_s * 1.5 ** min(round_number, 40))
    return float(grown * random.uniform(0.9, 1.1))
