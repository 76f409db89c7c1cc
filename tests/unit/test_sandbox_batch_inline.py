"""Rows cut out of a JSON body as it arrives: whatever the pieces, the same rows, in flat memory."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sandbox.batch_inline import InlineRows

#: Text made of what could lead a reader astray.
_TEXT = st.text(alphabet='"\\{}[],: requests\n\u2028é', max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9999, 9999) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_BEFORE = st.dictionaries(st.sampled_from(["model", 'x"requests', "endpoint", "provider"]), _VALUES)
_AFTER = st.dictionaries(st.sampled_from(["z", "window", '"requests']), _VALUES)


def cut(pieces: Iterator[bytes]) -> tuple[list[Any], dict[str, Any]]:
    """Return the rows and what is around them."""
    reader, rows = InlineRows(), []
    for piece in pieces:
        rows.extend(orjson.loads(row) for row in reader.feed(piece))
    return rows, reader.finish()


def in_pieces(raw: bytes, size: int) -> Iterator[bytes]:
    """Yield the body in pieces of so many bytes."""
    return (raw[start : start + size] for start in range(0, len(raw), size))


@given(
    before=_BEFORE,
    rows=st.lists(st.dictionaries(_TEXT, _VALUES, max_size=3), max_size=4),
    after=_AFTER,
    size=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    is_ascii=st.booleans(),
)
def test_the_pieces_make_no_difference(
    before: dict[str, Any], rows: list[Any], after: dict[str, Any], size: int, indent: int | None, is_ascii: bool
) -> None:
    """However a body is written and cut, its rows come out, and the rest with its keys in order."""
    body = {**before, "requests": rows, **after}
    raw = json.dumps(body, indent=indent, ensure_ascii=is_ascii).encode()
    found, around = cut(in_pieces(raw, size))
    assert found == rows
    assert around == {**body, "requests": []}
    assert list(around) == list(body)


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"requests":[{}', id="no end"),
        pytest.param(b'{"requests":[{"a":"', id="no end of text"),
        pytest.param(b'{"requests":[{}]', id="no end around"),
        pytest.param(b'{"requests":[{},]}', id="comma at the end"),
        pytest.param(b'{"requests":[,{}]}', id="comma at the start"),
        pytest.param(b'{"requests":[{} {}]}', id="no comma"),
        pytest.param(b'{"requests":[{},1]}', id="a number"),
        pytest.param(b'{"requests":["a"]}', id="a text"),
        pytest.param(b'{"requests":[[{}]]}', id="a list in it"),
        pytest.param(b'{"requests":[{}}}', id="wrong bracket"),
        pytest.param(b'{"requests":[{}]}}', id="too many brackets"),
        pytest.param(b'{"requests":[{}],}', id="comma around"),
    ],
)
def test_what_is_no_such_body_is_refused(raw: bytes, size: int) -> None:
    """Each is a ValueError, also when it comes byte by byte."""
    with pytest.raises(ValueError):
        cut(in_pieces(raw, size))


def test_what_is_around_the_rows_is_bounded() -> None:
    """A body that goes on and on without rows is not kept for ever."""
    endless = (b"[" + b" " * 65536 + b"]" for _ in range(40))
    with pytest.raises(ValueError, match="too large"):
        cut(endless)


def test_memory_stays_flat() -> None:
    """Forty megabytes of rows pass through less than two."""
    row = orjson.dumps({"custom_id": "a", "params": {"text": "word " * 200}})
    block = b",".join([row] * 64)

    def pieces() -> Iterator[bytes]:
        yield b'{"requests":[' + block
        for _ in range(600):
            yield b"," + block
        yield b"]}"

    reader, count = InlineRows(), 0
    tracemalloc.start()
    try:
        for piece in pieces():
            count += sum(1 for _ in reader.feed(piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reader.finish() == {"requests": []}
    assert count == 601 * 64
    assert peak < 2 * 1024 * 1024
