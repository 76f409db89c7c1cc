"""One run at a time per output: `ledger/lease.json`, with an owner and an expiry.

The owner renews it from a thread. A lease whose owner is dead (on this machine) or that has expired (anywhere) is
taken over; of several takers exactly one wins, because every change is made to what was read, or not at all.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import orjson

from transforms.records.errors import InternalError, OutputBusyError
from transforms.storage.objects import parent
from transforms.storage.processes import ProcessId, is_dead, this_process
from transforms.storage.slot import Slot, Version, open_slot

_LOG = logging.getLogger("rowbeam.lease")
#: How often a lease that others change at the same moment is tried for.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class _Held:
    """The content of lease.json; times are seconds since the epoch, token is unique per Lease object."""

    token: str
    run_id: str
    owner: ProcessId
    acquired_at: float
    expires_at: float


class Lease:
    """The right to write to one output, held from `acquire` (or `with`) to `release`.

    Attributes:
        lost: True once another run took the lease over, or it could not be renewed in time (a suspended laptop, a
            full disk). The owner looks at it and stops sending. Never becomes False again.
    """

    def __init__(
        self, ledger_folder: str, run_id: str, ttl_s: float = 60.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = ledger_folder
        self._slot: Slot | None = None
        self._run_id = run_id
        self._ttl_s = ttl_s
        self._clock = clock
        self._token = secrets.token_hex(16)
        self._expires_at = 0.0
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None
        self._lost = False
        self._is_renewing = False

    @property
    def lost(self) -> bool:
        """Whether the lease is ours no more, or its renewal hangs for longer than it lasts; never False again."""
        if self._is_renewing and self._clock() >= self._expires_at:
            self._lost = True
        return self._lost

    def acquire(self) -> None:
        """Take the lease and start renewing it every third of its time to live.

        Raises:
            OutputBusyError: a live run holds it; says which, since when, and what to do.
            InternalError: lease.json can't be understood.
        """
        self._slot = slot = open_slot(self._folder, "lease.json")
        now = self._clock()
        for _ in range(_TRIES):
            held, version = self._read(slot)
            now = self._clock()
            if held is not None and held.expires_at > now and not is_dead(held.owner):
                raise OutputBusyError(self._busy(held))
            if self._swap(slot, version, acquired_at=now, now=now):
                break
        else:
            raise OutputBusyError(f"the lease {slot.path} is taken and given back all the time; try again")
        self._heart = threading.Thread(target=self._beat, args=(now,), name="rowbeam-lease", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the lease back; a lease that another run took over stays that run's."""
        self._stop.set()
        if self._heart is not None:
            self._heart.join()
        if self._slot is not None:
            held, version = self._read(self._slot)
            if held is not None and held.token == self._token:
                self._slot.swap(version, None)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except (OSError, InternalError) as trouble:
            # It expires by itself, and must not hide how the block ended.
            _LOG.warning("lease_not_given_back", extra={"run_id": self._run_id, "reason": str(trouble)})

    def _beat(self, acquired_at: float) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            self._is_renewing = True
            try:
                self._renew(acquired_at)
            except (OSError, InternalError):
                # Tried again at the next beat; nobody else may take the lease before it expires.
                self._lost = self._lost or self._clock() >= self._expires_at
            self._is_renewing = False
            if self._lost:
                return

    def _renew(self, acquired_at: float) -> None:
        assert self._slot is not None  # noqa: S101 - the thread starts after it
        for _ in range(_TRIES):
            held, version = self._read(self._slot)
            if held is None or held.token != self._token:
                self._lost = True
                return
            if self._swap(self._slot, version, acquired_at=acquired_at, now=self._clock()):
                return

    def _swap(self, slot: Slot, version: Version, acquired_at: float, now: float) -> bool:
        held = _Held(self._token, self._run_id, this_process(), acquired_at, now + self._ttl_s)
        if not slot.swap(version, orjson.dumps(asdict(held), option=orjson.OPT_INDENT_2)):
            return False
        self._expires_at = held.expires_at
        return True

    def _read(self, slot: Slot) -> tuple[_Held | None, Version]:
        data, version = slot.read()
        if data is None:
            return None, version
        try:
            found = orjson.loads(data)
            return _Held(**{**found, "owner": ProcessId(**found["owner"])}), version
        except (ValueError, KeyError, TypeError) as error:
            raise InternalError(
                f"{slot.path} can't be understood ({error}); if no run is writing to this output, delete it"
            ) from error

    def _busy(self, held: _Held) -> str:
        since = datetime.fromtimestamp(held.acquired_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"the output {parent(self._folder)} is in use by run {held.run_id} (process {held.owner.pid} on "
            f"{held.owner.host}) since {since}; wait until it ends, or stop that process and start again "
            f"(the lease of a run that is gone is free after {self._ttl_s:g} seconds at most)"
        )
