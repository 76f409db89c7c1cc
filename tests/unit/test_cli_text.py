"""Numbers, money, times and long values as people read them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.advice import ADVICE, advice
from pipelines.text import cells, duration, moment, money, number, one_line, plural, printable, size
from transforms.records.failure import FailureKind


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        (None, "unknown"),
        ("0", "$0"),
        ("0.000000000000000000", "$0"),
        ("1234.5678", "$1,234.57"),
        ("12.3456789", "$12.3457"),
        ("0.0412", "$0.0412"),
        ("0.0099999", "$0.01000"),
        ("0.0000345", "$0.0000345"),
        ("0.000034512", "$0.0000345"),
    ],
)
def test_money_shows_the_digits_that_matter(usd: str | None, shown: str) -> None:
    """Two places for hundreds, four from a cent, three significant digits below."""
    assert money(usd) == shown
    assert money(None if usd is None else Decimal(usd)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (60, "1 min 00 s"),
        (3725, "1 h 02 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float | None, shown: str) -> None:
    """Nobody reads seconds beside hours."""
    assert duration(seconds) == shown


def test_small_words() -> None:
    """Counts, plurals, sizes and times."""
    assert (number(1234567), number(None)) == ("1,234,567", "-")
    assert (plural(1, "row"), plural(2, "row"), plural(0, "copy", "copies")) == ("1 row", "2 rows", "0 copies")
    assert (size(512), size(1500), size(20_000_000), size(5 * 10**12)) == ("512 bytes", "1.5 kB", "20 MB", "5.0 TB")
    assert moment("2026-11-21T06:34:12.5+01:00") == "2026-11-21 05:34:12 UTC"


@given(st.text(), st.integers(4, 60))
def test_one_line_fits_and_is_safe_for_a_terminal(text: str, width: int) -> None:
    """Whatever a row holds, it takes one line of the given cells, without control characters."""
    shown = one_line(text, width)
    assert cells(shown) <= width
    assert shown.isprintable()


def test_control_characters_are_shown_not_obeyed() -> None:
    """An escape sequence in a review can't colour or clear the screen."""
    assert printable("a\x1b[31mb\nc\td") == "a\\x1b[31mb\nc\td"


def test_every_kind_that_ends_a_row_has_advice() -> None:
    """An operator is told what to do, in one short clause."""
    assert set(ADVICE) == set(FailureKind) - {FailureKind.OK}
    assert all(len(words) < 80 and not words.endswith(".") for words in ADVICE.values())
    assert advice("a_kind_of_tomorrow")
