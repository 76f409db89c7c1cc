"""JSON Schema into the form each provider takes for native structured output (providers.md 2.2, 4.3).

What a provider can't enforce (a maximum length, say) moves into the description, so that the model still reads it; the
answer is always checked against the job's own schema afterwards. Pure: schemas that come in are never changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from transforms.records.errors import ConfigError
from transforms.rules.schema_limits import UnfitSchemaError, check_closed_limits, check_strict_limits

Schema = dict[str, Any]

_DEFINITIONS = ("$defs", "definitions")
#: Keywords whose meaning can't be kept by leaving them out of the native form and checking later.
_UNFIT = (
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
    "prefixItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
)
#: Constraints on values that may move into the description.
_CONSTRAINTS = frozenset(
    {
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    }
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_PRIMITIVES: Mapping[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


@dataclass(frozen=True, slots=True)
class _Dialect:
    """What a provider's schema language keeps: value keywords, formats, array minima; may members be optional?"""

    kept: frozenset[str]
    formats: frozenset[str]
    array_minima: frozenset[int]
    all_required: bool


_STRICT = _Dialect(
    kept=_CONSTRAINTS - {"minLength", "maxLength", "uniqueItems", "minProperties", "maxProperties", "format"},
    formats=_FORMATS,
    array_minima=frozenset(),
    all_required=True,
)
_CLOSED = _Dialect(kept=frozenset(), formats=_FORMATS | {"uri"}, array_minima=frozenset({0, 1}), all_required=False)


def strict_schema(schema: Schema) -> Schema | None:
    """Return the schema for OpenAI's strict mode, or None when it can't be expressed there.

    Objects are closed and all members required; an optional member becomes nullable (`rules.answer_mend` takes the nulls
    out of the answer again).
    """
    try:
        native = _convert_root(_inline_root(schema), _STRICT)
        if native.get("type") != "object" or "anyOf" in native:
            return None
        check_strict_limits(native)
    except UnfitSchemaError:
        return None
    return native


def closed_schema(schema: Schema) -> Schema:
    """Return the schema for Anthropic's output_config: closed objects, constraints in descriptions.

    Raises:
        ConfigError: the schema can't be expressed (recursion, free keys, too complex); names the place and the cure.
    """
    try:
        native = _convert_root(schema, _CLOSED)
        check_closed_limits(native)
    except UnfitSchemaError as error:
        raise ConfigError(f"answer.schema{error.path}: Anthropic can't enforce {error.reason}") from None
    return native


def grammar_schema(schema: Schema) -> Schema:
    """Return the schema for a grammar engine (llama.cpp): as it is, with objects closed that do not say otherwise."""
    return _close(schema)


