"""Requests become batches at rest: each in exactly one, within the limits, in order, whole or not at all."""

import tempfile
import tracemalloc
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.batch_file_builders import (
    NOW,
    RUN,
    make_collected,
    make_handle,
    make_intent,
    make_member,
    make_stager,
    make_void,
    name_batch,
    stage,
)
from transforms.records.batch import BatchLimits
from transforms.records.errors import InternalError
from transforms.rules.fingerprint import batch_id
from transforms.storage import batch_ledger, batch_stager, objects
from transforms.storage.asked_file import AskedFile
from transforms.storage.batch_entry import ABANDONED, Phase
from transforms.storage.batch_stager import StagedFiles

_LATER_RUN = "20261122T053412-aaaaaa"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def _check_batch(ledger: str, files: StagedFiles, lines: list[bytes], start: int) -> None:
    """Check one batch's files against the lines it should hold, numbered from `start`."""
    staged, key = files.staged, files.staged.batch_key
    whole = b"\n".join(lines)
    assert Path(batch_ledger.requests_path(ledger, key)).read_bytes() == whole
    assert (staged.request_count, staged.byte_count) == (len(lines), len(whole))
    assert staged.token_estimate == sum(10 + n for n in range(start, start + len(lines)))
    members = list(batch_ledger.read_members(ledger, key))
    assert [member.request_id for member in members] == [f"{n:064x}" for n in range(start, start + len(lines))]
    assert [batch_ledger.request_line(ledger, key, member.offset, member.length) for member in members] == lines
    assert key == name_batch([member.request_id for member in members])
    with AskedFile(files.asked_path) as asked:
        assert list(asked.rest()) == [b"packed %d" % n for n in range(start, start + len(lines))]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    max_requests=st.integers(1, 12),
    max_bytes=st.integers(60, 400),
)
def test_every_request_is_in_exactly_one_batch_within_limits(
    lengths: list[int], max_requests: int, max_bytes: int
) -> None:
    """Batches hold the requests once each and in order, pass no limit, and end only where the next has no room."""
    lines = [b"x" * length for length in lengths]
    with tempfile.TemporaryDirectory() as folder:
        batches = stage(make_stager(Path(folder), BatchLimits(max_requests, max_bytes)), lines)
        start = 0
        for files in batches:
            count = files.staged.request_count
            _check_batch(f"{folder}/ledger", files, lines[start : start + count], start)
            assert 0 < count <= max_requests
            assert files.staged.byte_count <= max_bytes
            start += count
            is_full = count == max_requests or files.staged.byte_count + 1 + sum(lengths[start : start + 1]) > max_bytes
            assert is_full or start == len(lines)
        assert start == len(lines)
        assert [entry.phase for entry in batch_ledger.list_entries(f"{folder}/ledger")] == [Phase.STAGED] * len(batches)


@pytest.mark.parametrize(
    ("limits", "counts"),
    [
        pytest.param(BatchLimits(3, 10_000), [3, 3, 1], id="count"),
        pytest.param(BatchLimits(100, 32), [3, 3, 1], id="bytes_exactly"),
        pytest.param(BatchLimits(100, 31), [2, 2, 2, 1], id="one_byte_less"),
        pytest.param(BatchLimits(7, 76), [7], id="all_in_one"),
    ],
)
def test_both_sides_of_each_limit(tmp_path: Path, limits: BatchLimits, counts: list[int]) -> None:
    """Seven lines of ten bytes are cut where a limit, newlines counted, says so."""
    batches = stage(make_stager(tmp_path, limits), [b"x" * 10] * 7)
    assert [files.staged.request_count for files in batches] == counts


