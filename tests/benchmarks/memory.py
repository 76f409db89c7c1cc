"""How much memory this process holds while it works, seen from a thread of its own."""

import gc
import os
import resource
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_STATM = Path("/proc/self/statm")
_INTERVAL_S = 0.01
_KEPT_SAMPLES = 400


class MemoryWatch:
    """Samples the resident memory every ten milliseconds between entering and leaving its block.

    Attributes:
        rows_done: to be raised by whoever works; noted with each sample.
    """

    def __init__(self) -> None:
        self.rows_done = 0
        self._samples: list[tuple[float, int, float]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watch", daemon=True)

    def __enter__(self) -> Self:
        gc.collect()
        self._started = time.perf_counter()
        self._note()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._note()

    def facts(self) -> dict[str, Any]:
        """Return base_mb (before the work), peak_mb, and curve: [seconds, rows done, MB], at most 400 points.

        Where samples are thinned out, the highest of each stretch stays.
        """
        step = -(-len(self._samples) // _KEPT_SAMPLES)
        stretches = [self._samples[start : start + step] for start in range(0, len(self._samples), step)]
        highest = [max(stretch, key=lambda sample: sample[2]) for stretch in stretches]
        return {
            "base_mb": self._samples[0][2],
            "peak_mb": max(sample[2] for sample in self._samples),
            "curve": [[round(at_s, 3), rows, round(held, 2)] for at_s, rows, held in highest],
        }

    def _watch(self) -> None:
        while not self._end.wait(_INTERVAL_S):
            self._note()

    def _note(self) -> None:
        self._samples.append((time.perf_counter() - self._started, self.rows_done, resident_mb()))


def resident_mb() -> float:
    """Return the memory this process holds now, MB; where /proc is missing, the most it has held."""
    if _STATM.exists():
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
