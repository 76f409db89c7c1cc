"""Worker processes of a run, without a runner, forked from one that imports everything once.

Each asks the model as fast as the limits let it, until it is told to end (SIGTERM) or dies by a real SIGKILL.
"""

import itertools
import os
import signal
import sys
import threading
from functools import partial

import orjson

from tests.unit.pool_builders import make_request
from transforms import _worker
from transforms.providers.session import Batch
from transforms.records.run import CallSettings
from transforms.records.settings import AuditSettings, BatchingSettings, ModelSettings, PoolSettings
from transforms.rules.shares import Pace
from transforms.storage.limit_shares import LimitShares

#: Turns are so close that a test sees many; a killed process is missed within a second or two.
PACE = Pace(turn_s=0.15, per_member_s=0.06, ttl_turns=7)
RUN_ID = "limits"


def ask_on(ledger: str, base_url: str, pool: dict[str, int]) -> None:
    """Ask until SIGTERM comes."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    _worker.LimitShares = partial(LimitShares, pace=PACE)
    settings = CallSettings(
        run_id=RUN_ID,
        ledger=ledger,
        model=ModelSettings(provider="openai", name="gpt-4o-mini", base_url=base_url),
        schema=None,
        pool=PoolSettings(**pool),
        batching=BatchingSettings(),
        audit=AuditSettings(payloads="none"),
        shared_limits=True,
    )
    session = _worker.acquire(settings).pool.open()
    for number in itertools.takewhile(lambda _: not ended.is_set(), itertools.count()):
        name = f"{os.getpid()}-{number}"
        requests = [make_request(f"{name}-{n}") for n in range(10)]
        for _ in session.feed([(request, request.request_id) for request in requests], Batch(name, len(requests))):
            pass
    session.abandon()
    _worker.release(settings)


def main() -> None:
    """Fork a worker per line of standard input, which holds its arguments; say its process id.

    At the end of the input all are told to end, and how each ended is said: an exit code, or minus a signal.
    """
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    workers = []
    for line in sys.stdin.buffer:
        workers.append(os.fork())
        if not workers[-1]:
            try:
                ask_on(*orjson.loads(line))
                os._exit(0)
            finally:
                os._exit(70)
        sys.stdout.write(f"{workers[-1]}\n")
        sys.stdout.flush()
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    for pid in workers:
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")


if __name__ == "__main__":
    main()
