"""How long an answer of a JSON Schema is, before any was seen: in characters of JSON, and in estimated tokens. Pure."""

from collections.abc import Mapping
from statistics import median
from typing import Any

import orjson

from transforms.rules.tokens import estimate_tokens

#: Characters of a string of which the schema says nothing; of a number; members of an open list.
_TEXT_CHARS = 60
_NUMBER_CHARS = 3
_ITEMS = 3
_MAX_DEPTH = 8
#: Tokens of a plain-text answer: a short paragraph.
PLAIN_TEXT_TOKENS = 120


def answer_tokens(schema: dict[str, Any] | None) -> tuple[int, int]:
    """Estimate the output tokens of an answer.

    Method: the shortest JSON that fits (required members, shortest values), and a typical one (all members, values of
    middle length: the median of an enum, 60 characters of free text within its limits, three items of a list), each
    counted as compact JSON by `estimate_tokens`.

    Args:
        schema: the answer's JSON Schema; None for plain text, which is given a short paragraph.

    Returns:
        (smallest, typical), each at least 1, the first not above the second.
    """
    if schema is None:
        return 1, PLAIN_TEXT_TOKENS
    size = _Sizer(schema)
    smallest, typical = size.chars(schema, 0)
    return max(1, estimate_tokens("x" * smallest)), max(1, estimate_tokens("x" * max(smallest, typical)))


class _Sizer:
    """Measures parts of one schema; follows its local references."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def chars(self, schema: Any, depth: int) -> tuple[int, int]:
        """Return (smallest, typical) characters of compact JSON."""
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return 1, _TEXT_CHARS
        fixed = _fixed(schema)
        if fixed is not None:
            return fixed
        if isinstance(schema.get("$ref"), str):
            return self.chars(self._referred(schema["$ref"]), depth + 1)
        for word in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(word), list) and schema[word]:
                return self._choice([self.chars(part, depth + 1) for part in schema[word]], is_all=word == "allOf")
        return self._typed(schema, depth)

    def _typed(self, schema: dict[str, Any], depth: int) -> tuple[int, int]:
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return _text(schema)
        return {"boolean": (4, 5), "null": (4, 4)}.get(kind, (1, _NUMBER_CHARS))

    def _object(self, schema: dict[str, Any], depth: int) -> tuple[int, int]:
        members: Mapping[str, Any] = schema.get("properties") or {}
        required = schema.get("required") or []
        smallest = typical = 2
        for name, part in members.items():
            least, usual = self.chars(part, depth + 1)
            frame = len(orjson.dumps(name)) + 2
            smallest += frame + least if name in required else 0
            typical += frame + usual
        return smallest, typical

    def _array(self, schema: dict[str, Any], depth: int) -> tuple[int, int]:
        least, usual = self.chars(schema.get("items"), depth + 1)
        fewest, most = _count(schema.get("minItems")) or 0, _count(schema.get("maxItems"))
        items = max(fewest, _ITEMS if most is None else min(_ITEMS, most))
        return 2 + fewest * (least + 1), 2 + items * (usual + 1)

    def _choice(self, sizes: list[tuple[int, int]], *, is_all: bool) -> tuple[int, int]:
        if is_all:
            return max(least for least, _ in sizes), max(usual for _, usual in sizes)
        # Of "a value or null" the value is the usual one.
        return min(least for least, _ in sizes), max(usual for _, usual in sizes)

    def _referred(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found


def _fixed(schema: dict[str, Any]) -> tuple[int, int] | None:
    """Return the sizes of a schema that lists its values."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list) or not values:
        return None
    sizes = [len(orjson.dumps(value, default=str)) for value in values]
    return min(sizes), round(median(sizes))


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "string"


def _text(schema: dict[str, Any]) -> tuple[int, int]:
    least, most = _count(schema.get("minLength")) or 0, _count(schema.get("maxLength"))
    usual = _TEXT_CHARS if most is None else min(_TEXT_CHARS, (least + most + 1) // 2)
    return 2 + least, 2 + max(least, usual)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
