"""One turn at a time, over threads, processes and, in a bucket, machines."""

import threading
import time

import orjson
import pytest

from tests.unit.gcs_bucket import serving_bucket
from transforms.storage.mutex import mutex
from transforms.storage.objects import join, write_atomic


@pytest.fixture(params=["disk", "bucket"])
def ledger(request, tmp_path, monkeypatch):
    """A ledger's folder, on the disk and in a bucket."""
    if request.param == "disk":
        yield str(tmp_path)
        return
    with serving_bucket() as (_, url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield "gs://bucket/ledger"


@pytest.mark.parametrize("shared", [True, False])
def test_turns_do_not_overlap(ledger, shared):
    """Of eight threads each has its turn, one after another."""
    inside, most, turns = [0], [0], []

    def act():
        with mutex(ledger, "creates", 60.0, shared=shared) as has_turn:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.005)
            inside[0] -= 1
            turns.append(has_turn)

    threads = [threading.Thread(target=act) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert turns == [True] * 8


def test_another_processs_turn_is_waited_for_but_not_for_ever(ledger):
    """A live one keeps its turn; a dead one's is over after a while."""
    path = join(ledger, "limits", "creates.json")
    write_atomic(path, orjson.dumps({"token": "another's", "until_s": time.time() + 60}))
    with mutex(ledger, "creates", 0.1, shared=True) as has_turn:
        assert not has_turn
    write_atomic(path, orjson.dumps({"token": "a dead one's", "until_s": time.time() - 1}))
    with mutex(ledger, "creates", 0.1, shared=True) as has_turn:
        assert has_turn


def test_a_turn_ends_with_an_exception(ledger):
    """The next one is free."""
    with pytest.raises(ZeroDivisionError), mutex(ledger, "creates", 1.0, shared=True) as has_turn:
        assert has_turn / 0
    with mutex(ledger, "creates", 0.1, shared=True) as has_turn:
        assert has_turn
