"""How a run's batches stand, and when they may be done: from the board that the batch stages of this process keep.

The board says what the last look at the provider gave. Why a batch has not been submitted yet, or where it was left,
the ledger says; it is read now and then, and only while there is such a batch. Nothing is made up: an ETA needs counts
that have moved, and where the provider gives none, none are shown.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from transforms._batch_board import BatchView
from transforms.records.batch import BatchStatus
from transforms.records.errors import RowbeamError
from transforms.records.failure import FailureKind
from transforms.storage.batch_entry import BatchEntry, Phase
from transforms.storage.batch_fold import entries

_LEDGER_EVERY_S = 2.0
_LEFT = "left for the next run"
#: Statuses after which this run does nothing more about a batch.
_CLOSED = frozenset({"collected", "not taken", _LEFT})
#: Statuses that only the ledger can explain.
_UNTOLD = frozenset({"staged", str(BatchStatus.REJECTED), _LEFT})
_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled", "gone"})
_NAMES = {
    "anthropic": "Anthropic",
    "openai": "OpenAI",
    "azure.ai.openai": "Azure OpenAI",
    "openrouter": "OpenRouter",
}
_WORDS = {
    "finalizing": "finishing",
    "ended": "ended, results to be collected",
    "not taken": "not taken by the provider, its requests go real time",
}
_HELD_BACK = {
    None: "held back, the provider's limits leave no room yet",
    str(FailureKind.ENQUEUED_LIMIT): "held back, the provider's queue is full",
    str(FailureKind.RATE_LIMITED): "throttled, the provider asked to come again later",
    str(FailureKind.OVERLOADED): "throttled, the provider is overloaded",
}


@dataclass(frozen=True, slots=True)
class BatchSight:
    """One batch as the display shows it.

    Attributes:
        view: what the board holds of it.
        standing: where it is, in plain words.
        settled: requests that are done with, as counted; None while the provider gives no counts.
        eta_s: seconds until it may be done, by the pace since its submission; None as long as there is no telling.
        has_moved: the last look found more requests settled than the one before.
    """

    view: BatchView
    standing: str
    settled: int | None = None
    eta_s: float | None = None
    has_moved: bool = False

    @property
    def is_open(self) -> bool:
        """Whether this run goes on with it."""
        return self.view.status not in _CLOSED

    @property
    def is_submitted(self) -> bool:
        """Whether the provider has it, or had it; False again for one that it rejected."""
        return self.view.submitted_at_s is not None and self.view.status != str(BatchStatus.REJECTED)

    @property
    def is_ended(self) -> bool:
        """Whether the provider is done with it and this run has still to collect it."""
        return self.view.status == "ended" or self.view.status in _TERMINAL


@dataclass(slots=True)
class _Pace:
    """How a batch's settled count went from look to look."""

    first: int
    last: int
    looked_at_s: float | None
    has_moved: bool = False

    def look(self, settled: int, looked_at_s: float | None) -> None:
        if looked_at_s != self.looked_at_s:
            self.has_moved = settled > self.last
            self.last, self.looked_at_s = settled, looked_at_s


class BatchMeter:
    """Reads the board. Not thread-safe.

    Attributes:
        ledger: the job's ledger folder, once it is known; None: what only the ledger knows is not told.
    """

    def __init__(self) -> None:
        self.ledger: str | None = None
        self._paces: dict[str, _Pace] = {}
        self._entries: dict[str, BatchEntry] = {}
        self._read_at_s = float("-inf")

    def read(self, views: Iterable[BatchView], provider: str | None, now_s: float) -> tuple[BatchSight, ...]:
        """Return how the batches stand.

        Args:
            views: of the board.
            provider: its name as in the audit, or None if it is not known.
            now_s: Unix seconds.
        """
        found = list(views)
        if any(view.status in _UNTOLD for view in found):
            self._look_into_ledger()
        return tuple(self._sight(view, provider, now_s) for view in found)

    def _look_into_ledger(self) -> None:
        if self.ledger is None or time.monotonic() - self._read_at_s < _LEDGER_EVERY_S:
            return
        self._read_at_s = time.monotonic()
        try:
            self._entries = {entry.staged.batch_id: entry for entry in entries(self.ledger, with_closed=False)}
        except (RowbeamError, OSError):
            # A display is no place to fail; the stages will say what is wrong.
            self._entries = {}

    def _sight(self, view: BatchView, provider: str | None, now_s: float) -> BatchSight:
        standing = _standing(view, self._entries.get(view.batch_id), provider)
        if view.completed is None:
            # What has never been with the provider, or was just sent there, has nothing settled, for certain.
            return BatchSight(view, standing, 0 if view.submitted_at_s is None else None)
        settled = min(view.requests, view.completed + (view.failed or 0))
        pace = self._paces.setdefault(view.batch_id, _Pace(settled, settled, view.seen_at_s))
        pace.look(settled, view.seen_at_s)
        sight = BatchSight(view, standing, settled, has_moved=pace.has_moved)
        if settled <= pace.first or sight.is_ended or not sight.is_open or not view.shows_progress:
            return sight
        return BatchSight(view, standing, settled, _eta_s(view, settled, now_s), pace.has_moved)


def _eta_s(view: BatchView, settled: int, now_s: float) -> float | None:
    if view.submitted_at_s is None or view.seen_at_s is None or settled >= view.requests:
        return None
    took_s = view.seen_at_s - view.submitted_at_s
    left_s = took_s * (view.requests - settled) / settled - (now_s - view.seen_at_s)
    # A forecast that has not come true is none.
    return left_s if took_s > 0 and left_s > 0 else None


def _standing(view: BatchView, entry: BatchEntry | None, provider: str | None) -> str:
    if view.status in _UNTOLD:
        return _untold(view, entry)
    if view.status == str(BatchStatus.RUNNING) and not view.shows_progress:
        return f"running, {provider_name(provider)} gives no counts before the end"
    return _WORDS.get(view.status, view.status)


def provider_name(provider: str | None) -> str:
    """Return a provider's name for people, from its name in the audit."""
    return "the provider" if provider is None else _NAMES.get(provider, provider)


def _untold(view: BatchView, entry: BatchEntry | None) -> str:
    """Say where a batch is that the board says little about."""
    is_left = view.status == _LEFT
    phase = None if entry is None else entry.phase
    if phase is Phase.IN_DOUBT:
        words = "in doubt, its create got no reply"
        return f"{words}; the next run looks for it" if is_left else f"{words}; looking for it at the provider"
    if phase is Phase.STAGED and entry is not None and not is_left:
        kind = entry.voids[-1].kind if entry.voids else None
        return _HELD_BACK.get(kind, _HELD_BACK[None])
    if is_left:
        return "not submitted, left for the next run" if phase is Phase.STAGED else "left, the next run collects it"
    if phase is not None:
        return "submitted by an earlier run, not looked at yet"
    return "not submitted yet" if view.submitted_at_s is None else view.status
