"""What audit must not show of a row is found however deep it lies."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from transforms.rules.call_record import blank
from transforms.rules.hidden import hidden_values


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        pytest.param("a secret", ("a secret",), id="a text"),
        pytest.param(17, ("17",), id="a number"),
        pytest.param(True, ("True",), id="a boolean of its own"),
        pytest.param(date(2026, 1, 2), ("2026-01-02",), id="a date"),
        pytest.param(None, (), id="nothing"),
        pytest.param({"name": "Ann", "age": 41, "ok": True, "no": None}, ("Ann", "41"), id="an object"),
        pytest.param(["x", ["y", {"z": "w"}]], ("x", "y", "w"), id="lists and objects inside each other"),
        pytest.param({"sum": Decimal("1.50"), "again": "1.50"}, ("1.50",), id="once each"),
        pytest.param({}, (), id="an empty object"),
    ],
)
def test_every_text_of_a_redacted_column_is_hidden(value: Any, texts: tuple[str, ...]) -> None:
    """Keys are no values; true, false and null inside a value say nothing."""
    assert hidden_values({"column": value, "other": "shown"}, ["column", "absent"]) == texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("it is 4111-2222-9 here", "it is [redacted] here"),
        ("it is 4111-22...", "it is [redacted]..."),
        ("it is 411...", "it is 411..."),
        ("first 4111-..., then Ann Sm...; end", "first [redacted]..., then [redacted]...; end"),
        ('it is \\"Zo\\u00eb Q...', 'it is \\"[redacted]...'),
        ("it ends with 4111-22", "it ends with 4111-22"),
        ("nothing...", "nothing..."),
    ],
)
def test_a_hidden_value_that_was_cut_does_not_show_its_beginning(text: str, shown: str) -> None:
    """Sentences quote the first hundred characters or so; four characters of a value are too many."""
    assert blank(text, ("4111-2222-9", "Ann Smith", "Zo\u00eb Quill")) == shown
