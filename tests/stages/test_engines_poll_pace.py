"""A batch's next look goes where the batch goes: whichever worker gets it waits until then."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker

from transforms import poll_batches
from transforms.records.batch import BatchTurn, Turn


class _Watcher:
    """Counts looks; the batch never ends. wait_s: until the next look."""

    def __init__(self, wait_s: float) -> None:
        self.looks = 0
        self._wait_s = wait_s

    def step(self, ref: Any) -> tuple[BatchTurn, float]:
        self.looks += 1
        return BatchTurn(ref, Turn.WAITING), self._wait_s


class _Desk:
    """Counts a batch's calls: each look makes one."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.calls = 0

    def resume(self, _ref: Any, next_index: int) -> None:
        self.told.append(next_index)
        self.calls = max(self.calls, next_index)

    def used(self, _ref: Any) -> int:
        self.calls += 1
        return self.calls

    def take_records(self) -> list[Any]:
        return []

    def release(self) -> None:
        pass


def _worker(wait_s: float) -> Any:
    worker = poll_batches._PollBatchDoFn(SimpleNamespace())  # type: ignore[arg-type]
    worker._desk = _Desk()  # type: ignore[assignment]
    worker._watcher = _Watcher(wait_s)  # type: ignore[assignment]
    worker._counters = SimpleNamespace(add=lambda _name: None)  # type: ignore[assignment]
    return worker


def _give(worker: Any, restriction: OffsetRange) -> tuple[OffsetRange, float]:
    """Let a worker process the batch once; return what it deferred, and for how long."""
    tracker = ThreadsafeRestrictionTracker(poll_batches._Looks().create_tracker(restriction))
    turn = BatchTurn(SimpleNamespace(batch_key="k"), Turn.WAITING)  # type: ignore[arg-type]
    assert list(worker.process(turn, RestrictionTrackerView(tracker))) == []
    tracker.check_done()
    rest, delay = tracker.deferred_status()
    return rest, delay.micros / 1e6


@pytest.mark.parametrize("wait_s", [0.0, 0.001, 0.5, 3600.0])
def test_another_worker_knows_when_to_look_next(wait_s: float) -> None:
    """It looks no earlier than the first worker said, and then once."""
    first, second = _worker(wait_s), _worker(wait_s)
    began_s = time.time()
    rest, delay_s = _give(first, poll_batches._Looks().initial_restriction(None))  # type: ignore[arg-type]
    assert delay_s == pytest.approx(wait_s, abs=0.05)
    assert (rest.start >> 16) / 1000 == pytest.approx(began_s + wait_s, abs=0.1)
    if wait_s < 1:
        while not second._watcher.looks:
            rest, _ = _give(second, rest)
        assert time.time() - began_s >= wait_s - 0.002
    else:
        _give(second, rest)
        assert second._watcher.looks == 0


def test_another_worker_goes_on_numbering_calls() -> None:
    """The number of calls goes where the batch goes, through any number of deferrals."""
    first, second = _worker(0.0), _worker(0.0)
    rest, _ = _give(first, poll_batches._Looks().initial_restriction(None))  # type: ignore[arg-type]
    assert first._desk.told == [0]
    while not second._watcher.looks:
        rest, _ = _give(second, rest)
    while len(first._desk.told) < 2:
        rest, _ = _give(first, rest)
    assert second._desk.told == [1]
    assert first._desk.told == [0, 2]
