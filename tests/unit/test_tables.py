"""Parquet files hold the rows that were written, under schemas that hold what the records do."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.storage_builders import RUN, make_call, make_ended, make_failed_call, make_opened
from transforms.records.call import CallRecord
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind
from transforms.records.row import Outcome, RowOutcome
from transforms.rules.answer_columns import AnswerColumns
from transforms.rules.prompt import PromptTemplate
from transforms.storage.arrow_types import AUDIT_SCHEMAS, CALLS, MONEY
from transforms.storage.audit_rows import Story, batch_row, call_row, member_rows, row_row
from transforms.storage.tables import ParquetWriter, enriched_schema, json_default, record_batch

_PAIR = pa.schema([pa.field("name", pa.string(), nullable=False), pa.field("size", pa.int64())])


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Batches and row groups may be of any size; order and values are kept."""
    path = str(tmp_path / "t" / "x.parquet")
    rows = [{"name": f"n{n}", "size": n if n % 3 else None} for n in range(1000)]
    with ParquetWriter(path, _PAIR, batch_rows=7, row_group_bytes=1000) as writer:
        writer.extend(rows)
    assert writer.row_count == 1000
    file = pq.ParquetFile(path)
    assert file.read().to_pylist() == rows
    assert file.schema_arrow.equals(_PAIR)
    assert file.metadata.num_row_groups > 10
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_table_without_rows_is_a_file_with_the_schema(tmp_path: Path) -> None:
    """Readers of a folder find the columns even where nothing was written."""
    path = str(tmp_path / "x.parquet")
    with ParquetWriter(path, CALLS):
        pass
    found = pq.read_schema(path)
    assert found.equals(CALLS)
    assert found.field("cost_usd").metadata[b"description"] == b"Cost; null when unknown"
    assert pq.read_metadata(path).num_rows == 0


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    """While rows are written there is no file of that name; after an exception there is none at all."""
    path = tmp_path / "x.parquet"
    writer = ParquetWriter(str(path), _PAIR, batch_rows=1)
    with writer:
        writer.append({"name": "a", "size": 1})
        assert not path.exists()
    path.unlink()
    with pytest.raises(ZeroDivisionError), ParquetWriter(str(path), _PAIR, batch_rows=1) as writer:
        writer.append({"name": "a", "size": 1 // 0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param({"name": "a"}, "columns", id="too few"),
        pytest.param({"name": "a", "size": 1, "mood": "good"}, "columns", id="too many"),
        pytest.param({"name": "a", "sizes": 1}, "'size'", id="another name"),
        pytest.param({"name": None, "size": 1}, "'name' must have a value", id="null"),
        pytest.param({"name": "a", "size": "big"}, "'size' can't hold", id="wrong type"),
        pytest.param({"name": "a", "size": 2**63}, "'size' can't hold", id="too large"),
    ],
)
def test_a_row_that_does_not_fit_is_an_error_that_names_the_column(
    tmp_path: Path, row: dict[str, object], said: str
) -> None:
    """Nothing is dropped or guessed, and no file is left."""
    with pytest.raises(InternalError, match=said), ParquetWriter(str(tmp_path / "x.parquet"), _PAIR) as writer:
        writer.extend([{"name": "fine", "size": 1}, row])
    assert list(tmp_path.iterdir()) == []


def test_text_and_money_are_mended_at_any_depth() -> None:
    """Half characters become replacement characters and money is rounded to eighteen places; all else stays."""
    schema = pa.schema(
        [
            pa.field("texts", pa.list_(pa.struct([pa.field("t", pa.string()), pa.field("n", pa.int64())]))),
            pa.field("cost", MONEY),
        ]
    )
    rows = [
        {"texts": [{"t": "a\ud800", "n": 1}, None], "cost": Decimal("0.1234567890123456785")},
        {"texts": None, "cost": None},
        {"texts": [], "cost": Decimal(3)},
    ]
    assert record_batch(rows, schema).to_pylist() == [
        {"texts": [{"t": "a?", "n": 1}, None], "cost": Decimal("0.123456789012345678")},
        {"texts": None, "cost": None},
        {"texts": [], "cost": Decimal("3.000000000000000000")},
    ]


