"""BigQuery's columns for Arrow's, and back; which tables a job fills, and whether one that is there can take the rows.

Pure: columns are plain dicts in BigQuery's REST form (`name`, `type`, `mode`, `fields`, ...), so that nothing here
needs Google's library. All columns are NULLABLE or REPEATED: a table that holds rows takes no new REQUIRED column.
Payloads (request_json and the like) are STRING and not JSON: `audit.payloads` may make them hashes, and what a
provider sent may be cut or no JSON at all; JSON_VALUE reads a STRING as well.

Source: https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet#type_conversions and
https://cloud.google.com/bigquery/docs/schemas.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from transforms.records.errors import ConfigError, InputError
from transforms.storage.arrow_types import AUDIT_SCHEMAS, TIMESTAMP

Column = dict[str, Any]
"""One column in BigQuery's REST form."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_RESERVED = ("_TABLE_", "_FILE_", "_PARTITION", "_ROW_TIMESTAMP", "__ROOT__", "_COLIDENTIFIER")
_NUMERIC_SCALE = 9
_NUMERIC_WHOLE_DIGITS = 29
_SYNONYMS = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}

DEAD_LETTERS = pa.schema(
    [
        pa.field("row_id", pa.string(), metadata={"description": "The row"}),
        pa.field("run_id", pa.string(), metadata={"description": "The run that gave it up (runs.run_id)"}),
        pa.field("stage", pa.string(), metadata={"description": "Where it failed; bigquery: its own table refused it"}),
        pa.field("kind", pa.string(), metadata={"description": "What failed"}),
        pa.field("reason", pa.string(), metadata={"description": "The same in a sentence"}),
        pa.field("attempts", pa.int64(), metadata={"description": "Calls made for it"}),
        pa.field("retryable", pa.bool_(), metadata={"description": "Another try with the same job may succeed"}),
        pa.field("request_id", pa.string(), metadata={"description": "The request, if there was one"}),
        pa.field("call_id", pa.string(), metadata={"description": "The call that settled it (calls.call_id)"}),
        pa.field("source", pa.struct([("path", pa.string()), ("line", pa.int64())])),
        pa.field("row", pa.string(), metadata={"description": "The original row as JSON, or the text that is no row"}),
    ]
)

