"""Keeps this process's part of the run's limits, where several processes share them.

A task on the pool's loop takes turns (`transforms/rules/shares.py`) as long as there is something to send; the reading and writing
happens in a thread beside it. The part is cut on the loop before the cut is stored, and grows on it after the growth
is, so no call is ever admitted on what another process may hold. What is in flight keeps its units until it has ended.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from transforms.providers.admission import Admission
from transforms.records.settings import PoolSettings
from transforms.rules.shares import Grant, Look, slots_of, units_of

_LOG = logging.getLogger("rowbeam.calls")
#: Part of a turn without anything to send after which everything is given back: longer than what is between two bundles.
_IDLE = 0.2
#: Turns after which a process that others wait for has had its time, if it has sent something: handing over costs two.
_TENURE_TURNS = 5
#: Longest wait before a turn that another process was quicker than is begun anew, seconds.
_AGAIN_S = 0.1
#: Wait before a first turn that came to nothing is tried again, seconds.
_AWAY_S = 1.0
#: Turns are taken up to this part sooner, so that processes that began together drift apart.
_JITTER = 0.2
#: How long giving back may hold up the end; what is not given back is free when its time is over.
_LEAVE_S = 5.0


class JobShares(Protocol):
    """Where turns are kept; see `transforms.storage.limit_shares`. Calls may take long, and are made one at a time."""

    whole: int

    def look(self, *, is_done: bool = False) -> Look:
        """Begin a turn."""

    def settle(self, in_use: int) -> Grant | None:
        """End it; None: begin anew."""

    def leave(self) -> None:
        """Give everything back."""


class ShareKeeper:
    """For the loop's thread.

    Args:
        shares: where turns are kept.
        admission: of the pool; its throttle is cut and grown, and it asks before each call.
        settings: the limits of the whole run; a run without a turn for `give_up_after` seconds fails.
        stats: of the pool; counts what is sent.
        grown: told when more may be sent; failed: told what ends the run.
    """

    def __init__(
        self,
        shares: JobShares,
        admission: Admission,
        settings: PoolSettings,
        stats: Counter[str],
        grown: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._shares = shares
        self._throttle = admission.throttle
        self._max_in_flight = settings.max_in_flight
        self._give_up_after_s = settings.give_up_after
        self._stats = stats
        self._grown = grown
        self._failed = failed
        self._units = 0
        self._valid_until = self._valid_until_unix_s = float("-inf")
        self._tenure = self._sent_before = 0
        self._wanted = asyncio.Event()
        self._threads = ThreadPoolExecutor(1, "rowbeam-shares")
        self._task: asyncio.Task[None] | None = None
        admission.may_send = self.may_send

    def start(self, work: Callable[[], int]) -> None:
        """Begin with nothing, and ask for a part when something is to be sent; `work` counts what waits or is sent."""
        self._cut(0)
        self._task = asyncio.get_running_loop().create_task(self._keep(work))

    async def close(self) -> None:
        """Give everything back; no call is in flight any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(Exception):  # it expires
                await asyncio.wait_for(self._in_thread(self._shares.leave), _LEAVE_S)
        self._threads.shutdown(wait=False)

    def may_send(self, now: float) -> bool:
        """Say whether this process holds a part now; if not, it asks for one, and `grown` tells."""
        if self._units and self._is_valid(now):
            return True
        self._wanted.set()
        return False

    def _is_valid(self, now: float) -> bool:
        return now < self._valid_until and time.time() < self._valid_until_unix_s

    async def _keep(self, work: Callable[[], int]) -> None:
        try:
            while True:
                await self._wanted.wait()
                await self._take_turns(work)
                # Whatever is wanted from here on is asked for again.
                self._wanted.clear()
                self._cut(0)
                with contextlib.suppress(OSError):  # it expires
                    await self._in_thread(self._shares.leave)
        except Exception as exc:  # noqa: BLE001 - the loop's thread has no caller: the sessions raise it
            self._failed(exc)

    async def _take_turns(self, work: Callable[[], int]) -> None:
        """Take turns until there has been nothing to send for a while."""
        loop = asyncio.get_running_loop()
        wait_s, taken_at = _AWAY_S, loop.time()
        while True:
            try:
                wait_s = await self._take_turn()
                taken_at = loop.time()
            except OSError as exc:
                if loop.time() - taken_at > self._give_up_after_s:
                    raise
                _LOG.warning("limits_unreachable", extra={"reason": " ".join(str(exc).split())})
            await asyncio.sleep(wait_s * (1 - _JITTER * random.random()))
            if not work():
                await asyncio.sleep(wait_s * _IDLE)
                if not work():
                    return

    async def _take_turn(self) -> float:
        """Take a turn, and return the seconds until the next."""
        is_done = self._tenure >= _TENURE_TURNS and self._stats["requests_sent"] > self._sent_before
        while True:
            look = await self._in_thread(partial(self._shares.look, is_done=is_done))
            self._cut(min(self._units, look.held, look.part))
            in_use = units_of(self._throttle.concurrency.in_flight, self._shares.whole, self._max_in_flight)
            grant = await self._in_thread(partial(self._shares.settle, in_use))
            if grant is not None:
                break
            await asyncio.sleep(_AGAIN_S * random.random())
        units = min(grant.units, look.part)
        self._valid_until, self._valid_until_unix_s = grant.valid_until, grant.valid_until_unix_s
        self._tenure = 0 if is_done or not units else self._tenure + 1
        if self._tenure == 1:
            self._sent_before = self._stats["requests_sent"]
        self._set(units, is_full=grant.is_first)
        if units:
            self._grown()
        return grant.next_turn_s

    def _cut(self, units: int) -> None:
        if units < self._units or not units:
            self._set(units)

    def _set(self, units: int, *, is_full: bool = False) -> None:
        whole = self._shares.whole
        if units != self._units:
            _LOG.info("limits_shared", extra={"units": units, "whole": whole})
        self._units = units
        slots = slots_of(units, whole, self._max_in_flight)
        self._throttle.share(asyncio.get_running_loop().time(), units / whole, slots, is_full=is_full)

    def _in_thread(self, work: Callable[[], Any]) -> "asyncio.Future[Any]":
        return asyncio.get_running_loop().run_in_executor(self._threads, work)
