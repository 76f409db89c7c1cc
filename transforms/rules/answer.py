"""A model's text becomes a checked value, or an error that a model can act on.

Enters the text of an answer that ended normally (truncated ones never come here: their JSON could be completed into a
lie); leaves canonical JSON text of a value that satisfies the job's schema. Order of attempts: the text as JSON;
JSON between fences or in prose; recovered JSON; for schemas that ask for a text, the text itself.
"""

from functools import cached_property
from typing import Any

import jsonschema_rs
import orjson

from transforms.records.errors import AnswerError, ConfigError
from transforms.rules.answer_mend import Mender, refuse_fetch
from transforms.rules.answer_text import AmbiguousJsonError, NotJsonError, find_json, read_json, recover_json, unfenced
from transforms.rules.answer_type import fit, has_integers, json_type

_CONTAINERS: dict[str, type] = {"object": dict, "array": list}
_MAX_VALUE_CHARS = 200
_MAX_PROBLEMS = 5


class AnswerReader:
    """Reads answers against one schema; pickles as its schema and compiles in the worker."""

    def __init__(self, schema: dict[str, Any] | None) -> None:
        """Compile the schema.

        Args:
            schema: a JSON Schema (2020-12 unless it says otherwise), or None for plain text answers.

        Raises:
            ConfigError: the schema is not valid, or refers to something outside itself.
        """
        self.schema = schema
        try:
            _ = self._validator, self._mender
        except (ValueError, TypeError) as exc:
            problem = str(exc).split("\n", 1)[0]
            raise ConfigError(f"answer.schema is not a usable JSON Schema: {problem}; correct it") from exc

    def read(self, text: str) -> str:
        """Return the checked value as canonical JSON text (keys sorted, no spaces).

        Without a schema the value is the text itself, without the white space around it, as a JSON string.

        Raises:
            AnswerError: one sentence with the JSON path, the value found there and what was expected; nothing else
                is ever raised, whatever the text is.
        """
        if not text.strip():
            raise AnswerError("the answer is empty")
        if self.schema is None:
            return _write(text.strip())
        try:
            value = read_json(text)
        except NotJsonError as exc:
            value = self._search(text, exc)
        return self._checked(value)

    def _search(self, text: str, first: NotJsonError) -> Any:
        """Return the value of a text that is not plain JSON; `first` says why it is not."""
        kinds = self._containers
        try:
            if isinstance(first, AmbiguousJsonError):
                raise first
            return self._search_container(text, kinds) if kinds else self._search_scalar(unfenced(text))
        except AmbiguousJsonError as exc:
            raise AnswerError(f"the answer can't be read as JSON: {exc}") from exc
        except NotJsonError as exc:
            raise AnswerError(f"the answer is not the JSON that was asked for: {first}") from exc

    def _search_container(self, text: str, kinds: tuple[type, ...]) -> Any:
        try:
            return find_json(text, kinds)
        except AmbiguousJsonError:
            raise
        except NotJsonError:
            return recover_json(text, kinds)

    def _search_scalar(self, plain: str) -> Any:
        """Return a fenced scalar, or an unquoted text where the schema asks for a text."""
        try:
            return read_json(plain)
        except NotJsonError:
            if self._kind == "string" and plain and not plain.startswith('"'):
                return plain
            raise

    def _checked(self, value: Any) -> str:
        written = _write(value)
        try:
            if not self._validator.is_valid(value):
                value = self._mender.mend(value)
                self._raise_problems(value)
                written = _write(value)
        except ValueError as exc:
            raise AnswerError(f"the answer can't be checked against the schema: {exc}") from exc
        if self._ranged:
            fit(value, self._type)
        return written

    def _raise_problems(self, value: Any) -> None:
        problems = []
        for error in self._validator.iter_errors(value):
            problems.append(_describe(error))
            if len(problems) == _MAX_PROBLEMS:
                break
        if problems:
            raise AnswerError("the answer does not fit the schema: " + "; ".join(problems))

    @cached_property
    def _validator(self) -> Any:
        return jsonschema_rs.validator_for(self.schema or {}, mask="it", retriever=refuse_fetch)

    @cached_property
    def _mender(self) -> Mender:
        return Mender(self.schema or {})

    @cached_property
    def _type(self) -> Any:
        return json_type(self.schema)

    @cached_property
    def _ranged(self) -> bool:
        return has_integers(self._type)

    @cached_property
    def _kind(self) -> str:
        return str(self._type.kind)

    @cached_property
    def _containers(self) -> tuple[type, ...]:
        """The JSON containers the schema allows at the top; none where it asks for a scalar."""
        if self._kind == "json":
            return (dict, list)
        return tuple(kind for name, kind in _CONTAINERS.items() if name == self._kind)

    def __getstate__(self) -> dict[str, Any]:
        """Keep the schema only."""
        return {"schema": self.schema}


def _write(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode("utf-8")
    except orjson.JSONEncodeError as exc:
        raise AnswerError(f"the answer can't be kept: {exc}") from exc


def _describe(error: Any) -> str:
    path = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    try:
        found = orjson.dumps(error.instance).decode("utf-8")
    except orjson.JSONEncodeError:
        found = repr(error.instance)
    if len(found) > _MAX_VALUE_CHARS:
        found = found[:_MAX_VALUE_CHARS] + "..."
    return f"at {path} the value is {found}: {error.message}"
