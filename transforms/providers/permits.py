"""Leave to send, asked of a rate limiter outside of this process, one call at a time.

Asking blocks, for as long as the limit is used up, so it is done in threads beside the loop. They are bounded, and they
do not hold up the end of the process: somebody may have to wait an hour for a limiter's next window.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue

#: As many wait at a time; an answer takes about a millisecond, so this is no limit of its own.
_THREADS = 32

_Asked = tuple[asyncio.AbstractEventLoop, "asyncio.Future[str | None]"]


class Permits:
    """Asks for leave.

    Args:
        allow: takes a number of calls; returns True when they may be sent, and not before; may block, and raise.
        name: of the limiter, for people.
    """

    def __init__(self, allow: Callable[[int], bool], name: str) -> None:
        self._allow = allow
        self._name = name
        self._asked: SimpleQueue[_Asked | None] = SimpleQueue()
        self._threads = 0

    async def ask(self) -> str | None:
        """Wait for leave to send one call and return None; or return why there is none, as a sentence."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()
        if self._threads < _THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name="rowbeam-permits", daemon=True).start()
        self._asked.put((loop, answer))
        return await answer

    def close(self) -> None:
        """Ask no more; threads that are asking end when they are answered."""
        for _ in range(self._threads):
            self._asked.put(None)

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            loop, answer = asked
            # Nobody waits for it any more: leave that is not used would be taken from others.
            if answer.cancelled():
                continue
            refusal = self._ask()
            with contextlib.suppress(RuntimeError):  # the pool's loop is closed
                loop.call_soon_threadsafe(_tell, answer, refusal)

    def _ask(self) -> str | None:
        try:
            if self._allow(1):
                return None
            why = "gave an answer that is neither yes nor wait"
        except Exception as exc:  # noqa: BLE001 - whatever the limiter's client raises: there is no leave
            why = f"gives no answer ({type(exc).__name__}: {' '.join(str(exc).split())[:200]})"
        return (
            f"the rate limiter {self._name} {why}, and nothing is sent without its leave; run the job again when it is "
            "back, or without pool.rate_limiter"
        )


def _tell(answer: "asyncio.Future[str | None]", refusal: str | None) -> None:
    if not answer.done():
        answer.set_result(refusal)
