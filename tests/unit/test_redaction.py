"""Secrets out of what is written (rules/redaction.py)."""

import base64
import hashlib
import json
import pickle
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.rules.redaction import MIN_SECRET_CHARS, Redactor

SECRET = 'canary "päss\\wörd/+ 42'
REDACTOR = Redactor([SECRET])
HEX32 = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(SECRET, id="as it is"),
        pytest.param(json.dumps({"key": SECRET}), id="JSON"),
        pytest.param(json.dumps({"key": SECRET}, ensure_ascii=False), id="JSON in Unicode"),
        pytest.param(f"key={quote(SECRET, safe='')}", id="URL"),
        pytest.param(f"key={quote(SECRET)}", id="URL path"),
        pytest.param(f"key={quote_plus(SECRET)}", id="form"),
        pytest.param(repr({"key": SECRET}), id="repr"),
    ],
)
def test_a_known_secret_is_found_in_every_form(written):
    """Nothing of it remains, whatever wrote it."""
    cleaned = REDACTOR.text(written)
    assert "[redacted]" in cleaned
    assert not any(part in cleaned for part in ("canary", "42", "rd/", "rd%2F"))


ESCAPERS = {
    "JSON": json.dumps,
    "JSON in Unicode": lambda text: json.dumps(text, ensure_ascii=False),
    "repr": repr,
}


@pytest.mark.parametrize("outer", ESCAPERS)
@pytest.mark.parametrize("middle", ESCAPERS)
@pytest.mark.parametrize("inner", ESCAPERS)
@pytest.mark.parametrize(
    "secret", [SECRET, 'it\'s "both" \\ quotes', "tab\there-and-newline\n"], ids=["odd", "quotes", "control"]
)
def test_a_known_secret_is_found_under_escapes_upon_escapes(secret, inner, middle, outer):
    """A log line quotes an error that quotes a reply that quotes the key: nothing of it remains at any depth."""
    redactor = Redactor([secret])
    once = ESCAPERS[inner](f"key <{secret}>")
    twice = ESCAPERS[middle](f"body {once}")
    thrice = ESCAPERS[outer](f"error {twice}")
    for written in (once, twice, thrice):
        assert "<[redacted]>" in redactor.text(written)


def test_an_ordinary_key_has_few_forms():
    """Escapes change nothing in it, so that looking for it stays quick: as it is, and inside Base64."""
    assert repr(Redactor(["sk-proj-abcDEF0123456789_x"])) in {f"Redactor({count} forms)" for count in range(2, 8)}


def test_an_answer_keeps_what_only_looks_like_a_key():
    """`own` takes out the secrets it was given, in every form, and leaves data alone; `text` takes out both."""
    lookalike = "a sample key is sk-abcdEFGH1234_-abcdEFGH, sent as Bearer abc.DEF-123456"
    assert REDACTOR.own(lookalike) is lookalike
    assert REDACTOR.text(lookalike) == "a sample key is [redacted], sent as Bearer [redacted]"
    for written in (SECRET, json.dumps(SECRET)[1:-1], quote(SECRET)):
        assert REDACTOR.own(f"{lookalike} and {written}.") == f"{lookalike} and [redacted]."
    assert Redactor().own(SECRET) is SECRET


