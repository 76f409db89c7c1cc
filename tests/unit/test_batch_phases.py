"""After a crash between any two writes about a batch, the ledger still says what may be sent, and what not."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.batch_file_builders import KEY, NOW, WRITERS, make_intent, make_staged, make_stager, stage
from transforms.records.errors import InternalError
from transforms.storage import batch_ledger as ledger_files
from transforms.storage.batch_entry import ABANDONED, Phase

#: One write, and the attempt and phase that the ledger shows from then on.
_Step = tuple[Callable[[str], object], int, Phase]

#: How an attempt may go, as the files that are written for it in order; the last one says how it ends.
_FAILED_ATTEMPTS = [
    ("intent", "void"),
    ("uploaded", "intent", "void"),
    ("uploaded", "intent", "handle", "void"),
    ("uploaded", "intent", "handle", "ended", "void"),
    ("intent", "handle", "cancel", "ended", "void"),
]
_LAST_ATTEMPTS = [
    ("uploaded", "intent", "handle", "ended", "collected"),
    ("intent", "handle", "ended", "collected"),
    ("uploaded", "intent", "handle", "cancel", "ended", "collected"),
]

_PHASES = {
    "uploaded": Phase.STAGED,
    "intent": Phase.IN_DOUBT,
    "handle": Phase.SUBMITTED,
    "cancel": Phase.SUBMITTED,
    "ended": Phase.ENDED,
    "void": Phase.STAGED,
    "collected": Phase.COLLECTED,
}


def _steps(failed: list[tuple[str, ...]], last: tuple[str, ...]) -> list[_Step]:
    steps: list[_Step] = [(lambda ledger: ledger_files.write_staged(ledger, make_staged()), 0, Phase.STAGED)]
    for number, kinds in enumerate([*failed, last]):
        for kind in kinds:
            write = WRITERS[kind]
            attempt = number + 1 if kind == "void" else number
            steps.append((lambda ledger, write=write, n=number: write(ledger, n), attempt, _PHASES[kind]))
    return steps


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(_FAILED_ATTEMPTS), max_size=3), st.sampled_from(_LAST_ATTEMPTS), st.data())
def test_phase_after_a_crash_between_any_two_writes(
    failed: list[tuple[str, ...]], last: tuple[str, ...], data: st.DataObject
) -> None:
    """Whatever prefix of a batch's life is on disk, attempt and phase are right, and no create can be sent twice."""
    steps = _steps(failed, last)
    survived = data.draw(st.integers(1, len(steps)))
    with tempfile.TemporaryDirectory() as ledger:
        for write, _, _ in steps[:survived]:
            assert write(ledger) in (True, None)
        _, attempt, phase = steps[survived - 1]
        entry = ledger_files.read_entry(ledger, KEY)
        assert entry is not None
        assert (entry.attempt, entry.phase, len(entry.voids)) == (attempt, phase, attempt)
        in_flight = phase in (Phase.IN_DOUBT, Phase.SUBMITTED, Phase.ENDED)
        assert ledger_files.open_entries(ledger) == ([entry] if in_flight else [])
        assert ledger_files.list_entries(ledger) == [entry]
        assert ledger_files.tokens_in_flight(ledger) == (450 if in_flight and phase is not Phase.ENDED else 0)
        assert ledger_files.creates_since(ledger, NOW) == attempt + (in_flight or phase is Phase.COLLECTED)
        for write, _, _ in steps[1:survived]:
            assert _repeat(write, ledger) is False
        assert ledger_files.read_entry(ledger, KEY) == entry
        assert _may_send(ledger, attempt) is (phase is Phase.STAGED)
        assert not _may_send(ledger, attempt)
        assert not _may_send(ledger, attempt + 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(_FAILED_ATTEMPTS), max_size=2), st.sampled_from(_LAST_ATTEMPTS), st.data())
def test_sweep_touches_nothing_that_was_sent(
    failed: list[tuple[str, ...]], last: tuple[str, ...], data: st.DataObject
) -> None:
    """After a crash anywhere, the sweep keeps what is in flight or closed, and frees what was not sent."""
    steps = _steps(failed, last)
    survived = data.draw(st.integers(1, len(steps)))
    with tempfile.TemporaryDirectory() as ledger:
        for write, _, _ in steps[:survived]:
            write(ledger)
        before = ledger_files.read_entry(ledger, KEY)
        assert before is not None
        given_up = ledger_files.sweep_unsent(ledger, "next-run", NOW + 60)
        after = ledger_files.read_entry(ledger, KEY)
        if before.phase is not Phase.STAGED:
            assert (given_up, after) == ([], before)
        elif before.is_untouched:
            assert (given_up, after) == ([KEY], None)
        else:
            assert given_up == [KEY]
            assert after is not None
            assert after.collected is not None
            assert (after.collected.status, after.collected.run_id) == (ABANDONED, "next-run")
            assert not _may_send(ledger, after.attempt)
        assert ledger_files.sweep_unsent(ledger, "next-run", NOW + 60) == []


def test_sweep_that_is_killed_leaves_no_batch_without_its_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its removals, it leaves orphans that are no batch; the next sweep removes them."""
    ledger = str(tmp_path / "ledger")
    [files] = stage(make_stager(tmp_path), [b"line"])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _killed)
        with pytest.raises(KeyboardInterrupt):
            ledger_files.sweep_unsent(ledger, "next-run", NOW)
    assert Path(ledger_files.requests_path(ledger, files.staged.batch_key)).exists()
    assert ledger_files.list_entries(ledger) == []
    assert ledger_files.sweep_unsent(ledger, "next-run", NOW) == []
    assert list(Path(ledger, "requests").iterdir()) == []


def _killed(path: Path, *, missing_ok: bool = False) -> None:
    if path.parent.name == "requests":
        raise KeyboardInterrupt
    path.rename(path.with_name(f".{path.name}"))


def _repeat(write: Callable[[str], object], ledger: str) -> object:
    try:
        return write(ledger)
    except InternalError:
        # The create of a closed batch.
        return False


def _may_send(ledger: str, attempt: int) -> bool:
    try:
        return ledger_files.create_intent(ledger, make_intent(attempt))
    except InternalError:
        return False
