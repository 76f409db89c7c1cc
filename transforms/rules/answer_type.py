"""The column type that a job's answer schema stands for, and values made to fit it.

Storage maps the tree to Arrow; nothing here knows Arrow. What a schema leaves open (several kinds in one place,
free members, recursion, mixed enums) is kept as JSON text, so every valid answer has a place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from transforms.records.errors import AnswerError

Kind = Literal["string", "integer", "number", "boolean", "decimal", "object", "array", "json"]

_SCALARS: dict[str, Kind] = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
_INT64 = range(-(2**63), 2**63)
_OPEN_WORDS = ("patternProperties", "oneOf", "anyOf", "allOf", "not", "if", "prefixItems", "unevaluatedProperties")


@dataclass(frozen=True, slots=True)
class AnswerType:
    """A node of the type tree; every value may also be null.

    Attributes:
        kind: "json" is JSON text; "decimal" only occurs in our own columns (cost_usd).
        fields: (name, type) of an object's members in schema order.
        item: an array's element type.
    """

    kind: Kind
    fields: "tuple[tuple[str, AnswerType], ...]" = ()
    item: "AnswerType | None" = None


JSON = AnswerType("json")


def json_type(schema: dict[str, Any] | None) -> AnswerType:
    """Return the column type of answers that satisfy `schema`; without a schema an answer is a text.

    An object becomes fields when it has `properties` and does not declare `additionalProperties` other than false;
    members beyond the properties are then left out of the column. Null beside one other kind is that kind.
    """
    if schema is None:
        return AnswerType("string")
    return _type_of(schema, schema, frozenset())


def fit(value: Any, kind: AnswerType) -> Any:
    """Return a valid answer's value as its column holds it.

    Members that are missing become None, 3.0 becomes 3 where integers are asked for, integers become floats where
    numbers are, and whatever is kept as JSON becomes compact JSON text.

    Raises:
        AnswerError: an integer beyond 64 bits, which no column can hold.
    """
    if value is None:
        return None
    if kind.kind == "object":
        return {name: fit(value.get(name), member) for name, member in kind.fields}
    if kind.kind == "array":
        item = kind.item or JSON
        return [fit(member, item) for member in value]
    convert = _CONVERTERS.get(kind.kind)
    return value if convert is None else convert(value)


def has_integers(kind: AnswerType) -> bool:
    """Tell whether `fit` can fail on a value of this type."""
    if kind.item is not None:
        return has_integers(kind.item)
    return kind.kind == "integer" or any(has_integers(member) for _, member in kind.fields)


def follow_ref(schema: Any, root: dict[str, Any]) -> Any:
    """Return what a local `$ref` (`#/...`) points at, or None for another one or a broken one."""
    ref = schema.get("$ref")
    if not isinstance(ref, str) or not ref.startswith("#"):
        return None
    target: Any = root
    for token in ref[1:].split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or key not in target:
            return None
        target = target[key]
    return target


def _type_of(schema: Any, root: dict[str, Any], inside: frozenset[str]) -> AnswerType:
    if not isinstance(schema, dict):
        return JSON
    if "$ref" in schema:
        ref = str(schema["$ref"])
        return JSON if ref in inside else _type_of(follow_ref(schema, root), root, inside | {ref})
    if "enum" in schema or "const" in schema:
        return _type_of_members(schema.get("enum", [schema.get("const")]))
    union = _only_branch(schema)
    if union is not None:
        return _type_of(union, root, inside)
    if any(word in schema for word in _OPEN_WORDS):
        return JSON
    return _type_by_name(schema, root, inside)


def _type_by_name(schema: dict[str, Any], root: dict[str, Any], inside: frozenset[str]) -> AnswerType:
    named = schema.get("type")
    names = [name for name in (named if isinstance(named, list) else [named]) if name != "null"]
    if sorted(map(str, names)) == ["integer", "number"]:
        names = ["number"]
    if len(names) != 1:
        return JSON
    if names[0] == "object":
        return _object_type(schema, root, inside)
    if names[0] == "array":
        items = schema.get("items")
        return AnswerType("array", item=_type_of(items, root, inside)) if isinstance(items, dict) else JSON
    return AnswerType(_SCALARS[names[0]]) if names[0] in _SCALARS else JSON


def _object_type(schema: dict[str, Any], root: dict[str, Any], inside: frozenset[str]) -> AnswerType:
    properties = schema.get("properties")
    if not properties or schema.get("additionalProperties", False) is not False:
        return JSON
    return AnswerType("object", tuple((name, _type_of(member, root, inside)) for name, member in properties.items()))


def _only_branch(schema: dict[str, Any]) -> Any:
    """Return the one branch besides null of anyOf, oneOf or allOf, when the schema says nothing else about types."""
    words = [word for word in ("anyOf", "oneOf", "allOf") if word in schema]
    if len(words) != 1 or {"type", "properties", "items"} & schema.keys():
        return None
    branches = [branch for branch in schema[words[0]] if branch != {"type": "null"}]
    return branches[0] if len(branches) == 1 else None


def _type_of_members(members: list[Any]) -> AnswerType:
    kinds = {type(member) for member in members if member is not None}
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) != 1:
        return JSON
    names: dict[type, Kind] = {str: "string", bool: "boolean", int: "integer", float: "number"}
    kind = names.get(kinds.pop())
    return AnswerType(kind) if kind else JSON


def _integer(value: float) -> int:
    whole = int(value)
    if whole not in _INT64:
        raise AnswerError(f"the integer {value} is beyond 64 bits")
    return whole


def _json_text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode("utf-8")


_CONVERTERS: dict[Kind, Callable[[Any], Any]] = {"integer": _integer, "number": float, "json": _json_text}
