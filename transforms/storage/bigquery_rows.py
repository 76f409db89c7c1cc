"""Single values between BigQuery and Arrow: rows as insertAll wants them, and rows as files would give them."""

import base64
import datetime as dt
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from transforms.rules.values import json_text
from transforms.storage.bigquery_schema import Column, type_name

Converter = Callable[[Any], Any]


def json_row(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Return a row in the JSON that BigQuery takes in a request: numbers of any length as text, bytes as base64."""
    return {field.name: _json_value(row[field.name], field.type) for field in schema}


def _json_value(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return [] if pa.types.is_list(kind) else None
    if isinstance(value, dict):
        return {member.name: _json_value(value.get(member.name), member.type) for member in kind}
    if isinstance(value, list):
        return [_json_value(item, kind.value_type) for item in value]
    return _json_scalar(value)


def _json_scalar(value: Any) -> Any:
    text: Any
    match value:
        case bool() | str():
            text = value
        case float():  # JSON has no NaN and no infinity, and BigQuery takes their names
            text = value if math.isfinite(value) else str(value)
        case int():
            text = str(value)
        case Decimal():
            text = format(value, "f")
        case bytes():
            text = base64.b64encode(value).decode("ascii")
        case dt.timedelta():
            text = str(value // dt.timedelta(microseconds=1))
        case dt.datetime(tzinfo=dt.tzinfo()):
            text = value.astimezone(dt.UTC).isoformat()
        case _:
            text = value.isoformat()
    return text


def converters(columns: Sequence[Column]) -> list[Converter | None]:
    """Return, for each column, what makes the library's values those that a Parquet file would give; None: they are."""
    return [_converter(column) for column in columns]


def _converter(column: Column) -> Converter | None:
    name = type_name(column)
    convert = _CONVERTERS.get(name)
    if name == "RECORD":
        convert = _record_converter(column["fields"])
    if convert is None or column.get("mode") != "REPEATED":
        return convert
    each = convert
    return lambda values: None if values is None else [each(value) for value in values]


def _record_converter(members: Sequence[Column]) -> Converter | None:
    inner = {member["name"]: convert for member in members if (convert := _converter(member)) is not None}
    if not inner:
        return None
    return lambda record: (
        None
        if record is None
        else {name: inner[name](value) if name in inner else value for name, value in record.items()}
    )


def _as_json(value: Any) -> str | None:
    return None if value is None else json_text(value)


def _as_range(value: Any) -> str | None:
    return None if value is None else f"[{_bound(value.start)}, {_bound(value.end)})"


def _bound(value: Any) -> str:
    return "UNBOUNDED" if value is None else value.isoformat()


def _as_interval(value: Any) -> str | None:
    """Write an interval as BigQuery does: years-months days hours:minutes:seconds."""
    if value is None:
        return None
    value = value.normalized()
    micros = ((value.hours * 60 + value.minutes) * 60 + value.seconds) * 1_000_000 + value.microseconds
    whole, rest = divmod(abs(micros), 1_000_000)
    months = value.years * 12 + value.months
    date = f"{'-' if months < 0 else ''}{abs(months) // 12}-{abs(months) % 12} {value.days}"
    clock = f"{whole // 3600}:{whole // 60 % 60}:{whole % 60}" + (f".{rest:06d}" if rest else "")
    return f"{date} {'-' if micros < 0 else ''}{clock}"


_CONVERTERS: dict[str, Converter] = {"JSON": _as_json, "INTERVAL": _as_interval, "RANGE": _as_range}