def test_files_say_what_the_batch_is(tmp_path: Path) -> None:
    """staged.json, the members file and what travels agree, in the names that the ledger promises."""
    [files] = stage(make_stager(tmp_path), [b'{"a":1}', b'{"b":22}'])
    key = name_batch([f"{n:064x}" for n in range(2)])
    staged = orjson.loads((tmp_path / "ledger" / "batches" / key / "staged.json").read_bytes())
    assert staged == {
        "batch_key": key,
        "batch_id": batch_id(RUN, key),
        "run_id": RUN,
        "nonce": "0a1b2c3d",
        "request_model": "gpt-4o-mini",
        "provider_name": "openai",
        "mode": "provider_batch_api",
        "request_count": 2,
        "byte_count": 16,
        "token_estimate": 21,
        "staged_at_s": NOW,
        "address": "https://api.example.com/v1",
    }
    members = (tmp_path / "ledger" / "requests" / f"{key}.members.jsonl").read_bytes().splitlines()
    assert orjson.loads(members[1]) == {
        "custom_id": f"0a1b2c3d-{1:040x}",
        "request_id": f"{1:064x}",
        "root_request_id": f"{1:064x}",
        "lane": "main",
        "prompt_sha256": "a" * 64,
        "template_sha256": "b" * 64,
        "variables_sha256": "c" * 64,
        "lookup_sha256": None,
        "offset": 8,
        "length": 8,
    }
    ref = files.ref()
    assert (ref.batch_key, ref.batch_id, ref.staged_run_id) == (key, batch_id(RUN, key), RUN)
    assert (ref.request_count, ref.byte_count, ref.token_estimate, ref.is_adopted) == (2, 16, 21, False)
    assert ref.asked_path == str(tmp_path / "runs" / RUN / "asked" / f"{key}.asked")
    assert _names(tmp_path) == sorted([f"{key}.asked", f"{key}.jsonl", f"{key}.members.jsonl", "staged.json"])


def test_nothing_added_is_no_batch(tmp_path: Path) -> None:
    """A group without requests leaves no file."""
    assert make_stager(tmp_path).finish() is None
    assert _names(tmp_path) == []


@pytest.mark.parametrize("field", ["custom_id", "request_id"])
def test_id_twice_in_a_batch_is_refused(tmp_path: Path, field: str) -> None:
    """Neither id can name two requests of one batch; discard leaves nothing behind."""
    stager = make_stager(tmp_path)
    stager.add(make_member(1), b"{}", b"p")
    with pytest.raises(InternalError, match="comes twice in one batch"):
        stager.add(make_member(2, **{field: getattr(make_member(1), field)}), b"{}", b"p")
    stager.discard()
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        pytest.param(b"x" * 20, True, id="just_fits"),
        pytest.param(b"x" * 21, False, id="too_long"),
        pytest.param(b"", True, id="empty"),
        pytest.param(b"{}\n", True, id="two_lines"),
    ],
)
def test_line_that_is_no_line_is_refused(tmp_path: Path, line: bytes, *, fits: bool) -> None:
    """A line too long for any batch is told by `fits`; adding it, or what would break the file, is an error of ours."""
    stager = make_stager(tmp_path, BatchLimits(10, 20))
    assert stager.fits(line) is fits
    if line == b"x" * 20:
        assert stager.add(make_member(1), line, b"p") is None
    else:
        with pytest.raises(InternalError, match="can't be a line of a batch"):
            stager.add(make_member(1), line, b"p")


def test_batch_that_was_staged_and_never_sent_is_staged_anew(tmp_path: Path) -> None:
    """A later run replaces the files of such a batch by its own, under the same key."""
    [old] = stage(make_stager(tmp_path), [b"old line"])
    [new] = stage(make_stager(tmp_path, run_id=_LATER_RUN), [b"new"])
    assert new.staged.batch_key == old.staged.batch_key
    ledger = str(tmp_path / "ledger")
    _check_batch(ledger, new, [b"new"], 0)
    assert [entry.staged.run_id for entry in batch_ledger.list_entries(ledger)] == [_LATER_RUN]


def test_batch_in_flight_is_never_staged_again(tmp_path: Path) -> None:
    """Its requests would be paid twice; its files stay as they are."""
    [files] = stage(make_stager(tmp_path), [b"sent"])
    ledger, key = str(tmp_path / "ledger"), files.staged.batch_key
    batch_ledger.create_intent(ledger, make_intent(0, key))
    with pytest.raises(InternalError, match=r"is in flight \(in_doubt\)"):
        stage(make_stager(tmp_path, run_id=_LATER_RUN), [b"again"])
    _check_batch(ledger, files, [b"sent"], 0)
    assert _names(tmp_path) == sorted(
        [f"{key}.asked", f"{key}.json", f"{key}.jsonl", f"{key}.members.jsonl", "staged.json"]
    )


