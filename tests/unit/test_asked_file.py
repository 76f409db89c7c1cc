"""This run's requests of a batch come back once each, byte for byte, and in order."""

import tempfile
import tracemalloc
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pool_builders import make_request
from transforms.records.errors import InternalError
from transforms.records.request import pack
from transforms.storage import asked_file
from transforms.storage.asked_file import AskedFile, AskedWriter, asked_path


def _write(path: Path, requests: dict[str, bytes]) -> str:
    writer = AskedWriter(str(path))
    for request_id, packed in requests.items():
        writer.add(request_id, packed)
    writer.close()
    return str(path)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.binary(max_size=40), max_size=30), st.data())
def test_each_request_is_given_once(requests: dict[str, bytes], data: st.DataObject) -> None:
    """Whatever is taken in whatever order, each request comes once with its bytes, and the rest in writing order."""
    taken = data.draw(st.lists(st.sampled_from(sorted(requests)), unique=True)) if requests else []
    with tempfile.TemporaryDirectory() as folder, AskedFile(_write(Path(folder) / "k.asked", requests)) as asked:
        assert len(asked) == len(requests)
        assert all(request_id in asked for request_id in requests)
        for request_id in taken:
            assert asked.take(request_id) == requests[request_id]
            assert asked.take(request_id) is None
        rest = [packed for request_id, packed in requests.items() if request_id not in taken]
        assert list(asked.rest()) == rest
        assert list(asked.rest()) == rest


def test_request_that_was_not_asked_is_none(tmp_path: Path) -> None:
    """An adopted batch holds requests that this run does not ask: they are simply not there."""
    with AskedFile(_write(tmp_path / "k.asked", {"r-1": b"one"})) as asked:
        assert asked.take("r-2") is None
        assert "r-2" not in asked


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=300), unique=True, max_size=12), st.data())
def test_a_likely_number_never_changes_what_is_taken(names: list[str], data: st.DataObject) -> None:
    """Right, wrong or out of reach: a request is found and given once, whatever number it is said to have."""
    requests = {name: pack(replace(make_request("a"), request_id=name)) for name in names}
    with tempfile.TemporaryDirectory() as folder, AskedFile(_write(Path(folder) / "k.asked", requests)) as asked:
        for place, (request_id, packed) in enumerate(requests.items()):
            likely = data.draw(st.sampled_from([place, 0, 3, 99]))
            assert asked.take(request_id, likely) == packed
            assert asked.take(request_id, likely) is None
        assert asked.take("another", 0) is None
        assert list(asked.rest()) == []


def test_digests_that_share_a_half_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests whose digests begin alike are found by the second half."""
    digests = {f"r-{n}": b"same 8 b" + bytes([n]) * 8 for n in range(5)} | {"r-9": b"same 8 bnot here"}
    monkeypatch.setattr(asked_file, "_digest", digests.__getitem__)
    with AskedFile(_write(tmp_path / "k.asked", {f"r-{n}": b"%d" % n for n in (3, 0, 4, 1, 2)})) as asked:
        assert [asked.take(f"r-{n}") for n in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert asked.take("r-9") is None


def test_empty_file_is_valid(tmp_path: Path) -> None:
    """A batch adopted by a run that asks none of its requests has an empty file."""
    with AskedFile(_write(tmp_path / "k.asked", {})) as asked:
        assert len(asked) == 0
        assert asked.take("r-1") is None
        assert list(asked.rest()) == []


def test_request_twice_is_refused(tmp_path: Path) -> None:
    """The same request id can't come twice."""
    writer = AskedWriter(str(tmp_path / "k.asked"))
    writer.add("r-1", b"one")
    with pytest.raises(InternalError, match="r-1 comes twice"):
        writer.add("r-1", b"one")
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Until close nothing bears the name; afterwards nothing else is in the folder."""
    path = asked_path(str(tmp_path), "k")
    writer = AskedWriter(path)
    writer.add("r-1", b"one")
    assert not Path(path).exists()
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["k.asked"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[:-1], id="cut_at_the_end"),
        pytest.param(lambda data: data[1:], id="cut_at_the_start"),
        pytest.param(lambda data: data[:-8] + b"\xff" * 8, id="count_of_millions"),
        pytest.param(lambda data: b'{"not": "ours at all, but long enough"}', id="another_file"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, damage) -> None:
    """What is no asked file is refused with its path and the cure."""
    path = Path(_write(tmp_path / "k.asked", {"r-1": b"one", "r-2": b"two"}))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InternalError, match=r"k\.asked is damaged; run the same job again"):
        AskedFile(str(path))


def test_file_that_is_absent_is_not_found(tmp_path: Path) -> None:
    """There is a plain error for a file that nobody wrote."""
    with pytest.raises(FileNotFoundError):
        AskedFile(str(tmp_path / "k.asked"))


def test_index_of_a_large_batch_is_small(tmp_path: Path) -> None:
    """50,000 requests cost less than 3 MB while their file is open."""
    ids = [sha256(b"%d" % n).hexdigest() for n in range(50_000)]
    path = _write(tmp_path / "k.asked", dict.fromkeys(ids, b"p" * 100))
    tracemalloc.start()
    try:
        with AskedFile(path) as asked:
            held, _ = tracemalloc.get_traced_memory()
            assert asked.take(ids[49_999]) == b"p" * 100
    finally:
        tracemalloc.stop()
    assert held < 3_000_000
