"""What happened when, in order, for tests that must act at a named step; and the gate at which replies are held."""

import asyncio
import time
from collections import deque
from itertools import islice
from typing import Any

#: The newest so many are kept.
_KEPT = 100_000


class EventLog:
    """Notable events, numbered 1, 2, 3 ...

    Names: upload_begun, upload_done, create_begun, create_accepted, create_replied, status, listed, cancelled,
    results_begun, results_done, held. An event holds what is known of provider, batch_id, file_id, status and rows.
    """

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._count = 0

    def note(self, event: str, provider: str, **facts: Any) -> None:
        """Append an event of now."""
        self._count += 1
        self._events.append({"seq": self._count, "time": time.time(), "event": event, "provider": provider, **facts})

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Return the events numbered above `seq`, in order."""
        first = self._count - len(self._events)
        return list(islice(self._events, max(0, seq - first), None))

    def clear(self) -> None:
        """Forget all events and number from 1 again."""
        self._events.clear()
        self._count = 0


class Gate:
    """Where requests are held: a release lets all go on that wait now, and none that come later."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._waiting = 0

    async def wait(self) -> None:
        """Wait for the next release, or for ever: until the client goes away."""
        self._waiting += 1
        try:
            await self._open.wait()
        finally:
            self._waiting -= 1

    def release(self) -> int:
        """Let everything go on that waits; return how many that were."""
        self._open.set()
        self._open = asyncio.Event()
        return self._waiting