@given(
    text=st.none() | st.text(),
    tokens=st.none() | st.integers(0, 2**60),
    cost=st.none() | st.decimals(0, 10**6, allow_nan=False, allow_infinity=False, places=18),
    finish=st.lists(st.text(), max_size=2).map(tuple),
    started=st.integers(0, 2**50),
)
def test_a_call_survives_its_table(
    text: str | None, tokens: int | None, cost: Decimal | None, finish: tuple[str, ...], started: int
) -> None:
    """All columns of calls hold what the record holds, to the last digit and microsecond."""
    record = make_call(
        response_json=text, input_tokens=tokens, cost_usd=cost, finish_reasons=finish, started_at_us=started
    )
    (row,) = record_batch([call_row(record)], CALLS).to_pylist()
    assert row.pop("started_at") == datetime.fromtimestamp(0, UTC) + (
        datetime.fromtimestamp(started // 10**6, UTC).replace(microsecond=started % 10**6)
        - datetime.fromtimestamp(0, UTC)
    )
    assert tuple(row.pop("finish_reasons")) == finish
    assert row.pop("outcome") == "ok"
    for name, value in row.items():
        assert value == getattr(record, name), name


def test_the_calls_table_has_every_field_of_a_call_but_its_text() -> None:
    """A field that is added to the record has to be added here; the text stays in the ledger."""
    fields = set(CallRecord.__dataclass_fields__) - {"text", "type", "kind", "started_at_us"}
    assert set(CALLS.names) == fields | {"outcome", "started_at"}


def test_every_audit_row_fits_its_table() -> None:
    """The mapping functions give exactly the columns of their schemas, in order."""
    outcome = RowOutcome("id-1", "reviews.csv", 7, Outcome.ENRICHED, "r-0", "b1-000000", RUN)
    rows = {
        "calls": [call_row(make_call()), call_row(make_failed_call(1, FailureKind.TIMEOUT, cost_usd=None))],
        "batches": [batch_row(make_opened(), 3, make_ended()), batch_row(make_opened(), 3, None)],
        "batch_members": member_rows(make_opened()),
        "rows": [row_row(outcome, RUN)],
    }
    for table, some in rows.items():
        assert list(some[0]) == AUDIT_SCHEMAS[table].names
        assert record_batch(some, AUDIT_SCHEMAS[table]).num_rows == len(some)
    ended, interrupted = rows["batches"]
    assert (ended["status"], ended["succeeded_count"], ended["pending_count"]) == ("completed", 3, 0)
    assert (interrupted["status"], interrupted["ended_at"], interrupted["pending_count"]) == ("interrupted", None, 3)
    assert rows["rows"][0]["source"] == "reviews.csv:7"
    assert [member["ordinal"] for member in rows["batch_members"]] == [0, 1, 2]


def test_of_several_ends_of_a_batch_the_last_counts(tmp_path: Path) -> None:
    """A bundle that was tried again ends its batch twice."""
    early, late = make_ended(succeeded=1), make_ended(succeeded=2)
    object.__setattr__(early, "ended_at_us", 1)
    for number, ends in enumerate(([early, late], [late, early])):
        with ParquetWriter(str(tmp_path / f"members-{number}"), AUDIT_SCHEMAS["batch_members"]) as members:
            story = Story(members)
            for record in (make_opened(), *ends):
                story.take(record)
        assert [row["succeeded_count"] for row in story.batch_rows()] == [2]


def test_every_audit_column_says_what_it_is() -> None:
    """Descriptions travel with the files."""
    assert set(AUDIT_SCHEMAS) == {"runs", "batches", "batch_members", "calls", "rows"}
    for table in AUDIT_SCHEMAS.values():
        assert len(table)
        assert all(field.metadata[b"description"] for field in table)


def test_enriched_rows_have_the_inputs_columns_and_the_answers() -> None:
    """Answer types map to Arrow, structs and lists included; the input's fields stay as they are."""
    schema = {
        "type": "object",
        "properties": {
            "label": {"enum": ["a", "b"]},
            "score": {"type": "number"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "parts": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
            "sure": {"type": "boolean"},
            "free": {},
        },
    }
    columns = AnswerColumns("out", schema, PromptTemplate(None, "{{ row.id }}"), flatten=True, keep=True)
    source = pa.schema([pa.field("id", pa.int32()), pa.field("when", pa.timestamp("ns"))])
    found = enriched_schema(source, columns)
    assert found.names == ["id", "when", *columns.names()]
    assert found.field("id").type == pa.int32()
    assert found.field("out").type == pa.struct(
        [
            ("label", pa.string()),
            ("score", pa.float64()),
            ("tags", pa.list_(pa.string())),
            ("parts", pa.list_(pa.struct([("n", pa.int64())]))),
            ("sure", pa.bool_()),
            ("free", pa.string()),
        ]
    )
    assert found.field("out_score").type == pa.float64()
    assert found.field("out_usage").type.field("cost_usd").type == MONEY
    assert found.field("out_error").type == pa.string()
    assert all(field.nullable for field in found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(Decimal("0.00000012"), "0.00000012", id="money without an exponent"),
        pytest.param(b"\xff", "/w==", id="bytes"),
        pytest.param(Path("a/b"), "a/b", id="anything"),
    ],
)
def test_json_default_gives_text(value: object, text: str) -> None:
    """What JSON has no word for is written as text, never refused."""
    assert json_default(value) == text


def test_columns_that_rows_are_looked_up_by_have_bloom_filters(tmp_path: Path) -> None:
    """The request ids that a row group can't hold are told by its filter, also in a column of the answer's own."""
    path = str(tmp_path / "part.parquet")
    with ParquetWriter(path, pa.schema([("label_request_id", pa.string()), ("provider_request_id", pa.string())])) as w:
        w.extend({"label_request_id": f"q{n}", "provider_request_id": f"p{n}"} for n in range(100))
    with duckdb.connect() as database:
        probe = "select bool_or(bloom_filter_excludes) from parquet_bloom_probe(?, ?, ?)"
        found = [
            database.execute(probe, [path, column, value]).fetchall()[0][0]
            for column, value in (
                ("label_request_id", "q7"),
                ("label_request_id", "other"),
                ("provider_request_id", "other"),
            )
        ]
    assert found == [False, True, False]
