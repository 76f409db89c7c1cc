"""What providers refuse in an answer's schema before any model runs; pure.

Sources: providers.md 2.2 and 4.3; for `maxItems`, Anthropic's own SDK, which takes it out before sending.
A rehearsal that takes a schema the real provider answers with a 400 would be worth nothing.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

_ANTHROPIC_UNSUPPORTED = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems"}
)
_OPENAI_UNSUPPORTED = frozenset({"allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"})


def openai_objection(schema: Any) -> str | None:
    """Return why OpenAI's strict mode refuses the schema, or None; see `_openai_objection`."""
    return _openai_objection(orjson.dumps(schema))


def anthropic_objection(schema: Any) -> str | None:
    """Return why Anthropic refuses the schema, or None; see `_anthropic_objection`."""
    return _anthropic_objection(orjson.dumps(schema))


def is_schema(schema: Any) -> bool:
    """Tell whether a value is well-formed JSON Schema."""
    return _is_schema(orjson.dumps(schema))


# A job sends one schema with each of its requests: the walk is made once.
@lru_cache(maxsize=256)
def _openai_objection(raw: bytes) -> str | None:
    """Return why OpenAI's strict mode refuses the schema, or None.

    Holds: the root is an object and no anyOf; every object has additionalProperties false and requires all of its
    properties; no allOf, not, if/then/else, dependent*.
    """
    schema = orjson.loads(raw)
    if not isinstance(schema, dict):
        return "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'."
    if "anyOf" in schema or (schema.get("type") != "object" and "$ref" not in schema):
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    for path, part in _walk(schema, ()):
        refused = sorted(_OPENAI_UNSUPPORTED & part.keys())
        if refused:
            return f"In context={path}, '{refused[0]}' is not permitted."
        if _is_object(part):
            if part.get("additionalProperties") is not False:
                return f"In context={path}, 'additionalProperties' is required to be supplied and to be false."
            missing = [name for name in part.get("properties", {}) if name not in part.get("required", ())]
            if missing:
                return (
                    f"In context={path}, 'required' is required to be supplied and to be an array including every key "
                    f"in properties. Missing '{missing[0]}'."
                )
    return None


@lru_cache(maxsize=256)
def _is_schema(raw: bytes) -> bool:
    schema = orjson.loads(raw)
    if not isinstance(schema, dict):
        return False
    # Under its own address a schema language is only loaded, and nothing may be loaded from here.
    schema.pop("$schema", None)
    try:
        return bool(jsonschema_rs.meta.is_valid(schema))
    except (ValueError, jsonschema_rs.ReferencingError):
        return False


@lru_cache(maxsize=256)
def _anthropic_objection(raw: bytes) -> str | None:
    """Return why Anthropic refuses the schema, or None.

    Holds: every object has additionalProperties false; no ranges, lengths or multipleOf; minItems only 0 or 1.
    """
    schema = orjson.loads(raw)
    if not isinstance(schema, dict):
        return "schema: Input should be a valid dictionary"
    for path, part in _walk(schema, ()):
        where = ".".join(("schema", *path))
        if _is_object(part) and part.get("additionalProperties") is not False:
            return f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false"
        refused = sorted(_ANTHROPIC_UNSUPPORTED & part.keys())
        if refused:
            return f"{where}: For '{part.get('type')}' type, property '{refused[0]}' is not supported"
        if part.get("minItems", 0) not in (0, 1):
            return f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _walk(schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield every subschema with the way to it."""
    yield path, schema
    for key in ("properties", "$defs", "definitions"):
        for name, part in (schema.get(key) or {}).items():
            if isinstance(part, dict):
                yield from _walk(part, (*path, key, name))
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for index, part in enumerate(schema.get(key) or ()):
            if isinstance(part, dict):
                yield from _walk(part, (*path, key, str(index)))
    for key in ("items", "additionalProperties"):
        part = schema.get(key)
        if isinstance(part, dict):
            yield from _walk(part, (*path, key))