def _close(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    closed: Schema = dict(node)
    for key in ("properties", *_DEFINITIONS):
        if isinstance(node.get(key), dict):
            closed[key] = {name: _close(member) for name, member in node[key].items()}
    for key in ("anyOf", "oneOf"):
        if isinstance(node.get(key), list):
            closed[key] = [_close(branch) for branch in node[key]]
    if "items" in node:
        closed["items"] = _close(node["items"])
    if "properties" in node and "patternProperties" not in node:
        closed.setdefault("additionalProperties", False)
    return closed


def _inline_root(schema: Schema) -> Schema:
    """Replace a root that only points at a definition by that definition, and keep the definitions."""
    ref = schema.get("$ref")
    for key in _DEFINITIONS:
        prefix = f"#/{key}/"
        definitions = schema.get(key)
        if isinstance(ref, str) and ref.startswith(prefix) and isinstance(definitions, dict):
            target = definitions.get(ref.removeprefix(prefix))
            if isinstance(target, dict):
                return {**target, key: definitions}
    return schema


def _convert_root(schema: Schema, dialect: _Dialect) -> Schema:
    native = _convert(schema, "", dialect)
    known = {"#"}
    for key in _DEFINITIONS:
        definitions = schema.get(key)
        if isinstance(definitions, dict):
            native[key] = {name: _convert(node, f".{key}.{name}", dialect) for name, node in definitions.items()}
            known.update(f"#/{key}/{name}" for name in definitions)
    _check_refs(native, known)
    return native


def _check_refs(node: Any, known: set[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _check_refs(item, known)
    elif isinstance(node, dict):
        ref = node.get("$ref")
        if isinstance(ref, str) and ref not in known:
            raise UnfitSchemaError("", f"the reference {ref!r}; point at #/$defs/NAME")
        for value in node.values():
            _check_refs(value, known)


def _convert(node: Any, path: str, dialect: _Dialect) -> Schema:
    if not isinstance(node, dict):
        raise UnfitSchemaError(path, "a schema that is just true or false; give a type")
    node = _unwrap_all_of(node, path)
    if isinstance(node.get("$ref"), str):
        return {"$ref": node["$ref"]}
    for key in _UNFIT:
        if key in node:
            raise UnfitSchemaError(path, f"{key}; leave it out")
    native: Schema = {}
    branches = node.get("anyOf", node.get("oneOf"))
    if isinstance(branches, list):
        if "properties" in node:
            raise UnfitSchemaError(path, "properties beside anyOf; put them into each branch")
        native["anyOf"] = [_convert(branch, f"{path}.anyOf.{i}", dialect) for i, branch in enumerate(branches)]
    else:
        _add_value(native, node, path, dialect)
    _add_words(native, node, dialect)
    return native


def _unwrap_all_of(node: Schema, path: str) -> Schema:
    parts = node.get("allOf")
    if parts is None:
        return node
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        raise UnfitSchemaError(path, "allOf; write the members out in one object")
    return {key: value for key, value in node.items() if key != "allOf"} | parts[0]


def _add_value(native: Schema, node: Schema, path: str, dialect: _Dialect) -> None:
    types = _types(node, path)
    native["type"] = types[0] if len(types) == 1 else types
    if "enum" in node:
        native["enum"] = list(node["enum"])
    if "const" in node:
        native["const"] = node["const"]
    if "object" in types:
        _add_members(native, node, path, dialect)
    if "array" in types:
        if "items" not in node:
            raise UnfitSchemaError(path, "an array of anything; give items")
        native["items"] = _convert(node["items"], f"{path}.items", dialect)


def _types(node: Schema, path: str) -> list[str]:
    """Return the JSON types a node allows, told by `type` or else by its values or members."""
    given = node.get("type")
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        return list(given)
    values = node.get("enum", [node["const"]] if "const" in node else None)
    if isinstance(values, list) and values and all(type(value) in _PRIMITIVES for value in values):
        return list(dict.fromkeys(_PRIMITIVES[type(value)] for value in values))
    if "properties" in node:
        return ["object"]
    if "items" in node:
        return ["array"]
    raise UnfitSchemaError(path, "a value of any type; give a type")


def _add_members(native: Schema, node: Schema, path: str, dialect: _Dialect) -> None:
    members = node.get("properties", {})
    free = node.get("additionalProperties", bool(not members))
    if free is not False or not isinstance(members, dict):
        raise UnfitSchemaError(path, "an object with free keys; name its properties, or use an array of key and value")
    required = node.get("required") or []
    unknown = [name for name in required if name not in members]
    if unknown:
        raise UnfitSchemaError(path, f"the required member {unknown[0]!r} that properties does not describe; add it")
    native["properties"] = {}
    for name, member in members.items():
        converted = _convert(member, f"{path}.properties.{name}", dialect)
        nullable = dialect.all_required and name not in required
        native["properties"][name] = _nullable(converted) if nullable else converted
    native["required"] = list(members) if dialect.all_required else [name for name in members if name in required]
    native["additionalProperties"] = False


def _nullable(native: Schema) -> Schema:
    """Return the schema with null allowed too."""
    branches = native.get("anyOf")
    if branches is not None:
        return native if {"type": "null"} in branches else {**native, "anyOf": [*branches, {"type": "null"}]}
    if "type" not in native or "const" in native:
        return {"anyOf": [native, {"type": "null"}]}
    types = native["type"] if isinstance(native["type"], list) else [native["type"]]
    wider = {**native, "type": types if "null" in types else [*types, "null"]}
    if "enum" in native and None not in native["enum"]:
        wider["enum"] = [*native["enum"], None]
    return wider


def _add_words(native: Schema, node: Schema, dialect: _Dialect) -> None:
    """Add title and description, the constraints the dialect knows, and the others as words."""
    notes = []
    for key, value in node.items():
        if key not in _CONSTRAINTS:
            continue
        if _is_kept(key, value, dialect):
            native[key] = value
        else:
            notes.append(f"{key}: {value if isinstance(value, str) else orjson.dumps(value).decode()}")
    if isinstance(node.get("title"), str):
        native["title"] = node["title"]
    described = node.get("description") if isinstance(node.get("description"), str) else None
    if notes:
        described = f"{described or ''} [{'; '.join(notes)}]".lstrip()
    if described:
        native["description"] = described


def _is_kept(key: str, value: Any, dialect: _Dialect) -> bool:
    if key == "format":
        return value in dialect.formats
    if key == "minItems" and value in dialect.array_minima:
        return True
    return key in dialect.kept
