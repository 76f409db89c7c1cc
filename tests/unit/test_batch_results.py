"""A results file is cut at newlines only, and its ids are held against those that were sent."""

import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.storage.batch_results import ResultIds, read_lines

# Pieces that other splitters cut at, or that end lines in other ways.
_PIECES = st.sampled_from(
    [
        b"\n",
        b"\r\n",
        b"\r",
        b"\n\n",
        b" ",
        b"\t",
        b'{"a":1}',
        b"x",
        "\u2028\u2029\x85\u00e9".encode(),
        b"\x0b\x0c\x1c\x1d\x1e\0",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_PIECES | st.binary(max_size=8), max_size=30).map(b"".join))
def test_lines_are_those_of_bytes_split(data: bytes) -> None:
    """Whatever the bytes, the lines are those between newlines, without a carriage return, blank ones left out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        path.write_bytes(data)
        found = list(read_lines(str(path)))
    assert found == [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip()]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        pytest.param(b"", [], id="zero_bytes"),
        pytest.param(b"\n\r\n \n", [], id="blank_lines"),
        pytest.param(b"a\nb", [b"a", b"b"], id="last_line_without_newline"),
        pytest.param(b"a\r\nb\r\n", [b"a", b"b"], id="crlf"),
        pytest.param('"\u2028\x85"\n'.encode(), ['"\u2028\x85"'.encode()], id="unicode_separators"),
        pytest.param(b'"\x0b\x0c\x1c\x1d\x1e"\n', [b'"\x0b\x0c\x1c\x1d\x1e"'], id="ascii_separators"),
    ],
)
def test_only_a_newline_ends_a_line(tmp_path: Path, data: bytes, lines: list[bytes]) -> None:
    """The cases that cost others their rows."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(data)
    assert list(read_lines(str(path))) == lines


def test_large_file_is_read_in_flat_memory(tmp_path: Path) -> None:
    """A file of 40 MB passes through less than 1 MB of memory."""
    path = tmp_path / "results.jsonl"
    path.write_bytes((b"x" * 999 + b"\n") * 40_000)
    tracemalloc.start()
    try:
        assert sum(len(line) for line in read_lines(str(path))) == 999 * 40_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


_IDS = st.lists(st.sampled_from("abcdef"), unique=True)


@given(_IDS, st.lists(st.sampled_from("abcdefxyz")))
def test_ids_that_came_are_told_from_those_that_did_not(sent: list[str], came: list[str]) -> None:
    """Each id that comes is expected once, then a duplicate, or unknown; what is left is missing, in order."""
    ids = ResultIds(iter(sent))
    for place, custom_id in enumerate(came):
        earlier = custom_id in came[:place]
        assert ids.see(custom_id) == ("unknown" if custom_id not in sent else "duplicate" if earlier else "expected")
    assert list(ids.missing()) == [custom_id for custom_id in sent if custom_id not in came]


def test_ids_of_a_large_batch_are_few_bytes_each() -> None:
    """50,000 custom ids take less than 12 MB, the ids themselves included."""
    tracemalloc.start()
    try:
        ids = ResultIds(f"0a1b2c3d-{number:040x}" for number in range(50_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(1 for _ in ids.missing()) == 50_000
    assert held < 12_000_000
