"""The one re-ask (rules/repair.py)."""

from transforms.records.request import Prompt
from transforms.rules.repair import MAX_ANSWER_CHARS, repair_prompt

PROMPT = Prompt("Label.", (("user", "Review: ok"),))


def test_a_repair_shows_the_model_its_answer_and_the_error():
    """The conversation goes on with two turns; the last one is the user's."""
    repaired = repair_prompt(PROMPT, '{"label": "happy"}', "at $.label the value is not allowed")
    assert repaired.system == "Label."
    assert repaired.turns[:2] == (("user", "Review: ok"), ("assistant", '{"label": "happy"}'))
    role, text = repaired.turns[2]
    assert role == "user"
    assert "at $.label the value is not allowed" in text
    assert "only the corrected JSON" in text


def test_a_long_answer_is_cut_visibly():
    """At the limit it is whole; one character more is cut and said so."""
    whole, longer = "x" * MAX_ANSWER_CHARS, "x" * (MAX_ANSWER_CHARS + 1)
    assert repair_prompt(PROMPT, whole, "e").turns[1][1] == whole
    cut = repair_prompt(PROMPT, longer, "e").turns[1][1]
    assert cut.startswith(whole)
    assert cut.endswith("[the rest is left out]")


def test_an_empty_answer_still_gives_a_turn_that_providers_take():
    """Providers refuse an assistant turn without text."""
    assert repair_prompt(PROMPT, " ", "the answer is empty").turns[1] == ("assistant", "(empty)")
