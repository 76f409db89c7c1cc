"""A line that fits a shape says the same as its JSON; what a shape can't be sure of, it leaves to others."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.storage_builders import make_call
from transforms.rules.line_shape import LineShape, learn
from transforms.rules.redaction import Redactor
from transforms.storage.ledger_lines import encode, encode_like, shared_fields

_PATH = ("response", "body")
_NAMES = st.text("abcXYZ019_-", min_size=1, max_size=12)
_COUNTS = st.integers(0, 10**18)


def _line(text: str = "fine", name: str = "c-1", count: int = 5, created: int = 1, **body: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": count, "details": {"cached": count}, "tier": "a b"}
    message = {"role": "assistant", "content": text}
    answer = {"id": f"chat-{name}", "created": created, "choices": [{"message": message}], "usage": usage, **body}
    return {"id": name, "custom_id": name, "response": {"request_id": f"r{name}", "body": answer}, "error": None}


def _shape(line: str) -> LineShape:
    shape = learn(line, _PATH)
    assert shape is not None
    return shape


@settings(max_examples=100, deadline=None)
@given(st.text(), _NAMES, _COUNTS, _COUNTS, st.sampled_from([None, (",", ":")]), st.booleans())
def test_a_line_that_fits_says_what_its_json_says(
    text: str, name: str, count: int, created: int, separators: Any, ascii_only: bool
) -> None:
    """Compact or with blanks, escaped or not: text, ids, counts and the whole body are those of the parsed line."""
    example = json.dumps(_line(), separators=separators)
    found = _line(text, name, count, created)
    try:
        line = json.dumps(found, separators=separators, ensure_ascii=ascii_only).encode().decode()
    except UnicodeEncodeError:
        return
    fit = _shape(example).fit(line)
    if fit is None:
        assert max(count, created) >= 10**15
        return
    body = orjson.dumps(found["response"]["body"]).decode()
    assert (fit.text, fit.custom_id, fit.request_id, fit.body) == (text, name, f"r{name}", body)
    assert orjson.loads(fit.usage) == found["response"]["body"]["usage"]
    assert f"chat-{name}" in fit.words


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(_line(model="x"), id="another key"),
        pytest.param(_line(choices=[]), id="no answer"),
        pytest.param(_line(usage={"prompt_tokens": 1.5, "details": {"cached": 1}, "tier": "a b"}), id="a float"),
        pytest.param(_line(usage={"prompt_tokens": -1, "details": {"cached": 1}, "tier": "a b"}), id="below 0"),
        pytest.param(_line(usage={"prompt_tokens": 1, "details": {"cached": 1}, "tier": "c"}), id="another tier"),
        pytest.param(_line(name="c 1"), id="an id with a blank"),
        pytest.param(_line(created=None), id="no time"),
    ],
)
def test_a_line_that_differs_elsewhere_does_not_fit(line: dict[str, Any]) -> None:
    """What is neither id, text, count nor time has to be the same to the letter."""
    shape = _shape(orjson.dumps(_line()).decode())
    assert shape.fit(orjson.dumps(line).decode()) is None


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="empty"),
        pytest.param('{"custom_id":"a"', id="cut"),
        pytest.param('{"custom_id":"a"}', id="no body"),
        pytest.param(orjson.dumps(_line(content="two")).decode(), id="two texts"),
        pytest.param(orjson.dumps(_line()).decode().replace('"role":', '"role":"x","role":'), id="a key twice"),
        pytest.param(
            orjson.dumps(_line()).decode().replace('"custom_id"', '"custom_id":"b","custom_id"'), id="two ids"
        ),
        pytest.param(orjson.dumps(_line(usage={"a": {"b": {"c": 1}}})).decode(), id="counts too deep"),
        pytest.param(orjson.dumps(_line(name="é")).decode(), id="an id of other letters"),
    ],
)
def test_no_shape_is_learned_where_lines_have_to_be_read(line: str) -> None:
    """Broken, ambiguous and unusual lines teach nothing."""
    assert learn(line, _PATH) is None


def test_half_a_surrogate_pair_does_not_fit() -> None:
    """Such a text is read otherwise than it is written."""
    example = json.dumps(_line())
    assert _shape(example).fit(example.replace("fine", "half \\ud83d")) is None


@given(
    st.lists(st.sampled_from(["sk-", "AKIA", "Bearer ", "api_key", "=", "0123456789abcdefXYZ", "canary-secret", " "]))
)
def test_plain_texts_are_left_as_they_are(parts: list[str]) -> None:
    """Where nothing tells a secret, none is replaced."""
    redactor, text = Redactor(["canary-secret"]), "".join(parts)
    assert not redactor.is_plain(text) or redactor.text(text) == text == redactor.own(text)


@pytest.mark.parametrize(
    ("secret", "expected"), [("sk-abcd_1234.x", True), ('sk-"abcd"', False), ("1234567890", False)]
)
def test_secrets_of_several_words_are_known(secret: str, expected: bool) -> None:
    """A secret with JSON's own punctuation, or of digits alone, can lie across two words."""
    assert Redactor([secret]).looks_for_words is expected


@given(st.sets(st.sampled_from(sorted(vars(make_call()))), min_size=1))
def test_line_of_a_record_like_another_is_the_records_own(changing: set[str]) -> None:
    """Whichever fields change, the shared ones are written once and the line is the same to the byte."""
    first, other = make_call(), make_call(call_id="b1-9", call_index=9, text='"é"\n')
    others = {name: getattr(other, name) for name in changing | {"call_id", "call_index", "text"}}
    plain = {name: str(value) if name == "cost_usd" else value for name, value in others.items()}
    assert encode_like(shared_fields(first, others), plain) == encode(other)
