"""The short way through a template of texts and columns gives what Jinja gives, or leaves it to Jinja."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.rules.plain_template import Column, fill, plain_pieces
from transforms.rules.prompt import MAX_PROMPT_CHARS
from transforms.rules.templating import PromptEnvironment, RowFields

_ENVIRONMENT = PromptEnvironment()
_TEXTS = st.text(st.characters(exclude_characters="{}%#", exclude_categories=("Cs",)), max_size=20)
_SOURCES = st.lists(_TEXTS | st.sampled_from(["{{ row.a }}", "{{row.items}}", "{{- row.a -}}", "{# note #}"])).map(
    "".join
)
_VALUES = st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text() | st.lists(st.integers())


@given(_SOURCES, st.dictionaries(st.sampled_from(["a", "items"]), _VALUES))
def test_what_is_filled_in_is_what_jinja_renders(source: str, row: dict[str, Any]) -> None:
    """Whatever the texts and values: the same prompt, or None; and never None where all values are texts."""
    pieces = plain_pieces(_ENVIRONMENT.parse(source))
    assert pieces is not None
    text = fill(pieces, row, MAX_PROMPT_CHARS)
    named = [piece.name for piece in pieces if isinstance(piece, Column)]
    if all(isinstance(row.get(name), str) for name in named):
        assert text == _ENVIRONMENT.from_string(source).render(row=RowFields(row))
    else:
        assert text is None


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ row['a'] }}", id="item"),
        pytest.param("{{ row.a | upper }}", id="filter"),
        pytest.param("{{ row.a.b }}", id="member"),
        pytest.param("{{ row }}", id="whole row"),
        pytest.param("{{ lookup.a }}", id="lookup"),
        pytest.param("{{ 1 + 1 }}", id="expression"),
        pytest.param("{% if row.a %}x{% endif %}", id="statement"),
        pytest.param("{% set row = lookup %}{{ row.a }}", id="another row"),
    ],
)
def test_any_other_template_is_left_to_jinja(source: str) -> None:
    """Only texts and columns named outright are plain."""
    assert plain_pieces(_ENVIRONMENT.parse(source)) is None


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        pytest.param({}, 9, id="no such column"),
        pytest.param({"a": None}, 9, id="null"),
        pytest.param({"a": Decimal("1.50")}, 9, id="number"),
        pytest.param({"a": "long"}, 4, id="too long"),
    ],
)
def test_what_is_no_text_is_left_to_jinja(row: dict[str, Any], limit: int) -> None:
    """A missing column, a value to be printed in some form, and a prompt beyond the limit."""
    assert fill(("x", Column("a")), row, limit) is None
