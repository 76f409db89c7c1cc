"""The shares that the processes of a run hold of its limits: `ledger/limits/<run_id>.json`, changed by compare and swap.

Works wherever the ledger is, on a disk or in a bucket, without a service. `transforms/rules/shares.py` says who gets what; this
module reads and stores it. Nothing here is needed after the run.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict

import orjson

from transforms.records.errors import InternalError
from transforms.rules.shares import Grant, Look, Member, Pace, Shares, Watch, ask, leave, part_of, take_turn
from transforms.storage import objects
from transforms.storage.slot import Slot, Version, open_slot

_FOLDER = "limits"
PACE = Pace()


class LimitShares:
    """One process's place among those that share a run's limits. For one thread at a time; every call reads a file.

    Args:
        ledger: the ledger's folder.
        run_id: whose limits they are.
        whole: in how many units they are divided, the same for all.
        pace: how often turns are taken.
        clock, unix_clock: seconds.
    """

    def __init__(
        self,
        ledger: str,
        run_id: str,
        whole: int,
        pace: Pace = PACE,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self.whole = whole
        self._folder = objects.join(ledger, _FOLDER)
        self._name = f"{run_id}.json"
        self._pace = pace
        self._clock = clock
        self._unix_clock = unix_clock
        self._slot: Slot | None = None
        self._who = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"
        self._beat = 0
        self._watch = Watch()
        self._asked: Shares | None = None
        self._version: Version = None

    def look(self, *, is_done: bool = False) -> Look:
        """Begin a turn: read what all hold.

        Args:
            is_done: this process has had its time, where there is not enough for all.

        Raises:
            OSError: the file can't be read.
            InternalError: it can't be understood.
        """
        shares, self._version = self._read()
        gone = self._watch.gone(shares, self._clock())
        self._asked = ask(shares, self._who, gone, is_done=is_done)
        return Look(shares.held(self._who), part_of(self._asked, self._who))

    def settle(self, in_use: int) -> Grant | None:
        """End the turn that `look` began, durably.

        Args:
            in_use: the units that calls in flight need; the process starts none meanwhile beyond its part.

        Returns:
            What the process holds now; None when another was quicker, and the turn is to begin anew.

        Raises:
            OSError: the file can't be written; what it holds is known by the next `look`.
        """
        assert self._asked is not None  # noqa: S101 - `look` comes first
        asked, self._asked = self._asked, None
        self._beat += 1
        ttl_s = self._pace.ttl_of(len(asked.members))
        # Before the writing: nobody may see the turn earlier than its own process began to count.
        now, unix_s = self._clock(), self._unix_clock()
        taken = take_turn(asked, self._who, in_use, self._beat, ttl_s)
        if not self._swap(taken):
            return None
        valid_s = self._pace.valid_s(ttl_s)
        next_turn_s = self._pace.turn_of(len(taken.members))
        units = taken.held(self._who)
        return Grant(units, now + valid_s, unix_s + valid_s, next_turn_s, is_first=asked.changes == 0)

    def leave(self) -> None:
        """Give everything back; what is in flight no more is the caller's promise.

        Raises:
            OSError, InternalError: as `look`; then others have it when its time is over.
        """
        while True:
            shares, self._version = self._read()
            if self._who not in shares.members or self._swap(leave(shares, self._who)):
                return

    def _swap(self, shares: Shares) -> bool:
        data = orjson.dumps(asdict(shares), option=orjson.OPT_INDENT_2)
        return self._open().swap(self._version, data)

    def _read(self) -> tuple[Shares, Version]:
        slot = self._open()
        data, version = slot.read()
        if data is None:
            return Shares(self.whole, 0, {}), version
        try:
            return _decode(data), version
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InternalError(
                f"{slot.path} can't be understood ({error!r}): nobody knows who holds what of the run's limits; stop the "
                "run and start it again, which begins a new file"
            ) from error

    def _open(self) -> Slot:
        if self._slot is None:
            self._slot = open_slot(self._folder, self._name)
        return self._slot


def forget_shares(ledger: str, run_id: str) -> None:
    """Remove what a run that has ended left; whoever ends it knows that no process of it is left."""
    for name in (f"{run_id}.json", f"{run_id}.lock"):
        objects.remove(objects.join(ledger, _FOLDER, name))


def _decode(data: bytes) -> Shares:
    found = orjson.loads(data)
    members = {who: Member(**member) for who, member in found["members"].items()}
    shares = Shares(found["whole"], found["changes"], members)
    if shares.free < 0:
        raise ValueError("more is held than there is")
    return shares
