"""What BigQuery is told, without BigQuery: columns, names, statements, values, and what a job may say of it."""

import datetime as dt
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pytest

from transforms.records.errors import ConfigError, InputError
from transforms.records.failure import FailureKind
from transforms.rules.answer_columns import AnswerColumns
from transforms.rules.identity import content_sha256
from transforms.storage.arrow_types import AUDIT_SCHEMAS, MONEY
from transforms.storage.bigquery_rows import converters, json_row
from transforms.storage.bigquery_schema import (
    DEAD_LETTERS,
    arrow_schema,
    audit_spec,
    columns_of,
    enriched_spec,
    missing_columns,
)
from transforms.storage.bigquery_sql import count_sql, job_id, publish_script, staging_name

_RUN = "20261121T053412-3f9a2c"
_DAY = dt.date(2026, 11, 21)
_MIDNIGHT = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - a time without a zone


def _column(kind: pa.DataType) -> dict:
    (column,) = columns_of([pa.field("c", kind)])
    return {key: value for key, value in column.items() if key != "name"}


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(pa.string(), "STRING", id="text"),
        pytest.param(pa.uint64(), "NUMERIC", id="beyond integers"),
        pytest.param(pa.int32(), "INTEGER", id="integer"),
        pytest.param(pa.float32(), "FLOAT", id="float"),
        pytest.param(pa.bool_(), "BOOLEAN", id="boolean"),
        pytest.param(pa.date32(), "DATE", id="date"),
        pytest.param(pa.time64("us"), "TIME", id="time"),
        pytest.param(pa.timestamp("us"), "DATETIME", id="no zone"),
        pytest.param(pa.timestamp("us", tz="Europe/Rome"), "TIMESTAMP", id="zone"),
        pytest.param(pa.binary(), "BYTES", id="bytes"),
        pytest.param(pa.duration("us"), "INTEGER", id="duration"),
        pytest.param(pa.decimal128(38, 9), "NUMERIC", id="numeric"),
        pytest.param(pa.decimal128(38, 8), "BIGNUMERIC", id="30 whole digits"),
        pytest.param(MONEY, "BIGNUMERIC", id="money"),
    ],
)
def test_a_type_becomes_bigquerys(kind, name):
    """Money keeps all its 18 places, and a time without a zone is no moment."""
    assert _column(kind) == {"type": name, "mode": "NULLABLE"}


def test_lists_and_structs_become_repeated_and_records():
    """At any depth."""
    kind = pa.list_(pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]))
    inner = [{"name": "a", "type": "INTEGER", "mode": "NULLABLE"}, {"name": "b", "type": "STRING", "mode": "REPEATED"}]
    assert _column(kind) == {"type": "RECORD", "mode": "REPEATED", "fields": inner}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param(
            [pa.field("review text", pa.string())], 'the column "review text" can\'t have this name', id="space"
        ),
        pytest.param([pa.field("1st", pa.string())], '"1st" can\'t have this name', id="digit"),
        pytest.param([pa.field("_table_x", pa.string())], '"_table_x" can\'t have this name', id="reserved"),
        pytest.param([pa.field("s", pa.struct([("a b", pa.int8())]))], '"s.a b" can\'t have this name', id="member"),
        pytest.param([pa.field("m", pa.list_(pa.list_(pa.int8())))], 'no type for the column "m"', id="lists of lists"),
        pytest.param([pa.field("m", pa.null())], 'no type for the column "m"', id="only nulls"),
        pytest.param([pa.field("m", pa.map_(pa.string(), pa.int8()))], 'no type for the column "m"', id="map"),
        pytest.param(
            [pa.field(n, pa.int8()) for n in ("Id", "id")], 'takes the columns "Id" and "id" for one', id="case"
        ),
        pytest.param([pa.field("d", pa.int8())] * 2, 'a column "d", which Rowbeam adds', id="twice"),
    ],
)
def test_what_bigquery_can_not_hold_is_one_line(fields, words):
    """It names the column and the cure."""
    with pytest.raises(ConfigError, match=words):
        columns_of(fields)


