"""Limits on the size of native schemas: OpenAI's strict mode and Anthropic's compiler (providers.md 2.2, 4.3)."""

from collections.abc import Iterator
from typing import Any

MAX_PROPERTIES = 5000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1000
MAX_NAME_CHARS = 120_000
LONG_ENUM = 250
MAX_LONG_ENUM_CHARS = 15_000
MAX_OPTIONAL = 24
MAX_UNIONS = 16


class UnfitSchemaError(Exception):
    """A schema has no native form; never leaves transforms/rules.

    Attributes:
        path: where, as `.properties.name`, or empty for the root.
        reason: what can't be expressed and what to write in its place.
    """

    def __init__(self, path: str, reason: str) -> None:
        """Keep the place beside the reason."""
        super().__init__(reason)
        self.path = path
        self.reason = reason


def check_strict_limits(native: dict[str, Any]) -> None:
    """Raise UnfitSchemaError when a strict schema is larger than OpenAI takes."""
    nodes = list(_nodes(native))
    if max(depth for _, depth in nodes) > MAX_DEPTH:
        raise UnfitSchemaError("", f"more than {MAX_DEPTH} levels of objects; make it flatter")
    names = [name for node, _ in nodes for name in node.get("properties", {})]
    if len(names) > MAX_PROPERTIES:
        raise UnfitSchemaError("", f"more than {MAX_PROPERTIES} properties; ask for fewer")
    values = 0
    chars = sum(map(len, names)) + sum(len(name) for key in ("$defs", "definitions") for name in native.get(key, {}))
    for node, _ in nodes:
        literals = [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]
        size = sum(len(literal) for literal in literals if isinstance(literal, str))
        values += len(node.get("enum", ()))
        chars += size
        if len(literals) > LONG_ENUM and size > MAX_LONG_ENUM_CHARS:
            raise UnfitSchemaError("", f"an enum of more than {MAX_LONG_ENUM_CHARS} characters; shorten its values")
    if values > MAX_ENUM_VALUES or chars > MAX_NAME_CHARS:
        raise UnfitSchemaError("", f"more than {MAX_ENUM_VALUES} enum values or {MAX_NAME_CHARS} characters of names")


def check_closed_limits(native: dict[str, Any]) -> None:
    """Raise UnfitSchemaError when a schema is recursive or more complex than Anthropic compiles."""
    _check_recursion(native)
    nodes = [node for node, _ in _nodes(native)]
    optional = sum(len(node["properties"]) - len(node["required"]) for node in nodes if "properties" in node)
    if optional > MAX_OPTIONAL:
        raise UnfitSchemaError("", f"{optional} optional properties (at most {MAX_OPTIONAL}); make some required")
    unions = sum("anyOf" in node or isinstance(node.get("type"), list) for node in nodes)
    if unions > MAX_UNIONS:
        raise UnfitSchemaError("", f"{unions} properties of more than one type (at most {MAX_UNIONS}); give one type")


def _children(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from node.get("properties", {}).values()
    yield from node.get("anyOf", ())
    if "items" in node:
        yield node["items"]


def _nodes(native: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield every schema node with its depth in objects; definitions count from their own top."""
    stack = [(native, 0)]
    for key in ("$defs", "definitions"):
        stack.extend((node, 0) for node in native.get(key, {}).values())
    while stack:
        node, above = stack.pop()
        depth = above + ("properties" in node)
        yield node, depth
        stack.extend((child, depth) for child in _children(node))


def _check_recursion(native: dict[str, Any]) -> None:
    """Raise UnfitSchemaError when following references leads back to where it began."""
    graph = {"#": _refs(native)}
    for key in ("$defs", "definitions"):
        graph.update({f"#/{key}/{name}": _refs(node) for name, node in native.get(key, {}).items()})
    done: set[str] = set()
    for start in graph:
        _visit(start, graph, (), done)


def _visit(name: str, graph: dict[str, list[str]], trail: tuple[str, ...], done: set[str]) -> None:
    if name in trail:
        raise UnfitSchemaError("", f"a schema that contains itself ({name}); write out the levels that you need")
    if name not in done:
        for target in graph.get(name, ()):
            _visit(target, graph, (*trail, name), done)
        done.add(name)


def _refs(node: dict[str, Any]) -> list[str]:
    found = [node["$ref"]] if "$ref" in node else []
    for child in _children(node):
        found.extend(_refs(child))
    return found
