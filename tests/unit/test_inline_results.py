"""Results inside one JSON text become lines without the text being parsed; the json module agrees with every line."""

import io
import json
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.providers.inline_results import split_results, without_results

_TEXT = st.text(alphabet=st.sampled_from('ab"\\{}[],:\n\r\u2028é\U0001f600'), max_size=12) | st.just("results")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_OTHER_KEYS = st.dictionaries(_TEXT.filter(lambda name: name != "results"), _JSON, max_size=3)


def spooled(text: bytes):
    """Return a real file that holds a text."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the test
    file.write(text)
    return file


def split(text: bytes) -> list[bytes]:
    """Return the lines of a text's results."""
    lines = io.BytesIO()
    assert split_results(spooled(text), lines) == len(lines.getvalue())
    assert lines.getvalue().count(b"\n") == len(lines.getvalue().split(b"\n")) - 1
    return lines.getvalue().split(b"\n")[:-1]


@settings(max_examples=100, deadline=None)
@given(
    before=_OTHER_KEYS,
    rows=st.lists(st.dictionaries(_TEXT, _JSON, max_size=3), max_size=4),
    after=_OTHER_KEYS,
    indent=st.sampled_from([None, 0, 2]),
    is_ascii=st.booleans(),
)
def test_every_object_is_one_line_whatever_is_around_it(before, rows, after, indent, is_ascii):
    """Brackets and quotes in strings, results in other places and pretty printing change nothing."""
    after = {name: value for name, value in after.items() if name not in before}
    document = {**before, "results": rows, **after}
    text = json.dumps(document, indent=indent, ensure_ascii=is_ascii).encode()
    assert [json.loads(line) for line in split(text)] == rows
    assert json.loads(without_results(spooled(text))) == {**document, "results": rows[:1]}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"id":"b","results":null}', id="null"),
        pytest.param(b'{"id":"b"}', id="absent"),
        pytest.param(b'{"object":"results","data":[{}]}', id="a-value-of-that-name"),
        pytest.param(b'{"data":{"results":[{}]}}', id="deeper"),
        pytest.param(b'{"results":{"a":[{}]}}', id="an-object"),
        pytest.param(b'[{"results":[{}]}]', id="in-a-list"),
        pytest.param(b"<html>busy</html>", id="html"),
        pytest.param(b"]]]{", id="closing-first"),
        pytest.param(b'{"results":[{"a":1},{"b"', id="cut-in-an-object"),
        pytest.param(b'{"results":[{"a":1}', id="cut-in-the-array"),
        pytest.param(b'{"results":[{"a":1}]', id="cut-after-it"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_text_without_whole_results_is_an_error(text):
    """Nothing is taken for no results."""
    with pytest.raises(ValueError):
        split(text)


def test_elements_that_are_no_objects_are_left_out():
    """They carry no id; the ids then show who is missing."""
    assert split(b'{"results":[null,{"a":1},[{"b":2}],"x",{"c":3}]}') == [b'{"a":1}', b'{"c":3}']


@pytest.mark.parametrize("text", [b'{"id":"b"}', b"<html>busy</html>", b'{"results":[{"a":1},{"b"'])
def test_a_text_without_results_is_kept_as_it_is(text):
    """There is nothing to leave out."""
    assert without_results(spooled(text)) == text