def test_closed_batch_keeps_its_files_and_its_requests_get_a_key_of_their_own(tmp_path: Path) -> None:
    """When all of a batch failed, the same requests make another batch, whose create is not mistaken for the old one."""
    ledger = str(tmp_path / "ledger")
    keys = []
    for number in range(3):
        [files] = stage(make_stager(tmp_path, run_id=f"run-{number}"), [b"try %d" % number])
        key = files.staged.batch_key
        assert batch_ledger.create_intent(ledger, make_intent(0, key))
        batch_ledger.record_handle(ledger, key, 0, make_handle())
        batch_ledger.record_collected(ledger, key, make_collected())
        keys.append(key)
    assert len(set(keys)) == 3
    assert {len(key) for key in keys} == {64}
    for number, key in enumerate(keys):
        assert Path(batch_ledger.requests_path(ledger, key)).read_bytes() == b"try %d" % number


def test_batch_that_reached_for_the_provider_in_vain_is_abandoned(tmp_path: Path) -> None:
    """An upload or a refused create stays on record under the old key; the new batch gets another."""
    ledger = str(tmp_path / "ledger")
    [old] = stage(make_stager(tmp_path), [b"old"])
    batch_ledger.record_upload(ledger, old.staged.batch_key, 0, "file-of-old-lines")
    [newer] = stage(make_stager(tmp_path, run_id="run-2"), [b"newer"])
    batch_ledger.create_intent(ledger, make_intent(0, newer.staged.batch_key))
    batch_ledger.record_void(ledger, newer.staged.batch_key, 0, make_void())
    [newest] = stage(make_stager(tmp_path, run_id="run-3"), [b"newest"])
    entries = {entry.key: entry for entry in batch_ledger.list_entries(ledger)}
    assert len(entries) == 3
    for files in (old, newer):
        closed = entries[files.staged.batch_key].collected
        assert closed is not None
        assert closed.status == ABANDONED
    fresh = entries[newest.staged.batch_key]
    assert (fresh.phase, fresh.attempt, fresh.file_id, fresh.is_untouched) == (Phase.STAGED, 0, None, True)


def test_batch_exists_from_its_last_file_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before any of the renames leaves no batch, and the sweep leaves nothing of it."""
    ledger = str(tmp_path / "ledger")
    for survived in range(4):
        renames = iter([objects.publish] * survived)

        def renaming(temporary: str, path: str, left=renames) -> None:
            next(left, _killed)(temporary, path)

        with monkeypatch.context() as patch:
            patch.setattr(batch_stager, "publish", renaming)
            patch.setattr("transforms.storage.draft_file.publish", renaming)
            with pytest.raises(KeyboardInterrupt):
                stage(make_stager(tmp_path), [b"line"])
        assert batch_ledger.list_entries(ledger) == []
        assert batch_ledger.sweep_unsent(ledger, _LATER_RUN, NOW) == []
        assert _names(tmp_path / "ledger") == []
    [files] = stage(make_stager(tmp_path), [b"line"])
    _check_batch(ledger, files, [b"line"], 0)


def test_staging_holds_little_more_than_the_ids(tmp_path: Path) -> None:
    """20,000 requests of 3 KB, 60 MB in all, are staged in less than 16 MB of memory."""
    stager = make_stager(tmp_path, BatchLimits(20_000, 10**9))
    line, packed = b"x" * 1_000, b"p" * 2_000
    tracemalloc.start()
    try:
        for number in range(20_000):
            stager.add(make_member(number), line, packed)
        files = stager.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert files is not None
    assert files.staged.byte_count == 20_000 * 1_001 - 1
    assert peak < 16_000_000


def _killed(temporary: str, path: str) -> None:
    raise KeyboardInterrupt
