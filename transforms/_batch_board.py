"""How the batches of this process's run stand, for the progress display. Threads write and read; nothing else depends on it."""

import threading
import time
from dataclasses import dataclass, replace

from transforms.records.batch import BatchRef, BatchState, BatchTurn, Turn


@dataclass(frozen=True, slots=True)
class BatchView:
    """One batch as the display shows it.

    Attributes:
        status: held back, in doubt, the provider's status in our words, collecting, collected, left, not taken.
        requests: in it; completed, failed: by the provider's count, None where it gives none while the batch runs.
        submitted_at_s, seen_at_s: Unix seconds of the submission and of the last look, or None.
        shows_progress: the provider counts while it runs.
    """

    batch_id: str
    requests: int
    status: str = "staged"
    completed: int | None = None
    failed: int | None = None
    submitted_at_s: float | None = None
    seen_at_s: float | None = None
    shows_progress: bool = False
    provider_batch_id: str | None = None


class BatchBoard:
    """The views of all batches, by batch_id."""

    def __init__(self) -> None:
        self._views: dict[str, BatchView] = {}
        self._lock = threading.Lock()

    def views(self) -> list[BatchView]:
        """Return the views in the order the batches were first seen."""
        with self._lock:
            return list(self._views.values())

    def clear(self) -> None:
        """Forget all; at the start of a run."""
        with self._lock:
            self._views.clear()

    def state(self, ref: BatchRef, state: BatchState, shows_progress: bool, submitted_at_s: float) -> None:
        """Show what a status check gave."""
        shown = shows_progress or state.is_terminal
        self._update(
            ref,
            status=str(state.status),
            completed=state.completed if shown else None,
            failed=state.failed if shown else None,
            submitted_at_s=submitted_at_s,
            seen_at_s=time.time(),
            shows_progress=shows_progress,
            provider_batch_id=state.provider_batch_id,
        )

    def turn(self, ref: BatchRef, turn: BatchTurn) -> None:
        """Show a decision."""
        words = {Turn.UNSENT: "not taken", Turn.LEFT: "left for the next run", Turn.ENDED: "ended"}
        if turn.turn in words:
            self._update(ref, status=words[turn.turn])
        else:
            self._update(ref)

    def collected(self, ref: BatchRef, succeeded: int, failed: int) -> None:
        """Show that its results are in."""
        self._update(ref, status="collected", completed=succeeded, failed=failed)

    def _update(self, ref: BatchRef, **changes: object) -> None:
        with self._lock:
            view = self._views.get(ref.batch_id) or BatchView(ref.batch_id, ref.request_count)
            self._views[ref.batch_id] = replace(view, **changes)  # type: ignore[arg-type]


#: The one of this process.
board = BatchBoard()