@pytest.mark.parametrize("name", [*AUDIT_SCHEMAS, "dead_letters"])
def test_each_table_has_the_days_and_runs_of_its_rows(name):
    """The day comes first; batch_members, whose files don't say the run, gets a column for it; descriptions go along."""
    spec = audit_spec(name)
    names = [column["name"] for column in spec.columns]
    assert names[0] == "run_date"
    assert names.count("run_id") == 1
    assert spec.clustered in names
    assert all("description" in column for column in spec.columns if column["name"] != "source")
    assert all(column["mode"] != "REQUIRED" for column in spec.columns)


def test_columns_of_enriched_rows_begin_with_the_answers_name():
    """So that a table of enriched rows can be a job's input without clashing."""
    spec = enriched_spec(pa.schema([("id", pa.string()), ("mood_row_id", pa.string())]), "mood")
    assert [column["name"] for column in spec.columns] == ["mood_run_date", "mood_run_id", "id", "mood_row_id"]
    assert (spec.upsert, spec.clustered) == ("mood_row_id", "mood_row_id")


def test_a_table_that_is_there_is_completed():
    """New columns come last, inside records too; types by their other names are the same; nothing missing is None."""
    wanted = columns_of([pa.field("a", pa.int64()), pa.field("s", pa.struct([("x", pa.bool_()), ("y", pa.float64())]))])
    found = [{"name": "A", "type": "INT64"}, {"name": "s", "type": "STRUCT", "fields": [{"name": "x", "type": "BOOL"}]}]
    merged = missing_columns([*found, {"name": "own", "type": "GEOGRAPHY"}], wanted, "t")
    assert merged is not None
    assert [column["name"] for column in merged] == ["A", "s", "own"]
    assert [column["name"] for column in merged[1]["fields"]] == ["x", "y"]
    assert missing_columns(merged, wanted, "t") is None
    assert [column["name"] for column in missing_columns([], wanted, "t") or []] == ["a", "s"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(
            {"name": "a", "type": "STRING"}, "t has the column a as STRING, and this job writes INTEGER", id="type"
        ),
        pytest.param({"name": "a", "type": "INTEGER", "mode": "REPEATED"}, "a as repeated INTEGER", id="list"),
        pytest.param(
            {"name": "b", "type": "STRING", "mode": "REQUIRED"}, "the column b is REQUIRED", id="wanted value"
        ),
        pytest.param(
            {"name": "s", "type": "RECORD", "fields": [{"name": "x", "type": "DATE"}]},
            "the column s.x as DATE",
            id="member",
        ),
    ],
)
def test_a_table_that_can_not_take_the_rows_is_one_line(found, words):
    """It names the table, the column, both types and the cure."""
    wanted = columns_of([pa.field("a", pa.int64()), pa.field("s", pa.struct([("x", pa.int64())]))])
    with pytest.raises(ConfigError, match=words):
        missing_columns([found], wanted, "t")


def test_columns_that_are_read_are_those_a_parquet_export_has():
    """JSON, intervals and ranges are text; what is not known is refused."""
    columns = [
        {"name": "n", "type": "INT64"},
        {"name": "j", "type": "JSON"},
        {"name": "m", "type": "BIGNUMERIC"},
        {"name": "l", "type": "TIMESTAMP", "mode": "REPEATED"},
        {"name": "s", "type": "RECORD", "fields": [{"name": "d", "type": "DATETIME"}]},
    ]
    assert arrow_schema(columns, "t") == pa.schema(
        [
            ("n", pa.int64()),
            ("j", pa.string()),
            ("m", pa.decimal256(76, 38)),
            ("l", pa.list_(pa.timestamp("us", tz="UTC"))),
            ("s", pa.struct([("d", pa.timestamp("us"))])),
        ]
    )
    with pytest.raises(InputError, match='t: the column "v" is a VECTOR'):
        arrow_schema([{"name": "v", "type": "VECTOR"}], "t")


