"""A short turn that one thread of one worker has at a time, over all workers of a run: look, then act on what was seen."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import orjson

from transforms.storage.objects import join
from transforms.storage.slot import open_slot

#: A turn that lasts longer is that of a dead worker: what is done in one takes milliseconds.
_HELD_S = 30.0
_PAUSE_S = 0.05
_lock = Lock()


@contextmanager
def mutex(
    ledger: str, name: str, patience_s: float, *, shared: bool, clock: Callable[[], float] = time.time
) -> Iterator[bool]:
    """Give True for the length of a block that no other block of this name runs beside; False where that can't be had.

    Args:
        ledger: the ledger's folder.
        name: of the turn.
        patience_s: how long to wait for it.
        shared: other processes may want it too; else only the threads of this one.
        clock: Unix seconds.

    Raises:
        OSError: the disk or the bucket refuses.
    """
    if not _lock.acquire(timeout=patience_s):
        yield False
        return
    try:
        if not shared:
            yield True
            return
        slot, token = open_slot(join(ledger, "limits"), f"{name}.json"), secrets.token_hex(8)
        until_s = clock() + patience_s
        while True:
            held, version = slot.read()
            is_free = held is None or orjson.loads(held)["until_s"] < clock()
            mine = orjson.dumps({"token": token, "until_s": clock() + _HELD_S})
            if is_free and slot.swap(version, mine):
                break
            if clock() > until_s:
                yield False
                return
            time.sleep(_PAUSE_S)
        try:
            yield True
        finally:
            held, version = slot.read()
            if held == mine:
                slot.swap(version, None)
    finally:
        _lock.release()