_RUN_ID = pa.field("run_id", pa.string(), metadata={"description": "The run (runs.run_id)"})
_CLUSTERED = {
    "runs": "run_id",
    "calls": "request_id",
    "batches": "batch_id",
    "batch_members": "batch_id",
    "rows": "row_id",
    "dead_letters": "row_id",
}


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table that a run's rows go to.

    Attributes:
        name: without the job's prefix.
        staged: the columns as the run's files have them, in their order.
        run_id, run_date: names of the columns that say which run wrote a row.
        clustered: the column it is clustered by.
        upsert: the column whose values a run replaces; None where a run only replaces its own rows.
    """

    name: str
    staged: pa.Schema
    run_id: str
    run_date: str
    clustered: str
    upsert: str | None = None

    @property
    def columns(self) -> list[Column]:
        """The table's columns in BigQuery's form."""
        date = pa.field(self.run_date, pa.date32(), metadata={"description": "Day the run began, in UTC"})
        run_id = [] if self.run_id in self.staged.names else [_RUN_ID.with_name(self.run_id)]
        return columns_of([date, *run_id, *self.staged])


def audit_spec(name: str) -> TableSpec:
    """Return the table for an audit table, or for the dead letters."""
    staged = DEAD_LETTERS if name == "dead_letters" else AUDIT_SCHEMAS[name]
    return TableSpec(name, staged, "run_id", "run_date", _CLUSTERED[name])


def enriched_spec(schema: pa.Schema, field: str) -> TableSpec:
    """Return the table for enriched rows, whose columns of ours all begin with the answer's name.

    So a table of enriched rows can be the input of a job with another answer.

    Args:
        schema: of the enriched files; it has `<field>_row_id`.
        field: the job's answer.field.
    """
    key = row_id_column(field)
    return TableSpec("enriched", schema, f"{field}_run_id", f"{field}_run_date", key, upsert=key)


def row_id_column(field: str) -> str:
    """Return the enriched column that says which row it is."""
    return f"{field}_row_id"


def columns_of(fields: Iterable[pa.Field]) -> list[Column]:
    """Return BigQuery's columns for Arrow's.

    Raises:
        ConfigError: a name or a type that BigQuery has not; it says which column, and what to do.
    """
    columns = [_column(field, field.name) for field in fields]
    seen: dict[str, str] = {}
    for column in columns:
        twin = seen.get(column["name"].lower())
        seen[column["name"].lower()] = column["name"]
        if twin == column["name"]:
            raise ConfigError(
                f'sinks.bigquery: the input has a column "{twin}", which Rowbeam adds in BigQuery; choose another answer.field'
            )
        if twin is not None:
            raise ConfigError(
                f'sinks.bigquery: BigQuery takes the columns "{twin}" and "{column["name"]}" for one, since case does '
                "not count there; rename one in the input"
            )
    return columns


def _column(field: pa.Field, path: str) -> Column:
    if not _NAME.fullmatch(field.name) or field.name.upper().startswith(_RESERVED):
        raise ConfigError(
            f'sinks.bigquery: the column "{path}" can\'t have this name in BigQuery (letters, digits and _, not '
            "beginning with a digit or with a reserved prefix); rename it in the input"
        )
    kind, mode = field.type, "NULLABLE"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, mode = kind.value_type, "REPEATED"
    column: Column = {"name": field.name, "mode": mode} | _type_of(kind, path)
    description = (field.metadata or {}).get(b"description")
    return column if description is None else column | {"description": description.decode()}


def _type_of(kind: pa.DataType, path: str) -> Column:
    if pa.types.is_struct(kind):
        return {"type": "RECORD", "fields": [_column(member, f"{path}.{member.name}") for member in kind]}
    if pa.types.is_decimal(kind):
        return _decimal_type(kind)
    if pa.types.is_timestamp(kind):
        return {"type": "DATETIME" if kind.tz is None else "TIMESTAMP"}
    for is_kind, name in _SCALARS:
        if is_kind(kind):
            return {"type": name}
    raise ConfigError(
        f'sinks.bigquery: BigQuery has no type for the column "{path}" ({kind}); convert it in the input, or leave it out'
    )


_SCALARS = (
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), "STRING"),
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_uint64, "NUMERIC"),  # what a load job takes it for
    (pa.types.is_integer, "INTEGER"),
    (pa.types.is_floating, "FLOAT"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind), "BYTES"),
    # Parquet holds a duration as a number of microseconds, and so does the table.
    (pa.types.is_duration, "INTEGER"),
)


def _decimal_type(kind: pa.DataType) -> Column:
    fits = kind.scale <= _NUMERIC_SCALE and kind.precision - kind.scale <= _NUMERIC_WHOLE_DIGITS
    return {"type": "NUMERIC" if fits else "BIGNUMERIC"}


def missing_columns(found: Sequence[Column], wanted: Sequence[Column], table: str) -> list[Column] | None:
    """Return the columns a table needs: those it has with the new ones after them, or None when it lacks nothing.

    Args:
        found: the table's columns.
        wanted: what we write.
        table: its name, for errors.

    Raises:
        ConfigError: a column is there with another type, or the table wants values that we don't write.
    """
    merged, added = _merged(found, wanted, table, "")
    return merged if added else None


def _merged(found: Sequence[Column], wanted: Sequence[Column], table: str, above: str) -> tuple[list[Column], bool]:
    ours = {column["name"].lower(): column for column in wanted}
    merged, added = [], False
    for column in found:
        ours_here = ours.pop(column["name"].lower(), None)
        name = above + column["name"]
        if column.get("mode") == "REQUIRED":
            raise ConfigError(
                f"sinks.bigquery: {table}: the column {name} is REQUIRED, and Rowbeam may write no value; run ALTER TABLE "
                f"`{table}` ALTER COLUMN {name} DROP NOT NULL, or set another sinks.bigquery.prefix"
            )
        if ours_here is None:
            merged.append(column)
            continue
        _check_type(column, ours_here, table, name)
        if ours_here.get("fields"):
            inner, more = _merged(column.get("fields", []), ours_here["fields"], table, f"{name}.")
            column, added = column | {"fields": inner}, added or more  # noqa: PLW2901 - the same column, completed
        merged.append(column)
    return [*merged, *ours.values()], added or bool(ours)


def _check_type(found: Column, wanted: Column, table: str, name: str) -> None:
    have, want = _shown_type(found), _shown_type(wanted)
    if have != want:
        raise ConfigError(
            f"sinks.bigquery: {table} has the column {name} as {have}, and this job writes {want}; set another "
            "sinks.bigquery.prefix (or answer.field), or drop the table"
        )


def _shown_type(column: Column) -> str:
    kind = str(column["type"]).upper()
    shown = _SYNONYMS.get(kind, kind)
    return f"repeated {shown}" if column.get("mode") == "REPEATED" else shown


# -- reading -----------------------------------------------------------------------------------------------------------

_ARROW = {
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIME": pa.time64("us"),
    "TIMESTAMP": TIMESTAMP,
    "JSON": pa.string(),
    "GEOGRAPHY": pa.string(),
    "INTERVAL": pa.string(),
    "RANGE": pa.string(),
}


def arrow_schema(columns: Sequence[Column], source: str) -> pa.Schema:
    """Return the Arrow columns that hold what a BigQuery table or query gives: what its export to Parquet would have.

    Raises:
        InputError: a column has a type that is not known here.
    """
    return pa.schema([pa.field(column["name"], _arrow_type(column, source)) for column in columns])


def _arrow_type(column: Column, source: str) -> pa.DataType:
    name = type_name(column)
    if name == "RECORD":
        kind = pa.struct([pa.field(member["name"], _arrow_type(member, source)) for member in column["fields"]])
    elif name in ("NUMERIC", "BIGNUMERIC"):
        kind = pa.decimal128(38, _NUMERIC_SCALE) if name == "NUMERIC" else pa.decimal256(76, 38)
    elif name in _ARROW:
        kind = _ARROW[name]
    else:
        raise InputError(f'{source}: the column "{column["name"]}" is a {name}, which can\'t be read; leave it out')
    return pa.list_(kind) if column.get("mode") == "REPEATED" else kind


def type_name(column: Column) -> str:
    """Return a column's type, one name for each."""
    kind = str(column["type"]).upper()
    return _SYNONYMS.get(kind, kind)