@pytest.mark.parametrize("schema", [*AUDIT_SCHEMAS.values(), DEAD_LETTERS], ids=[*AUDIT_SCHEMAS, "dead_letters"])
def test_what_is_written_can_be_read_back(schema):
    """Every table's columns come back with Arrow types of the same kind."""
    back = arrow_schema(columns_of(schema), "t")
    assert back.names == schema.names
    assert columns_of(back) == [
        {k: v for k, v in column.items() if k != "description"} for column in columns_of(schema)
    ]


def test_enriched_rows_say_which_row_they_are_where_bigquery_is_to_know():
    """The column comes last, also in kept rows that were never asked about; without BigQuery there is none."""
    facts = SimpleNamespace(template_sha256="t", template_source="s", lookup_sha256=None, lookup_source=None)
    columns = AnswerColumns("mood", None, facts, keep=True, row_id=True)
    assert columns.names()[-1] == "mood_row_id"
    row = columns.failed(FailureKind.TEMPLATE_ERROR, "no text", "r1")
    assert (tuple(row), row["mood_row_id"]) == (columns.names(), "r1")
    plain = AnswerColumns("mood", None, facts, keep=True)
    assert "mood_row_id" not in {*plain.names(), *plain.failed(FailureKind.TEMPLATE_ERROR, "no text", "r1")}


# -- names and statements ----------------------------------------------------------------------------------------------


def test_job_ids_are_the_same_at_each_try_and_no_others():
    """By run, target, and what the job does; only characters that BigQuery allows."""
    first = job_id(_RUN, "p.d.reviews_", "calls", 5, 0)
    assert first == job_id(_RUN, "p.d.reviews_", "calls", 5, 0)
    others = {
        job_id(_RUN, "p.d.other_", "calls", 5, 0),
        job_id(_RUN, "p.d.reviews_", "rows", 5, 0),
        job_id("x", "p.d.reviews_", "calls", 5, 0),
    }
    assert len(others | {first}) == 4
    assert first.startswith("rowbeam_20261121T053412_3f9a2c_")
    assert first.replace("_", "").isalnum()
    assert staging_name("reviews_", _RUN, "calls") == "reviews_staging_20261121T053412_3f9a2c_calls"


def test_a_run_is_published_in_one_transaction():
    """Audit rows of this very run go before they come; enriched rows are replaced by id; what files lack is told."""
    enriched = enriched_spec(pa.schema([("id", pa.int64()), ("mood_row_id", pa.string())]), "mood")
    moves = [(enriched, "p.d.enriched", "p.d.s1"), (audit_spec("batch_members"), "p.d.batch_members", "p.d.s2")]
    members = "`batch_id`, `ordinal`, `custom_id`, `request_id`"
    assert publish_script(moves, _RUN, _DAY, streamed=False) == (
        "BEGIN TRANSACTION;\n"  # noqa: S608
        "DELETE FROM `p.d.enriched` WHERE `mood_row_id` IN (SELECT `mood_row_id` FROM `p.d.s1`);\n"
        "INSERT INTO `p.d.enriched` (`mood_run_date`, `mood_run_id`, `id`, `mood_row_id`) "
        f"SELECT DATE '2026-11-21', '{_RUN}', `id`, `mood_row_id` FROM `p.d.s1`;\n"
        f"DELETE FROM `p.d.batch_members` WHERE `run_date` = DATE '2026-11-21' AND `run_id` = '{_RUN}';\n"
        f"INSERT INTO `p.d.batch_members` (`run_date`, `run_id`, {members}) "
        f"SELECT DATE '2026-11-21', '{_RUN}', {members} FROM `p.d.s2`;\n"
        "COMMIT TRANSACTION;"
    )


