"""Two known slips of providers in otherwise right answers, put right before the schema has the last word.

Letter case of enum members (providers.md 4.3: not guaranteed by Anthropic), and null for an optional member that was
sent as required-or-null because strict mode knows no optional members (OpenAI).
"""

from typing import Any
from urllib.parse import quote

import jsonschema_rs

from transforms.rules.answer_type import follow_ref

_ROOT = "urn:rowbeam:answer"
_MAX_DEPTH = 64


def refuse_fetch(uri: str) -> Any:
    """Refuse to load a schema from elsewhere; given to jsonschema_rs, which would go to the network."""
    raise ValueError(f"a schema must be complete in itself; it refers to {uri}")


class Mender:
    """Mends values against one schema; what it can't mend it returns as it is."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._registry = jsonschema_rs.Registry([(_ROOT, schema)], retriever=refuse_fetch)
        self._validators: dict[str, Any] = {}

    def mend(self, value: Any) -> Any:
        """Return the value with both slips put right; the argument is not changed."""
        return self._mend(value, self._schema, "", 0)

    def _mend(self, value: Any, schema: Any, pointer: str, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return value
        target = follow_ref(schema, self._schema) if "$ref" in schema else None
        if target is not None:
            value = self._mend(value, target, schema["$ref"][1:], depth + 1)
        if isinstance(value, str) and "enum" in schema:
            return _enum_member(value, schema["enum"])
        if isinstance(value, str) and isinstance(schema.get("const"), str):
            return _enum_member(value, [schema["const"]])
        if isinstance(value, dict):
            value = self._mend_members(value, schema, pointer, depth)
        elif isinstance(value, list) and isinstance(schema.get("items"), dict):
            value = [self._mend(member, schema["items"], pointer + "/items", depth + 1) for member in value]
        return self._mend_branches(value, schema, pointer, depth)

    def _mend_members(self, value: dict[str, Any], schema: dict[str, Any], pointer: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        mended = {}
        for name, member in value.items():
            if name not in properties:
                mended[name] = member
                continue
            where = f"{pointer}/properties/{_token(name)}"
            if member is None and name not in required and not self._accepts(where, None):
                continue
            mended[name] = self._mend(member, properties[name], where, depth + 1)
        return mended

    def _mend_branches(self, value: Any, schema: dict[str, Any], pointer: str, depth: int) -> Any:
        for index, branch in enumerate(schema.get("allOf", [])):
            value = self._mend(value, branch, f"{pointer}/allOf/{index}", depth + 1)
        for word in ("anyOf", "oneOf"):
            if word not in schema or self._accepts(pointer, value):
                continue
            branches = [(branch, f"{pointer}/{word}/{index}") for index, branch in enumerate(schema[word])]
            tried = [(self._mend(value, branch, where, depth + 1), where) for branch, where in branches]
            fitting = [mended for mended, where in tried if self._accepts(where, mended)]
            if fitting and all(mended == fitting[0] for mended in fitting):
                value = fitting[0]
        return value

    def _accepts(self, pointer: str, value: Any) -> bool:
        validator = self._validators.get(pointer)
        if validator is None:
            whole = {"$ref": f"{_ROOT}#{pointer}"}
            validator = jsonschema_rs.validator_for(whole, registry=self._registry, retriever=refuse_fetch)
            self._validators[pointer] = validator
        return bool(validator.is_valid(value))


def _enum_member(value: str, members: list[Any]) -> str:
    if value in members:
        return value
    folded = value.casefold()
    alike = [member for member in members if isinstance(member, str) and member.casefold() == folded]
    return alike[0] if len(alike) == 1 else value


def _token(name: str) -> str:
    """Return a member's name as a JSON pointer in a URI fragment writes it."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~")
