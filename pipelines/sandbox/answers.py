"""JSON Schema in, a value that satisfies it out; pure and deterministic.

Understood: type (one or several), enum, const, properties, required, additionalProperties, minProperties, items,
prefixItems, minItems, maxItems, uniqueItems, minLength, maxLength, common formats, minimum, maximum, their exclusive
forms, multipleOf, anyOf, oneOf, allOf, $ref into the same document, boolean schemas.
Not understood, and therefore perhaps not satisfied: pattern, not, if/then/else, contains, patternProperties.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.sandbox.draws import Draws

Schema = Mapping[str, Any] | bool

_WORDS = (
    "amber",
    "basin",
    "cedar",
    "delta",
    "ember",
    "field",
    "grove",
    "haven",
    "inlet",
    "jetty",
    "knoll",
    "ledge",
    "maple",
    "north",
    "ocean",
    "pearl",
    "quiet",
    "river",
    "stone",
    "thorn",
    "upper",
    "valley",
    "water",
    "yarrow",
)
_SUBJECTS = ("The text", "This row", "The record", "The entry", "The passage")
_VERBS = ("describes", "mentions", "concerns", "reports", "names")
_FORMATS = {
    "date": "2026-03-14",
    "date-time": "2026-03-14T09:26:53Z",
    "time": "09:26:53Z",
    "duration": "P1DT2H",
    "email": "row@example.org",
    "hostname": "data.example.org",
    "ipv4": "192.0.2.7",
    "ipv6": "2001:db8::7",
    "uri": "https://example.org/row",
    "uuid": "5f0c7a52-3c1d-4c37-9d3e-0b7a1f2c4d6e",
}
#: Keywords that tell the type where `type` is missing.
_TELLING = (
    (frozenset({"properties", "required", "additionalProperties"}), "object"),
    (frozenset({"items", "prefixItems"}), "array"),
    (frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}), "number"),
)
#: Below this depth only what must be there is made, so that recursive schemas end.
_DEEP = 5
_TOO_DEEP = 60
#: The longest string and the longest array that are made.
_LARGEST = 100_000


def sentence(draws: Draws) -> str:
    """Return a short sentence (under 60 characters)."""
    subject, verb = _SUBJECTS[draws.below(len(_SUBJECTS))], _VERBS[draws.below(len(_VERBS))]
    return f"{subject} {verb} {_word(draws)} and {_word(draws)}."


def answer_value(schema: Schema, draws: Draws) -> Any:
    """Return a JSON value valid for the schema.

    Args:
        schema: the JSON Schema document as the request carried it; `$ref` is resolved inside it.
        draws: decides everything the schema leaves open.

    Raises:
        ValueError: a $ref that leads nowhere, or a schema that only an endless or huge value could satisfy.
    """
    try:
        return _Maker(schema, draws).make(schema, 0)
    except (ArithmeticError, RecursionError) as error:
        raise ValueError(f"no value found: {error}") from error


def _word(draws: Draws) -> str:
    return _WORDS[draws.below(len(_WORDS))]


class _Maker:
    """One answer being made: the document for its references, and the draws."""

    __slots__ = ("draws", "root")

    def __init__(self, root: Schema, draws: Draws) -> None:
        self.root = root
        self.draws = draws

    def make(self, schema: Schema, depth: int) -> Any:
        """Return a value for one (sub)schema."""
        if depth > _TOO_DEEP:
            raise ValueError("the schema can only be satisfied by an endless value")
        if isinstance(schema, bool):
            return _word(self.draws)
        schema = self._flatten(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self.draws.below(len(schema["enum"]))]
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
            return self.make(merge(rest, self._choose(branches, depth)), depth + 1)
        return self._typed(self._type_of(schema, depth), schema, depth)

    def _flatten(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow $ref and fold allOf in, so that one mapping says it all."""
        for _ in range(_TOO_DEEP):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = merge(rest, resolve(self.root, schema["$ref"]))
            elif "allOf" in schema:
                parts = schema["allOf"]
                schema = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    schema = merge(schema, self._flatten(part) if isinstance(part, dict) else part)
            else:
                return schema
        raise ValueError("the schema's references lead back to themselves")

    def _choose(self, branches: Sequence[Schema], depth: int) -> Schema:
        """Pick a branch; deep down the one that ends soonest."""
        if depth <= _DEEP:
            return branches[self.draws.below(len(branches))]
        return min(branches, key=_weight)

    def _type_of(self, schema: Mapping[str, Any], depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, str):
            return kind
        if isinstance(kind, Sequence) and kind:
            if depth > _DEEP and "null" in kind:
                return "null"
            return str(kind[self.draws.below(len(kind))])
        return next((name for keys, name in _TELLING if keys & schema.keys()), "string")

    def _typed(self, kind: str, schema: Mapping[str, Any], depth: int) -> Any:
        match kind:
            case "object":
                value: Any = self._object(schema, depth)
            case "array":
                value = self._array(schema, depth)
            case "string":
                value = self._string(schema)
            case "integer":
                value = self._integer(schema)
            case "number":
                value = self._number(schema)
            case "boolean":
                value = self.draws.below(2) == 1
            case _:
                value = None
        return value

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        names = required if depth > _DEEP else (*properties, *(name for name in required if name not in properties))
        extra = schema.get("additionalProperties", True)
        value = {name: self.make(properties.get(name, extra), depth + 1) for name in names}
        is_map = not properties and isinstance(extra, dict)
        least = max(_size(schema, "minProperties", 0), 1 if is_map and depth <= _DEEP else 0)
        while len(value) < least:
            value[f"{_word(self.draws)}_{len(value)}"] = self.make(extra, depth + 1)
        return value

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        prefix = schema.get("prefixItems", ())
        item = schema.get("items", True)
        least = max(_size(schema, "minItems", 0), len(prefix))
        most = min(_size(schema, "maxItems", least + 3), least + 3) if item is not False else len(prefix)
        count = least if depth > _DEEP else self.draws.between(max(least, min(1, most)), max(least, most))
        values = [self.make(part, depth + 1) for part in prefix[:count]]
        tries = 0
        while len(values) < count:
            value = self.make(item, depth + 1)
            tries += 1
            if schema.get("uniqueItems") and value in values:
                if tries > 50 * count:
                    break
                continue
            values.append(value)
        return values

    def _string(self, schema: Mapping[str, Any]) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = f"{_word(self.draws)} {_word(self.draws)}"
        least, most = _size(schema, "minLength", 0), _size(schema, "maxLength", _LARGEST)
        while len(text) < least:
            text += f" {_word(self.draws)}"
        return text[:most]

    def _integer(self, schema: Mapping[str, Any]) -> int:
        low, high = _bounds(schema)
        step = schema.get("multipleOf") or 1
        step = int(step) if float(step).is_integer() else 1
        first = math.floor(low) + 1 if _is_open(schema, "exclusiveMinimum", low) else math.ceil(low)
        last = math.ceil(high) - 1 if _is_open(schema, "exclusiveMaximum", high) else math.floor(high)
        first, last = -(-first // step), last // step
        return self.draws.between(first, max(first, last)) * step

    def _number(self, schema: Mapping[str, Any]) -> float | int:
        if schema.get("multipleOf"):
            step = schema["multipleOf"]
            low, high = _bounds(schema)
            first, last = math.floor(low / step) + 1, max(math.ceil(high / step) - 1, math.floor(low / step) + 1)
            return float(self.draws.between(first, last) * step)
        low, high = _bounds(schema)
        # The middle 98 % keeps clear of exclusive ends; two decimals read well where the range has room for them.
        value = low + (high - low) * (0.01 + 0.98 * self.draws.unit())
        short = round(value, 2)
        return short if low < short < high else value


def _size(schema: Mapping[str, Any], key: str, default: int) -> int:
    """Return a length or count of the schema; JSON Schema lets whole floats stand for integers."""
    size = int(schema.get(key, default))
    if size > _LARGEST and key.startswith("min"):
        raise ValueError(f"{key} {size} is more than a rehearsal makes ({_LARGEST})")
    return size


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    """Return the range a number may take, 100 wide where one side is open."""
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    if lows:
        low = max(lows)
        return low, min(highs) if highs else low + 100
    return (min(0, min(highs) - 100), min(highs)) if highs else (0, 100)


def _is_open(schema: Mapping[str, Any], key: str, bound: float) -> bool:
    return schema.get(key) == bound


def _weight(schema: Schema) -> int:
    """Rank branches by how soon they end: null, then scalars, then arrays, then objects and references."""
    if isinstance(schema, bool):
        return 1
    if "const" in schema or "enum" in schema:
        return 1
    return {"null": 0, "object": 4, "array": 3}.get(str(schema.get("type")), 5 if "type" not in schema else 1)


def resolve(root: Schema, reference: str) -> Schema:
    """Return the part of the document a local $ref (`#`, `#/$defs/name`) points at.

    Raises:
        ValueError: the reference leaves the document or leads nowhere.
    """
    if not reference.startswith("#"):
        raise ValueError(f"$ref {reference!r} points outside the schema")
    here: Any = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(here, dict) or name not in here:
            raise ValueError(f"$ref {reference!r} points at nothing")
        here = here[name]
    return here


def merge(left: Mapping[str, Any], right: Schema) -> dict[str, Any]:
    """Return a schema that asks for what both ask for, as far as a plain union of keywords can say it."""
    if isinstance(right, bool):
        return dict(left)
    merged = {**right, **left}
    if "properties" in left and "properties" in right:
        merged["properties"] = {**right["properties"], **left["properties"]}
    if "required" in left and "required" in right:
        merged["required"] = list(dict.fromkeys((*left["required"], *right["required"])))
    for key, pick in (("minimum", max), ("minLength", max), ("minItems", max), ("maximum", min), ("maxLength", min)):
        if key in left and key in right:
            merged[key] = pick(left[key], right[key])
    return merged
