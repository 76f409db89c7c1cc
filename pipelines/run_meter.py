"""How far a run is: the counts that its stages, its pool of calls and its batches keep in this process.

Looking changes nothing. A run on another runner has no counts here.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Literal

from pipelines.batch_progress import BatchMeter, BatchSight
from transforms._batch_board import board

RunStage = Literal["reading", "waiting", "calling", "writing", "running"]

_LOCAL_RUNNERS = {"", "directrunner", "fnapirunner", "bundlebaseddirectrunner"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is.

    Attributes:
        stage: reading, waiting (for batches), calling, writing, or running (elsewhere).
        read: rows read so far; 0 until the first file is through.
        total: requests to send, as far as known; done: of these, settled.
        in_flight: at most; failed: requests given up; retried: tries made again.
        batches: the run's batches. With any, the counts are theirs while waiting, and of real-time calls after.
        at_s: Unix seconds.
    """

    stage: RunStage
    read: int = 0
    total: int = 0
    done: int = 0
    in_flight: int = 0
    failed: int = 0
    retried: int = 0
    batches: tuple[BatchSight, ...] = ()
    at_s: float = 0.0


class Meter:
    """Reads the counts of this process; what was there before it was made does not count."""

    def __init__(self, *, is_local: bool) -> None:
        self._is_local = is_local
        self._pool_done = self._pool_accepted = 0
        self._calls: Counter[str] = Counter()
        self._before = Counter(stage_counts()) if is_local else Counter()
        self._batches = BatchMeter()

    def follow(self, ledger: str) -> None:
        """Take what the board does not say about batches from this ledger."""
        self._batches.ledger = ledger

    def read(self) -> Snapshot:
        """Return the counts as they are now."""
        if not self._is_local:
            return Snapshot("running")
        now = Counter(stage_counts())
        now.subtract(self._before)
        seen, at_s = self._real_time(now), time.time()
        sights = self._batches.read(board.views(), provider_in_use(), at_s)
        if sights or now["StageBatches/groups_staged"] or now["AdoptBatches/batches_adopted"]:
            return _with_batches(seen, sights, at_s, self._pool_accepted)
        return seen

    def _real_time(self, now: Counter[str]) -> Snapshot:
        pool = pool_in_use()
        in_flight = 0
        if pool is not None:
            self._pool_done, self._pool_accepted = pool.settled, pool.accepted
            in_flight = pool.in_flight
            self._calls = Counter(dict(pool.stats))
        errors = _errors(self._calls, "errors_")
        retried = self._calls["retries"]
        total = max(now["ReuseAnswers/requests_fresh"], self._pool_accepted)
        done = self._pool_done
        return Snapshot(
            stage=_stage(now, total, done, self._pool_accepted),
            read=now["ReadRows/rows_read"],
            total=total,
            done=done,
            in_flight=max(0, in_flight),
            failed=max(0, errors - retried),
            retried=retried,
        )


def stage_counts() -> Counter[str]:
    """Return the live counts of this process's stages."""
    # Imported here: stages bring Beam, which nothing but a run has to wait for.
    from transforms._stage import live

    return live


def pool_in_use() -> Any:
    """Return this process's pool of calls, or None before and after there is one."""
    from transforms import _worker

    worker = _worker.current()
    return None if worker is None else worker.pool


def provider_in_use() -> str | None:
    """Return the name of the provider that this process calls, or None before and after."""
    from transforms import _worker

    worker = _worker.current()
    return None if worker is None else worker.provider.name


def _with_batches(seen: Snapshot, sights: tuple[BatchSight, ...], at_s: float, accepted: int) -> Snapshot:
    """Return a snapshot of a run with batches: what they leave unanswered is called for in real time after them."""
    if accepted > seen.done:
        return replace(seen, stage="calling", total=accepted, batches=sights, at_s=at_s)
    is_waiting = not sights or any(sight.is_open for sight in sights)
    return replace(
        seen,
        stage="waiting" if is_waiting else "writing",
        total=sum(sight.view.requests for sight in sights),
        done=sum(sight.settled or 0 for sight in sights),
        failed=sum(sight.view.failed or 0 for sight in sights) if is_waiting else seen.failed,
        batches=sights,
        at_s=at_s,
    )


def _errors(counts: Counter[str], prefix: str) -> int:
    return sum(count for name, count in counts.items() if name.startswith(prefix))


def _stage(now: Counter[str], total: int, done: int, accepted: int) -> Literal["reading", "calling", "writing"]:
    if now["JoinAnswers/rows_enriched"] or now["JoinAnswers/rows_failed"] or (total and done >= total):
        return "writing"
    return "calling" if accepted else "reading"


def is_local_run(beam_args: Sequence[str]) -> bool:
    """Say whether these Beam options run the pipeline in this process, where its counts can be seen."""
    given = _given(beam_args)
    is_alone = given.get("--direct_num_workers", "1") == "1" or given.get("--direct_running_mode") == "multi_threading"
    return is_local_runner(beam_args) and is_alone and given.get("--direct_running_mode") != "multi_processing"


def is_local_runner(beam_args: Sequence[str]) -> bool:
    """Say whether these Beam options run the pipeline on this machine, with this environment's variables."""
    return _given(beam_args).get("--runner", "").rsplit(".", 1)[-1].lower() in _LOCAL_RUNNERS


def _given(beam_args: Sequence[str]) -> dict[str, str]:
    """Return each option's value, whether it is written with an equals sign or as the next word."""
    given = {}
    for word, following in zip_longest(beam_args, beam_args[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        given[name] = value if equals else following
    return given
