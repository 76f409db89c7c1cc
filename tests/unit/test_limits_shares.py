"""storage/limit_shares.py: what processes believe to hold is never more than the whole, on a disk and in a bucket."""

import threading

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.gcs_bucket import serving_bucket
from transforms.records.errors import InternalError
from transforms.rules.shares import Pace
from transforms.storage.limit_shares import LimitShares, forget_shares

_WHOLE = 6


class Process:
    """One that takes turns as the pool does, with a clock of its own."""

    def __init__(self, ledger, offset=0.0, now=None):
        self.now = now or [0.0]
        self.offset = offset
        self.units = self.part = 0
        self.valid_until = 0.0
        self.has_looked = False
        self.shares = LimitShares(str(ledger), "run", _WHOLE, Pace(), clock=self.clock, unix_clock=lambda: 0.0)

    def clock(self):
        return self.now[0] + self.offset

    def look(self, **options):
        found = self.shares.look(**options)
        self.part, self.has_looked = found.part, True
        self.units = min(self.units, found.held, found.part)

    def settle(self, in_use=0):
        grant = self.shares.settle(min(in_use, self.units))
        self.has_looked = False
        if grant is not None:
            self.units, self.valid_until = min(grant.units, self.part), grant.valid_until
        return grant

    def turn(self, **options):
        self.look(**options)
        return self.settle()

    def leave(self):
        self.units, self.has_looked = 0, False
        self.shares.leave()

    @property
    def usable(self):
        """What it admits calls on."""
        return self.units if self.clock() < self.valid_until else 0


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["look", "look", "settle", "settle", "leave", "crash"]),
        st.integers(0, 4),
        st.floats(0.0, 9.0),
        st.integers(0, _WHOLE),
    ),
    max_size=50,
)


@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_STEPS, st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5))
def test_what_all_believe_to_hold_is_never_more_than_the_whole(tmp_path_factory, steps, offsets):
    """Whatever their clocks say, however long one sleeps, and whoever comes between a look and its end."""
    ledger, now = tmp_path_factory.mktemp("ledger"), [1000.0]
    processes = [Process(ledger, offset, now) for offset in offsets]
    for what, number, wait_s, in_use in steps:
        now[0] += wait_s
        process = processes[number]
        if what == "crash":
            processes[number] = Process(ledger, process.offset, now)
        elif what == "leave":
            process.leave()
        elif what == "look" or not process.has_looked:
            process.look()
        else:
            process.settle(in_use)
        assert sum(each.usable for each in processes) <= _WHOLE


def test_a_killed_process_is_waited_for_until_its_turn_is_over(tmp_path):
    """Its successor, which knows nothing of when that turn was, counts from when it first saw it."""
    now = [0.0]
    Process(tmp_path, 0.0, now).turn()
    other = Process(tmp_path, 5000.0, now)
    other.turn()
    assert other.units == 0
    while not other.units:
        now[0] += 1.0
        other.turn()
    assert other.units == _WHOLE
    assert Pace().ttl_of(1) < now[0] <= Pace().ttl_of(1) + 1.0


def test_whoever_is_second_begins_anew(tmp_path):
    """A decision counts only on what was read."""
    first, second = Process(tmp_path), Process(tmp_path)
    first.look()
    second.look()
    assert first.settle() is not None
    assert second.settle() is None
    assert second.turn().units == 0


def test_only_the_first_process_of_a_run_finds_its_limits_unused(tmp_path):
    """It may begin with a burst; those who come later earn what they send."""
    first, second = Process(tmp_path), Process(tmp_path)
    assert first.turn().is_first
    assert not first.turn().is_first
    assert not second.turn().is_first
    first.leave()
    second.leave()
    assert not first.turn().is_first


def test_many_at_once_lose_no_unit(tmp_path):
    """Threads that take turns as fast as they can."""
    processes = [Process(tmp_path) for _ in range(4)]

    def work(process):
        for _ in range(15):
            process.turn()

    threads = [threading.Thread(target=work, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = orjson.loads((tmp_path / "limits" / "run.json").read_bytes())
    assert len(found["members"]) == 4
    for _ in range(2):
        for process in processes:
            process.turn()
    assert sorted(process.units for process in processes) == [1, 1, 2, 2]


def test_shares_in_a_bucket(monkeypatch):
    """The same rules, held by generations; nothing is left after the run."""
    with serving_bucket() as (bucket, url):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        first, second = Process("gs://bucket/out/ledger"), Process("gs://bucket/out/ledger")
        first.turn()
        second.look()
        first.turn()
        assert second.settle() is None
        second.turn()
        first.turn()
        second.turn()
        assert (first.units, second.units) == (3, 3)
        bucket.lost_replies = 1
        first.leave()
        second.turn()
        assert second.units == _WHOLE
        assert bucket.names() == ["out/ledger/limits/run.json"]
        forget_shares("gs://bucket/out/ledger", "run")
        assert bucket.names() == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="not-an-object"),
        pytest.param(b'{"whole":1,"changes":1,"members":{"a":{"units":1}}}', id="half-a-member"),
        pytest.param(
            b'{"whole":1,"changes":1,"members":{"a":{"units":2,"since":1,"beat":1,"ttl_s":1}}}',
            id="more-than-the-whole",
        ),
    ],
)
def test_a_file_that_somebody_changed_ends_the_run(tmp_path, content):
    """It says which file, and what to do."""
    (tmp_path / "limits").mkdir()
    (tmp_path / "limits" / "run.json").write_bytes(content)
    with pytest.raises(InternalError, match=r"run\.json can't be understood.*start it again"):
        Process(tmp_path).turn()


def test_the_end_of_a_run_leaves_no_file(tmp_path):
    """Nor its lock; and may be said twice."""
    Process(tmp_path).turn()
    forget_shares(str(tmp_path), "run")
    forget_shares(str(tmp_path), "run")
    assert list((tmp_path / "limits").iterdir()) == []
