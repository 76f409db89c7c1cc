"""The lease of an output in a bucket: the same rules, held by generations instead of a kernel's lock."""

import threading

import orjson
import pytest

from transforms.records.errors import OutputBusyError
from transforms.storage import objects
from transforms.storage.lease import Lease

_LEDGER = "gs://bucket/out/ledger"


def test_one_run_at_a_time(bucket):
    """The second is told who; a released lease leaves nothing behind."""
    with Lease(_LEDGER, "first"):
        with pytest.raises(OutputBusyError, match="gs://bucket/out is in use by run first"):
            Lease(_LEDGER, "second").acquire()
        assert bucket.names() == ["out/ledger/lease.json"]
    assert bucket.names() == []
    with Lease(_LEDGER, "second"):
        pass


def test_an_expired_lease_is_taken_over_and_its_owner_learns_it(bucket):
    """Whoever was suspended for too long does not go on."""
    now = [1_000.0]
    old = Lease(_LEDGER, "old", ttl_s=0.3, clock=lambda: now[0])
    old.acquire()
    held = orjson.loads(bucket.data("out/ledger/lease.json"))
    objects.write_atomic(f"{_LEDGER}/lease.json", orjson.dumps({**held, "expires_at": 0, "token": "another's"}))
    with Lease(_LEDGER, "new", clock=lambda: now[0]):
        old._heart.join(10)
        assert old.lost
        old.release()
        assert b'"new"' in bucket.data("out/ledger/lease.json")


def test_of_many_takers_exactly_one_wins(bucket):
    """Eight start at once."""
    won, start = [], threading.Barrier(8)

    def take(number):
        lease = Lease(_LEDGER, f"run-{number}")
        start.wait()
        try:
            lease.acquire()
        except OutputBusyError:
            return
        won.append(lease)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].release()
    assert bucket.names() == []
