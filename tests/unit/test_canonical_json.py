"""JSON as RFC 8785 writes it, for hashes and templates."""

import datetime as dt
import json
from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from transforms.rules.canonical import canonical_json, to_json

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON_VALUES)
def test_canonical_json_is_rfc_8785(value):
    """The quick way and the library agree on every JSON value."""
    assert canonical_json(value) == rfc8785.dumps(value)


def test_canonical_json_escapes_control_characters_as_rfc_8785_does():
    """Every character below 0x80, one by one."""
    for code in range(0x80):
        assert canonical_json(chr(code)) == rfc8785.dumps(chr(code))


def test_canonical_json_takes_every_column_value():
    """Values JSON lacks become text, so no row fails for its types."""
    values = {
        1: [dt.date(2024, 1, 2), dt.time(3, 4), Decimal("1.0"), b"\x00\xff", 2**70, float("nan")],
        "t": (dt.timedelta(1),),
    }
    assert json.loads(canonical_json(values)) == {
        "1": ["2024-01-02", "03:04:00", "1.0", "AP8=", str(2**70), "nan"],
        "t": ["1 day, 0:00:00"],
    }
    assert to_json(2**53 - 1) == 2**53 - 1


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1.5}, [1.5, "\ud800"]])
def test_canonical_json_refuses_text_that_is_not_unicode(value):
    """An unpaired surrogate is a ValueError on both ways."""
    with pytest.raises(ValueError, match="surrogate"):
        canonical_json(value)
