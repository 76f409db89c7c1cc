"""A process's purse: what its real-time calls may still spend, taken in slices from the run's budget (P6).

Every try is reserved at its worst case before it is sent and settled when it has ended. The purse itself never
touches a file: it asks a `Bank` for slices, in a thread of its own, and wakes the pool when one has come. `reserve`
and `settle` take about a microsecond.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Protocol

from transforms.records.request import Prompt
from transforms.rules.budget import NO_WORST_CASE, WorstCase, units_up


class Bank(Protocol):
    """Where slices come from. Both calls may take milliseconds, and are made one at a time."""

    def take(self, need: int) -> int:
        """Return a slice of at least `need`, held durably from now on; 0 when so much is not left."""
        ...

    def settle(self, charged: int) -> None:
        """Give all slices back but what was charged; durable."""
        ...


class Purse:
    """What one process may spend in real time. Thread-safe.

    Args:
        worst: of the job's requests.
        bank: gives slices.
        explain: says, for the worst case of a request that found no room, why the run stops and what to do.
    """

    def __init__(self, worst: WorstCase, bank: Bank, explain: Callable[[int], str]) -> None:
        self._worst = worst
        self._bank = bank
        self._explain = explain
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(1, "rowbeam-budget")
        #: Called, from any thread, when asking again may help.
        self.wake: Callable[[], object] = lambda: None
        #: Of the slices: not reserved; reserved by calls that are out; spent. May be less than nothing when a call
        #: cost more than its worst case: then the next slice makes up for it.
        self._free = 0
        self._reserved = 0
        self._charged = 0
        self._out = 0
        #: What the dearest call cost that cost more than its worst case: a provider can be dearer than the price table.
        self._dearest = 0
        self._is_asking = False
        self._refused: int | None = None
        self._failure: BaseException | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no call of this process is out."""
        return self._out == 0

    @property
    def unused(self) -> int:
        """What the slices hold and no call has reserved or spent, in units."""
        return max(0, self._free)

    def worst(self, prompt: Prompt) -> int:
        """Return what a request may cost at most, in units; once a call has cost more than that, as much as it did."""
        return max(self._dearest, self._worst.of_prompt(prompt))

    def reserve(self, worst: int) -> float | str:
        """Reserve the worst case of a try and return 0.0, or inf, or a sentence.

        inf: waiting may help; `wake` or the end of a call tells. A sentence: the budget has no room, and nothing of this
        process is out that could make any. Every 0.0 is followed by one `settle` or `unreserve`.

        Raises:
            Exception: the budget's log can't be read or written.
        """
        with self._lock:
            if self._free >= worst:
                self._free -= worst
                self._reserved += worst
                self._out += 1
                return 0.0
            if self._failure is not None:
                raise self._failure
            need = worst - self._free
            if self._is_asking or (self._out and self._refused is not None and need >= self._refused):
                return float("inf")
            if self._out or self._refused is None or need < self._refused:
                self._is_asking = True
                self._threads.submit(self._ask, need, is_last_word=self._out == 0)
                return float("inf")
        return self._explain(worst)

    def unreserve(self, worst: int) -> None:
        """Take a reservation back: the try was not sent."""
        self._end(worst, 0)

    def settle(self, worst: int, cost_usd: Decimal | None) -> None:
        """Charge a try that has ended with what it cost; None, for what nobody knows, with its worst case."""
        charged = worst if cost_usd is None else units_up(cost_usd)
        # Without a price every call costs more than its worst case, and only known costs count.
        if charged > worst and self._worst != NO_WORST_CASE:
            with self._lock:
                self._dearest = max(self._dearest, charged)
        self._end(worst, charged)

    def give_back(self) -> bool:
        """Settle all slices, when no call is out, so that what is left of them is free again; may take a while.

        Returns:
            True when that made anything free.
        """
        with self._lock:
            if self._out or self._is_asking or self._free <= 0:
                return False
            # Whoever reserves meanwhile waits for a new slice.
            charged, self._charged, self._free, self._is_asking = self._charged, 0, 0, True
        try:
            self._bank.settle(charged)
        except BaseException:
            # The account is not settled: its slices stay held, and what was spent of them stays to be said.
            with self._lock:
                self._charged += charged
            raise
        finally:
            with self._lock:
                self._is_asking = False
                self._refused = None
            self._tell()
        return True

    def close(self) -> None:
        """Settle all slices; what is still out, cut off, counts as spent at its worst case."""
        self._threads.shutdown(wait=True)
        with self._lock:
            charged = self._charged + self._reserved
            self._charged = self._reserved = self._free = 0
        self._bank.settle(charged)

    def _end(self, worst: int, charged: int) -> None:
        with self._lock:
            self._reserved -= worst
            self._charged += charged
            self._free += worst - charged
            self._out -= 1
            if self._out == 0:
                # What others have given back meanwhile is looked for once more before the run stops.
                self._refused = None

    def _ask(self, need: int, *, is_last_word: bool) -> None:
        """Get a slice; what is refused while calls are out is asked for again when none is."""
        taken, failure = 0, None
        try:
            taken = self._bank.take(need)
        except Exception as exc:  # noqa: BLE001 - this thread has no caller: the next reserve raises it
            failure = exc
        with self._lock:
            self._is_asking = False
            self._free += taken
            self._failure = failure
            is_stale = not is_last_word and self._out == 0
            self._refused = None if taken or is_stale else need
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the pool's loop is closed: nobody waits any more
            self.wake()
