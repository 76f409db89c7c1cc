"""The budget's log: `ledger/budget/000001.json`, `000002.json` ..., one small file per entry, in one total order.

A writer reads the log to its end, decides, and creates the next number if it is absent; if somebody was quicker, it
reads on and decides again. So every hold was checked against everything before it, and the sum of what is charged
never passes the budget, for any number of workers and without a service. The same holds on an object store that
creates a file only if it is absent. Entries are never changed or removed; a hold is durable before it counts.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

import orjson

from transforms.records.errors import InternalError
from transforms.rules.budget import BudgetEntry, BudgetState, What, slice_units, units_up, usd_text
from transforms.storage.objects import create_if_absent, is_remote, join, list_files, read_bytes

_FOLDER = "budget"
_NUMBER = re.compile(r"[0-9]{6,}")
_OPS: dict[str, Literal["hold", "settle"]] = {"hold": "hold", "settle": "settle"}
_CURE = "restore it from a backup: without it nobody knows what is left of the budget"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be charged. run_id: the charges of this run alone count; None: those of all runs of the output."""

    units: int
    run_id: str | None


class BudgetLog:
    """The log of one output, as one process sees it. Thread-safe; what was read is not read again.

    Args:
        ledger: the ledger's folder.
        run_id: in whose name entries are made.
        allowance: what may be charged.
        clock: Unix seconds.
    """

    def __init__(self, ledger: str, run_id: str, allowance: Allowance, clock: Callable[[], float] = time.time) -> None:
        self._folder = join(ledger, _FOLDER)
        self._run_id = run_id
        self._allowance = allowance
        self._clock = clock
        self._lock = threading.Lock()
        self._state = BudgetState()
        self._last = 0

    def charged(self) -> int:
        """Read on, and return what counts against the allowance.

        Raises:
            InternalError: an entry is damaged or missing.
        """
        with self._lock:
            self._read_on()
            return self._state.charged(self._allowance.run_id)

    def held(self, entry_id: str) -> int | None:
        """Read on, and return the amount of an open hold; None where there is none."""
        with self._lock:
            self._read_on()
            return self._state.held(entry_id)

    def open_holds(self, what: What) -> list[BudgetEntry]:
        """Read on, and return the open holds of one kind."""
        with self._lock:
            self._read_on()
            return self._state.open_holds(what)

    def available(self) -> int:
        """Read on, and return what is left of the allowance; 0 when more is charged than it allows."""
        return max(0, self._allowance.units - self.charged())

    def hold(self, entry_id: str, units: int, what: What) -> bool:
        """Hold an amount, durably, if it is available; say whether it is held.

        An open hold of this id is as good as a new one; a settled one is none.

        Raises:
            InternalError: the log is damaged.
            OSError: the disk is full and the like.
        """

        def decide(state: BudgetState) -> int | None:
            if state.held(entry_id) is not None or state.is_settled(entry_id) or units > self._available():
                return None
            return units

        self._append("hold", entry_id, what, decide)
        return self.held(entry_id) is not None

    def take_slice(self, entry_id: str, need: int) -> int:
        """Hold a slice of at least `need` under a new id and return its size; 0 when there is too little left.

        Raises:
            InternalError, OSError: as `hold`.
        """
        return self._append("hold", entry_id, "slice", lambda _state: slice_units(self._available(), need) or None)

    def settle(self, entry_id: str, units: int, what: What = "slice") -> None:
        """Say what was charged, of the hold of this id or without one; may be repeated, the first word counts.

        Raises:
            InternalError, OSError: as `hold`.
        """
        self._append("settle", entry_id, what, lambda state: None if state.is_settled(entry_id) else units)

    def _append(
        self,
        op: Literal["hold", "settle"],
        entry_id: str,
        what: What,
        decide: Callable[[BudgetState], int | None],
    ) -> int:
        """Make the entry that `decide` wants, when it has seen all entries before; return its amount, or 0."""
        with self._lock:
            while True:
                self._read_on()
                units = decide(self._state)
                if units is None:
                    return 0
                entry = BudgetEntry(op, entry_id, units, self._run_id, what, round(self._clock(), 3))
                if create_if_absent(self._path(self._last + 1), _encode(entry)):
                    self._last += 1
                    self._state.apply(entry)
                    return units

    def _available(self) -> int:
        return max(0, self._allowance.units - self._state.charged(self._allowance.run_id))

    def _read_on(self) -> None:
        # Listed before reading: what others add meanwhile is no gap.
        newest = 0 if self._last else self._newest()
        while True:
            path = self._path(self._last + 1)
            try:
                data = read_bytes(path)
            except FileNotFoundError:
                break
            self._state.apply(_decode(path, data))
            self._last += 1
        if newest > self._last:
            raise InternalError(f"{path} is missing, though there are later ones; {_CURE}")

    def _newest(self) -> int:
        # What people and tools leave beside the entries (a copy, notes) is none.
        names = (Path(path).stem for path in list_files(self._folder, ".json"))
        return max((int(name) for name in names if _NUMBER.fullmatch(name)), default=0)

    def _path(self, number: int) -> str:
        return join(self._folder, f"{number:06d}.json")


def has_log(ledger: str) -> bool:
    """Say whether any run of this output ever had a budget."""
    folder = join(ledger, _FOLDER)
    return bool(list_files(folder, ".json")) if is_remote(folder) else Path(folder).is_dir()


def _encode(entry: BudgetEntry) -> bytes:
    # Every value is one that reads back the same: amounts are text, in plain digits.
    return orjson.dumps(
        {
            "op": entry.op,
            "id": entry.id,
            "usd": usd_text(entry.units),
            "run_id": entry.run_id,
            "what": entry.what,
            "at_s": entry.at_s,
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def _decode(path: str, data: bytes) -> BudgetEntry:
    try:
        found = orjson.loads(data)
        op: Literal["hold", "settle"] = _OPS[found["op"]]
        units = units_up(Decimal(found["usd"]))
        return _checked(BudgetEntry(op, found["id"], units, found["run_id"], found["what"], found["at_s"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise InternalError(f"{path} is damaged ({error!r}); {_CURE}") from error


def _checked(entry: BudgetEntry) -> BudgetEntry:
    """Return an entry, or raise for what is never written: an edit by hand must not make room in a budget."""
    if entry.units < 0:
        raise ValueError(f"usd: {usd_text(entry.units)} is below zero")
    if not (isinstance(entry.id, str) and isinstance(entry.run_id, str)):
        raise TypeError("id and run_id: no texts")
    if entry.what not in get_args(What):
        raise ValueError(f"what: {entry.what}")
    return entry