@given(st.text(st.characters(codec="ascii", exclude_characters=":"), max_size=5), st.booleans())
def test_a_known_secret_is_found_inside_basic_credentials(user, urlsafe):
    """Base64 shifts with the user's name; the secret is found at every shift."""
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    token = encode(f"{user}:{SECRET}".encode()).decode()
    cleaned = REDACTOR.text(f"header {token} end")
    assert "[redacted]" in cleaned
    assert len(cleaned) < len(user) * 2 + 40


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        pytest.param("key sk-abcdEFGH1234_-abcdEFGH end", "key [redacted] end", id="openai"),
        pytest.param("sk-proj-" + "aB3-" * 20, "[redacted]", id="openai project"),
        pytest.param("x sk-ant-api03-AAAA1111bbbb2222, y", "x [redacted], y", id="anthropic"),
        pytest.param("sk-or-v1-" + HEX32, "[redacted]", id="openrouter"),
        pytest.param("Authorization: Bearer abc.DEF-123456", "Authorization: Bearer [redacted]", id="bearer"),
        pytest.param('{"authorization": "Basic dXNlcjpwYXNz"}', '{"authorization": "Basic [redacted]"}', id="basic"),
        pytest.param(f"api-key: {HEX32}", "api-key: [redacted]", id="azure header"),
        pytest.param(f'{{"x-api-key": "{HEX32}"}}', '{"x-api-key": "[redacted]"}', id="header in JSON"),
        pytest.param(f'{{\\"api-key\\": \\"{HEX32}\\"}}', '{\\"api-key\\": \\"[redacted]\\"}', id="header in JSON in JSON"),
        pytest.param(f"('api-key', '{HEX32}')", "('api-key', '[redacted]')", id="header as a tuple"),
        pytest.param("GET /m?api_key=abcdef123456789&b=1", "GET /m?api_key=[redacted]&b=1", id="query"),
        pytest.param("AIza" + "Sy0-_" * 7, "[redacted]", id="google"),
        pytest.param("id AKIAIOSFODNN7EXAMPLE.", "id [redacted].", id="aws"),
    ],
)  # fmt: skip
def test_a_key_of_a_known_kind_is_found_unasked(text, cleaned):
    """Keys nobody told us about, by their look or their place."""
    assert Redactor().text(text) == cleaned
    assert Redactor().text(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a risk-averse-but-otherwise-fine-person", id="sk- inside a word"),
        pytest.param("the bearer of bad news has basic responsibilities", id="prose"),
        pytest.param("api_key_env: OPENAI_API_KEY", id="the name of a variable"),
        pytest.param(hashlib.sha256(b"x").hexdigest(), id="sha256"),
        pytest.param('{"request_id": "' + hashlib.sha256(b"x").hexdigest() + '", "custom_id": "0f0f0f0f-' + "a1" * 20 + '"}', id="ids"),
        pytest.param("caviar AIzawl Asia akia", id="beginnings only"),
        pytest.param("", id="empty"),
    ],
)  # fmt: skip
def test_ordinary_text_stays(text):
    """The same object comes back: no copy, no change."""
    assert REDACTOR.text(text) is text


@given(st.binary())
def test_our_hashes_are_never_mangled(data):
    """Any sha256 survives, alone and in a record's JSON."""
    digest = hashlib.sha256(data).hexdigest()
    line = json.dumps({"prompt_sha256": digest, "batch_key": digest, "batch_id": "b" + digest[:20]})
    assert REDACTOR.text(line) is line


def test_short_values_are_no_secrets():
    """Local servers take any word as key; blanking it out would spoil the data."""
    assert MIN_SECRET_CHARS == 8
    assert Redactor(["EMPTY", "1234567"]).text("EMPTY 1234567") == "EMPTY 1234567"
    assert Redactor(["12345678"]).text("12345678") == "[redacted]"


def test_nested_values_are_cleaned_with_their_keys():
    """Dicts, lists, bytes and exceptions; numbers stay; key headers go whatever they hold."""
    value = {
        "headers": {"Authorization": "odd", "X-Api-Key": "odd", "accept": "odd"},
        SECRET: [1, 2.5, None, True, (SECRET,), SECRET.encode()],
        "error": ValueError(SECRET),
    }
    assert REDACTOR.value(value) == {
        "headers": {"Authorization": "[redacted]", "X-Api-Key": "[redacted]", "accept": "odd"},
        "[redacted]": [1, 2.5, None, True, ["[redacted]"], "[redacted]"],
        "error": "ValueError: [redacted]",
    }


def test_an_exception_becomes_one_clean_line():
    """Class and text, without line breaks."""
    assert REDACTOR.error(RuntimeError(f"no\n {SECRET}")) == "RuntimeError: no [redacted]"
    assert REDACTOR.error(KeyError()) == "KeyError"


def test_a_redactor_neither_shows_nor_pickles_its_secrets():
    """It could leak what it guards."""
    assert "canary" not in repr(REDACTOR)
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(REDACTOR)
