"""Row ids: from keys, from content, and among rows that share one."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.records.errors import RowError
from transforms.records.failure import DeadLetter, FailureKind, Stage
from transforms.records.row import RawRow, SourceRow
from transforms.rules.identity import content_id, content_sha256, identify_group, line_id, row_key

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.dates()
    | st.datetimes()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3)
    | st.binary(max_size=4)
)


@pytest.mark.parametrize(
    ("values", "columns", "key"),
    [
        pytest.param({"id": "a"}, ["id"], "a", id="text"),
        pytest.param({"id": 5}, ["id"], "5", id="integer"),
        pytest.param({"id": True}, ["id"], "true", id="boolean"),
        pytest.param({"id": dt.date(2024, 5, 31)}, ["id"], "2024-05-31", id="date"),
        pytest.param({"id": Decimal("1.50")}, ["id"], "1.5", id="decimal"),
        pytest.param({"id": Decimal("-0.0")}, ["id"], "0", id="negative zero"),
        pytest.param({"id": b"\x01"}, ["id"], "01", id="bytes"),
        pytest.param({"id": {"b": 1, "a": 2}}, ["id"], '{"a":2,"b":1}', id="struct"),
        pytest.param({"a": "x", "b": 2}, ["a", "b"], "x|2", id="two columns"),
        pytest.param({"a": "x|y", "b": "\\"}, ["a", "b"], "x\\|y|\\\\\\", id="escaped"),
        pytest.param({"id": "x|y"}, ["id"], "x|y", id="one column is not escaped"),
        pytest.param({"id": "a~1"}, ["id"], "a~1\\", id="looks like a repeat"),
        pytest.param({"id": "a#x.csv:3"}, ["id"], "a#x.csv:3\\", id="looks like a clash"),
        pytest.param({"id": "line:x.csv:3"}, ["id"], "line:x.csv:3\\", id="looks like a line"),
        pytest.param({"id": "order #5"}, ["id"], "order #5", id="a number sign alone is fine"),
    ],
)
def test_a_key_is_its_text(values, columns, key):
    """The row_id is what people call the row, unless it looks like an id made here."""
    assert row_key(values, columns) == key


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="absent"),
        pytest.param({"id": None}, id="null"),
        pytest.param({"id": ""}, id="empty"),
        pytest.param({"id": float("nan")}, id="NaN"),
    ],
)
def test_a_missing_key_is_refused(values):
    """A row without a key is a failure of its own kind that names the column."""
    with pytest.raises(RowError, match="key column id") as caught:
        row_key(values, ["id"])
    assert caught.value.kind is FailureKind.MISSING_KEY


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=4), st.text(min_size=1, max_size=4)), unique=True, max_size=8))
def test_different_keys_give_different_ids(pairs):
    """Joining and escaping never makes two keys one."""
    assert len({row_key({"a": a, "b": b}, ["a", "b"]) for a, b in pairs}) == len(pairs)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=3), SCALARS, max_size=5), st.randoms(use_true_random=False))
def test_content_does_not_depend_on_column_order(values, random):
    """Shuffled columns give the same digest."""
    items = list(values.items())
    random.shuffle(items)
    assert content_sha256(dict(items)) == content_sha256(values)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param("1", 1, id="text and integer"),
        pytest.param(True, 1, id="boolean and integer"),
        pytest.param(1, 1.0, id="integer and float"),
        pytest.param(None, float("nan"), id="null and NaN"),
        pytest.param(None, "", id="null and empty"),
        pytest.param("2024-05-31", dt.date(2024, 5, 31), id="text and date"),
        pytest.param(dt.date(2024, 5, 31), dt.datetime(2024, 5, 31), id="date and timestamp"),  # noqa: DTZ001
        pytest.param("1.5", Decimal("1.5"), id="text and decimal"),
        pytest.param(2**70, str(2**70), id="long integer and text"),
        pytest.param([None], [float("inf")], id="nested null and infinity"),
        pytest.param(dt.timedelta(1), str(dt.timedelta(1)), id="duration and text"),
    ],
)
def test_content_knows_types(left, right):
    """Values of different types are different content."""
    assert content_sha256({"v": left}) != content_sha256({"v": right})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(Decimal("1.50"), Decimal("1.5"), id="decimals"),
        pytest.param(Decimal("1E+2"), Decimal(100), id="decimal exponents"),
        pytest.param(
            dt.datetime(2024, 5, 31, 12, tzinfo=dt.UTC),
            dt.datetime(2024, 5, 31, 14, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            id="one moment in two zones",
        ),
    ],
)
def test_equal_values_are_equal_content(left, right):
    """How a decimal or a moment is written does not matter."""
    assert content_sha256({"v": left}) == content_sha256({"v": right})


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=3), SCALARS, max_size=5), st.lists(st.text(max_size=3)))
def test_a_null_column_is_content_like_an_absent_one(values, more):
    """A row read back from a table, where every column is there, has the digest of the line it came from."""
    assert content_sha256(dict.fromkeys(more) | values) == content_sha256(values)


def test_content_of_an_unknown_type_is_refused():
    """What has no stable form is an error of the program, never a random hash."""
    with pytest.raises(TypeError, match="canonical"):
        content_sha256({"v": object()})


def test_rows_without_a_key_are_counted():
    """Identical rows get ordinals in the order of their places."""
    rows = [RawRow({"t": "x"}, "b.csv", 2), RawRow({"t": "x"}, "a.csv", 10), RawRow({"t": "x"}, "a.csv", 9)]
    digest = content_sha256({"t": "x"})
    named = identify_group(digest, rows, has_key=False)
    assert [(row.row_id, row.path, row.line) for row in named] == [
        (content_id(digest, 0), "a.csv", 9),
        (content_id(digest, 1), "a.csv", 10),
        (content_id(digest, 2), "b.csv", 2),
    ]
    assert named[0].row_id.startswith("h")


def test_repeated_rows_are_kept_apart():
    """The same row twice is enriched twice, under ids that differ."""
    named = identify_group("k", [RawRow({"t": "x"}, "a", 3), RawRow({"t": "x"}, "a", 2)], has_key=True)
    assert [(row.row_id, row.line) for row in named] == [("k", 2), ("k~1", 3)]


def test_a_clash_of_keys_names_the_other_rows():
    """Two rows with one key and different content are both dead letters that point at each other."""
    rows = [RawRow({"t": str(number)}, "a#b.csv", number) for number in range(2, 8)]
    letters = identify_group("k", rows, has_key=True)
    assert [letter.row_id for letter in letters] == [f"k#a%23b.csv:{number}" for number in range(2, 8)]
    assert {letter.kind for letter in letters} == {FailureKind.DUPLICATE_KEY}
    assert letters[0].stage is Stage.IDENTIFY
    assert letters[0].row == {"t": "2"}
    assert "also a#b.csv line 3, a#b.csv line 4, a#b.csv line 5 and 2 more" in letters[0].reason
    assert "a#b.csv line 7" not in letters[5].reason


KEYS = st.text(alphabet="ab~#:1|\\", min_size=1, max_size=6) | st.sampled_from(["line:p:1", "a#p:1", "a~1", "a"])
PATHS = st.sampled_from(["p", "p#q", "a~1", "p:1", "p%23q"])


@settings(max_examples=60)
@given(st.lists(st.tuples(KEYS, st.sampled_from("xy"), PATHS), max_size=12), st.randoms(use_true_random=False))
def test_every_row_gets_one_id_of_its_own(rows, random):
    """As many rows come out as went in, ids are unique over all groups, and order does not matter."""
    raw = [RawRow({"id": key, "t": text}, path, line) for line, (key, text, path) in enumerate(rows, 1)]
    ids = [*_ids_of(raw), line_id("p", 10_000)]
    assert len(ids) == len(raw) + 1
    assert len(set(ids)) == len(ids)
    shuffled = list(raw)
    random.shuffle(shuffled)
    assert sorted(_ids_of(shuffled)) == sorted(_ids_of(raw))


def _ids_of(rows):
    groups = {}
    for row in rows:
        groups.setdefault(row_key(row.values, ["id"]), []).append(row)
    named = [one for key, group in groups.items() for one in identify_group(key, group, has_key=True)]
    assert all(isinstance(one, SourceRow | DeadLetter) for one in named)
    return [one.row_id for one in named]
