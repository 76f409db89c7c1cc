"""Typing of single values: from CSV text, and from JSON values.

A converter takes one value and returns it typed, or raises ValueError with what is wrong and what would do. No
value is changed in silence: a number that would lose digits is refused. `wrong_type` makes the sentence for people.
"""

import datetime as dt
import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from transforms.records.errors import RowError
from transforms.records.failure import FailureKind
from transforms.records.settings import ColumnType
from transforms.rules.shapes import ListShape, StructShape

#: Digits of the arrow type decimal128(38, 9), after the point and in all.
DECIMAL_SCALE = 9
DECIMAL_PRECISION = 38

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SHOWN_CHARS = 60

Converter = Callable[[Any], Any]


def text_converter(column_type: ColumnType) -> Callable[[str], Any] | None:
    """Give the function that types a CSV field; None for "string", where text stays as it is ("" too).

    For every other type "" becomes None. Spaces around a value are ignored. Timestamps are ISO 8601; one without
    an offset counts as UTC.
    """
    return _TEXT_CONVERTERS.get(column_type)


def json_converter(shape: ColumnType | ListShape | StructShape, *, declared: bool) -> Converter:
    """Give the function that types a JSON value that is not null.

    Args:
        shape: the column's type.
        declared: True where the job names the type (input.types): numbers then become text and text becomes
            numbers as asked. An inferred type takes only what it is.
    """
    if isinstance(shape, ListShape):
        return _list_converter(json_converter(shape.item or "string", declared=False))
    if isinstance(shape, StructShape):
        return _struct_converter(
            {name: json_converter(member or "string", declared=False) for name, member in shape.members}
        )
    return (_DECLARED_CONVERTERS if declared else _INFERRED_CONVERTERS)[shape]


def wrong_type(line: int, column: str, value: Any, problem: str) -> RowError:
    """Say that a value does not fit its column, where, and what to do."""
    return RowError(
        FailureKind.WRONG_TYPE,
        f"line {line}, column {column}: {show_value(value)} {problem}; "
        f"correct the value, or declare another type in the job (input.types: {{{column}: string}})",
    )


def show_value(value: Any) -> str:
    """Write a value for an error message, cut to a readable length."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."


def json_text(value: Any) -> str:
    """Write a JSON value as compact JSON text; integers of any length keep their digits."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits
        import json

        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _integer(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        if not text:
            return None
        raise ValueError("is not a whole number (integer)") from None
    if "_" in text:
        raise ValueError("is not a whole number (integer)")
    return _in_64_bits(number)


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        if not text:
            return None
        raise ValueError("is not a number (float)") from None
    if "_" in text or not math.isfinite(number):
        raise ValueError("is not a finite number (float); leave the field empty where there is none")
    return number


def _boolean(text: str) -> bool | None:
    if not text:
        return None
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise ValueError("is not a boolean: true, false, 1, 0, yes, no")
    return value


def _date(text: str) -> dt.date | None:
    if not text:
        return None
    try:
        return dt.date.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("is not a date such as 2024-05-31") from None


def _timestamp(text: str) -> dt.datetime | None:
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise ValueError("is not a timestamp such as 2024-05-31T12:00:00Z") from None


def _decimal(text: str) -> Decimal | None:
    if not text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("is not a decimal number") from None
    if "_" in text or not number.is_finite():
        raise ValueError("is not a decimal number")
    return _in_decimal_range(number)


def _json(text: str) -> str | None:
    if not text:
        return None
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg})") from None
    return text


_TEXT_CONVERTERS: dict[ColumnType, Callable[[str], Any]] = {
    "integer": _integer,
    "float": _float,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "decimal": _decimal,
    "json": _json,
}


def _in_64_bits(number: int) -> int:
    if _INT64_MIN <= number <= _INT64_MAX:
        return number
    raise ValueError("is beyond 64 bits (integer)")


def _in_decimal_range(number: Decimal) -> Decimal:
    exponent = number.normalize().as_tuple().exponent if number else 0
    if not isinstance(exponent, int) or -exponent > DECIMAL_SCALE:
        raise ValueError(f"has more than {DECIMAL_SCALE} digits after the point (decimal)")
    if number.adjusted() >= DECIMAL_PRECISION - DECIMAL_SCALE:
        raise ValueError(f"has more than {DECIMAL_PRECISION - DECIMAL_SCALE} digits before the point (decimal)")
    return number


def _as_float(value: Any) -> float:
    """Widen an integer only where the float is the same number."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value:
        raise ValueError("has more digits than a float holds")
    return number


def _declared_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json_text(value)
    raise ValueError("is a list or an object, not text; declare the column json")


def _declared_integer(value: Any) -> int | None:
    return _integer(value) if isinstance(value, str) else _inferred_integer(value)


def _declared_float(value: Any) -> float | None:
    return _float(value) if isinstance(value, str) else _inferred_float(value)


def _declared_boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _boolean(str(value))
    return _boolean(_text_only(value, "a boolean"))


def _declared_decimal(value: Any) -> Decimal | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _in_decimal_range(Decimal(repr(value)))
    return _decimal(_text_only(value, "a decimal number"))


def _text_only(value: Any, wanted: str) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"is not text that holds {wanted}")


def _inferred_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("is not text (string), as the column is elsewhere")


def _inferred_integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return _in_64_bits(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return _in_64_bits(value)
    raise ValueError("is not a whole number (integer)")


def _inferred_float(value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return _as_float(value)
    raise ValueError("is not a number (float)")


def _inferred_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("is not true or false (boolean)")


_DECLARED_CONVERTERS: dict[ColumnType, Converter] = {
    "string": _declared_string,
    "integer": _declared_integer,
    "float": _declared_float,
    "boolean": _declared_boolean,
    "date": lambda value: _date(_text_only(value, "a date")),
    "timestamp": lambda value: _timestamp(_text_only(value, "a timestamp")),
    "decimal": _declared_decimal,
    "json": json_text,
}
_INFERRED_CONVERTERS: dict[ColumnType, Converter] = {
    **_DECLARED_CONVERTERS,
    "string": _inferred_string,
    "integer": _inferred_integer,
    "float": _inferred_float,
    "boolean": _inferred_boolean,
}


def _list_converter(item: Converter) -> Converter:
    def convert(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("is not a list, as the column is elsewhere; declare it json")  # noqa: TRY004 - one kind
        return [None if member is None else item(member) for member in value]

    return convert


def _struct_converter(members: dict[str, Converter]) -> Converter:
    def convert(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError("is not an object, as the column is elsewhere; declare it json")  # noqa: TRY004
        unknown = [name for name in value if name not in members]
        if unknown:
            raise ValueError(f'has the member "{unknown[0]}" that the first rows have not; declare the column json')
        return {name: None if member is None else members[name](member) for name, member in value.items()}

    return convert
