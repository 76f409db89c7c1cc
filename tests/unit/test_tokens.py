"""Estimated tokens (rules/tokens.py)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.request import Prompt
from transforms.rules.tokens import estimate_tokens, prompt_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        pytest.param("", 0, id="empty"),
        pytest.param("a", 1, id="one letter"),
        pytest.param("abcd", 1, id="four letters"),
        pytest.param("abcde", 2, id="five letters"),
        pytest.param("日本語", 3, id="one per character"),
        pytest.param("мир", 2, id="two for three letters"),
        pytest.param("ab日", 2, id="mixed, rounded up"),
        pytest.param("\ud800", 1, id="half a character"),
    ],
)
def test_an_estimate_follows_the_stated_method(text, tokens):
    """Each line of the docstring's method."""
    assert estimate_tokens(text) == tokens


def test_an_estimate_is_within_its_stated_error_on_english_prose():
    """The paragraph below has 56 tokens in a 49,000-word byte-pair tokenizer."""
    text = (
        "before you try to return the player or waste hours calling apex tech support, or run the player over with "
        "your car, try these simple troubleshooting ideas first. no picture: hopefully you still have the remote "
        "control. if you tossed it out the window, you need to find it."
    )
    assert estimate_tokens(text) == pytest.approx(56, rel=0.25)


@given(st.text(), st.text())
def test_longer_texts_never_have_fewer_tokens(one, other):
    """The estimate grows with the text, and is never more than one off from the sum of its parts."""
    joined = estimate_tokens(one + other)
    assert joined >= max(estimate_tokens(one), estimate_tokens(other))
    assert joined <= estimate_tokens(one) + estimate_tokens(other)


def test_a_prompt_counts_all_its_texts_and_their_frames():
    """System and turns alike cost their text and four tokens."""
    assert prompt_tokens(Prompt("abcd", (("user", "abcd"), ("assistant", "abcd"), ("user", "abcd")))) == 20
    assert prompt_tokens(Prompt(None, (("user", ""),))) == 4