def test_rows_that_were_streamed_twice_are_taken_once():
    """By their number."""
    script = publish_script([(audit_spec("rows"), "p.d.rows", "p.d.s")], _RUN, _DAY, streamed=True)
    assert "FROM `p.d.s` WHERE TRUE QUALIFY ROW_NUMBER() OVER (PARTITION BY `rowbeam_ordinal`) = 1;" in script
    assert count_sql("p.d.s") == "SELECT COUNT(DISTINCT `rowbeam_ordinal`) AS n FROM `p.d.s`"


# -- values ------------------------------------------------------------------------------------------------------------


def test_a_row_in_a_request_keeps_its_digits():
    """Integers and money go as text, bytes as base64, NaN by its name, moments in UTC, missing lists as empty ones."""
    zone = dt.timezone(dt.timedelta(hours=2))
    row = {
        "i": 2**62, "m": Decimal("0.000000000000000001"), "b": b"\x00", "f": float("nan"), "g": 1.5, "o": True, "t": "x",
        "z": dt.datetime(2026, 1, 1, 1, tzinfo=zone), "n": _MIDNIGHT, "d": dt.date(2026, 1, 1),
        "l": None, "s": {"a": 1}, "e": None, "u": dt.timedelta(seconds=1), "k": [1, 2],
    }  # fmt: skip
    kinds = {
        "i": pa.int64(), "m": MONEY, "b": pa.binary(), "f": pa.float64(), "g": pa.float64(), "o": pa.bool_(), "t": pa.string(),
        "z": pa.timestamp("us", tz="UTC"), "n": pa.timestamp("us"), "d": pa.date32(), "l": pa.list_(pa.string()),
        "s": pa.struct([("a", pa.int64()), ("b", pa.string())]), "e": pa.string(), "u": pa.duration("us"), "k": pa.list_(pa.int64()),
    }  # fmt: skip
    assert json_row(row, pa.schema(list(kinds.items()))) == {
        "i": "4611686018427387904", "m": "0.000000000000000001", "b": "AA==", "f": "nan", "g": 1.5, "o": True, "t": "x",
        "z": "2025-12-31T23:00:00+00:00", "n": "2026-01-01T00:00:00", "d": "2026-01-01", "l": [],
        "s": {"a": "1", "b": None}, "e": None, "u": "1000000", "k": ["1", "2"],
    }  # fmt: skip


def test_values_of_the_library_become_those_of_a_file():
    """Parsed JSON is text again, also in lists and records; plain values are left alone."""
    columns = [
        {"name": "j", "type": "JSON"},
        {"name": "l", "type": "JSON", "mode": "REPEATED"},
        {"name": "s", "type": "RECORD", "fields": [{"name": "j", "type": "JSON"}, {"name": "n", "type": "INTEGER"}]},
        {"name": "r", "type": "RANGE"},
        {"name": "n", "type": "INTEGER"},
        {"name": "p", "type": "RECORD", "fields": [{"name": "n", "type": "INTEGER"}]},
    ]
    as_json, as_list, as_record, as_range, *plain = converters(columns)
    assert as_json is not None and as_list is not None and as_record is not None and as_range is not None  # noqa: PT018
    assert (as_json({"a": 1}), as_json(None)) == ('{"a":1}', None)
    assert as_list([{"a": 1}, None]) == ['{"a":1}', None]
    assert (as_record({"j": [1], "n": 2}), as_record(None)) == ({"j": "[1]", "n": 2}, None)
    assert as_range(SimpleNamespace(start=_DAY, end=None)) == "[2026-11-21, UNBOUNDED)"
    assert plain == [None, None]


def test_a_row_is_the_same_row_from_a_file_and_from_bigquery():
    """A job without a key moved from a Parquet export to the table asks nothing anew."""
    read = converters([{"name": "j", "type": "JSON"}])[0]
    assert read is not None
    assert content_sha256({"j": read({"a": [1]}), "n": 1}) == content_sha256({"n": 1, "j": '{"a":[1]}'})
