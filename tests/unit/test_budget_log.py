"""storage/budget_log.py: one total order on disk, whoever writes."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import orjson
import pytest

from transforms.records.errors import InternalError
from transforms.storage.budget_log import Allowance, BudgetLog, has_log

_MOST = 1_000_000


def _log(ledger: Path, run_id: str = "r1", most: int = _MOST, *, per_run: bool = False) -> BudgetLog:
    return BudgetLog(str(ledger), run_id, Allowance(most, run_id if per_run else None), clock=lambda: 5.0)


def _files(ledger: Path) -> list[str]:
    return sorted(path.name for path in (ledger / "budget").iterdir())


def test_entries_are_files_that_read_back(tmp_path):
    """Another process, started later, sees what the first one did; money is text in plain digits."""
    log = _log(tmp_path)
    assert not has_log(str(tmp_path))
    assert log.hold("batch:k:r1:0", 250_000, "batch")
    assert log.take_slice("slice:a.0#0", 1000) == (_MOST - 250_000) // 32
    log.settle("batch:k:r1:0", 90_000, "batch")
    assert _files(tmp_path) == ["000001.json", "000002.json", "000003.json"]
    assert orjson.loads((tmp_path / "budget" / "000001.json").read_bytes()) == {
        "op": "hold",
        "id": "batch:k:r1:0",
        "usd": "0.00000025",
        "run_id": "r1",
        "what": "batch",
        "at_s": 5.0,
    }
    other = _log(tmp_path, "r2")
    assert has_log(str(tmp_path))
    assert (other.charged(), other.available()) == (90_000 + 23_437, _MOST - 113_437)


def test_what_does_not_fit_is_not_held(tmp_path):
    """Neither whole nor in part, and nothing is written."""
    log = _log(tmp_path, most=100)
    assert log.hold("a", 100, "batch")
    assert not log.hold("b", 1, "batch")
    assert log.take_slice("c#0", 1) == 0
    assert _files(tmp_path) == ["000001.json"]


def test_repeating_changes_nothing(tmp_path):
    """A hold that is open is as good as a new one; one that is settled is none, so nobody spends on it again."""
    log = _log(tmp_path, most=100)
    assert [log.hold("a", 60, "batch") for _ in range(2)] == [True, True]
    for units in (20, 50):
        log.settle("a", units, "batch")
    assert not log.hold("a", 60, "batch")
    assert (log.charged(), len(_files(tmp_path))) == (20, 2)


def test_a_budget_per_run_counts_that_run_alone(tmp_path):
    """Holds of other runs are on record and don't count, also when this run settles them."""
    assert _log(tmp_path, "r1", 100).hold("batch:k:r1:0", 100, "batch")
    second = _log(tmp_path, "r2", 100, per_run=True)
    assert second.available() == 100
    second.settle("batch:k:r1:0", 80, "batch")
    assert (second.available(), _log(tmp_path, "r3", 100).available()) == (100, 20)


def test_a_lower_budget_than_what_is_charged_leaves_nothing(tmp_path):
    """Less than nothing is nothing; raising it makes room."""
    _log(tmp_path, most=100).hold("a", 90, "batch")
    assert (_log(tmp_path, most=50).available(), _log(tmp_path, most=120).available()) == (0, 30)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"op":"hold"}', id="keys missing"),
        pytest.param(b'{"op":"give","id":"a","usd":"1","run_id":"r","what":"slice","at_s":1}', id="unknown op"),
        pytest.param(b'{"op":"hold","id":"a","usd":"much","run_id":"r","what":"slice","at_s":1}', id="no amount"),
        pytest.param(b'{"op":"hold","id":"a","usd":"NaN","run_id":"r","what":"slice","at_s":1}', id="no number"),
        pytest.param(b'{"op":"settle","id":"a","usd":"-9","run_id":"r","what":"slice","at_s":1}', id="below zero"),
        pytest.param(b'{"op":"hold","id":7,"usd":"1","run_id":"r","what":"slice","at_s":1}', id="no id"),
        pytest.param(b'{"op":"hold","id":"a","usd":"1","run_id":"r","what":"gift","at_s":1}', id="unknown kind"),
    ],
)
def test_a_damaged_entry_is_named(tmp_path, content):
    """Nobody spends on a log that can't be read."""
    _log(tmp_path).hold("a", 1, "batch")
    (tmp_path / "budget" / "000001.json").write_bytes(content)
    with pytest.raises(InternalError, match=r"000001\.json is damaged"):
        _log(tmp_path).available()


def test_what_is_no_entry_is_left_alone(tmp_path):
    """Copies and notes that somebody put beside the entries are none of them, and no gap."""
    log = _log(tmp_path)
    log.hold("a", 1, "batch")
    for name in ("notes.json", "000002 (copy).json", "9.json"):
        (tmp_path / "budget" / name).write_bytes(b"{}")
    assert _log(tmp_path).charged() == 1
    assert log.hold("b", 1, "batch")


def test_a_missing_entry_is_named(tmp_path):
    """A gap would hide all that is behind it."""
    log = _log(tmp_path)
    for name in "abc":
        log.hold(name, 1, "batch")
    (tmp_path / "budget" / "000002.json").unlink()
    with pytest.raises(InternalError, match=r"000002\.json is missing"):
        _log(tmp_path).available()


def _spend(ledger: str, number: int, most: int, spent: str, until_killed: bool) -> None:
    """Take slices and spend them, as a worker does; every unit spent is on file before the next is taken."""
    log, draw, total = _log(Path(ledger), f"w{number}", most), random.Random(number), 0
    with Path(spent, str(number)).open("wb", buffering=0) as file:
        for turn in range(10_000):
            size = log.take_slice(f"slice:w{number}.{turn}#0", draw.randint(1, most // 50))
            if not size:
                break
            cost = draw.randint(0, size)
            total += cost
            file.seek(0)
            file.write(b"%d" % total)
            if until_killed:
                time.sleep(60)
            log.settle(f"slice:w{number}.{turn}", cost)


def test_racing_processes_never_spend_more_than_the_budget_together(tmp_path):
    """Six workers race on one log, two are killed with a slice in hand: what all have spent stays within the budget."""
    most, spent = 100_000, tmp_path / "spent"
    spent.mkdir()
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_spend, args=(str(tmp_path), number, most, str(spent), number < 2))
        for number in range(6)
    ]
    for worker in workers:
        worker.start()
    for number in range(2):
        path = spent / str(number)
        deadline = time.monotonic() + 20
        while not (path.exists() and path.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(workers[number].pid, signal.SIGKILL)
    for worker in workers:
        worker.join(60)
    log = _log(tmp_path, most=most)
    total = sum(int(path.read_bytes()) for path in spent.iterdir())
    killed = sum(hold.units for hold in log.open_holds("slice"))
    assert {hold.run_id for hold in log.open_holds("slice")} == {"w0", "w1"}
    assert total <= log.charged() <= most
    # All but the last crumbs were usable, and the killed ones' slices stay charged in full.
    assert log.charged() - total <= killed
    assert most - log.charged() < most // 50
