"""The columns that an answer adds to its row (DESIGN section 4, "Enriched rows").

Names and types are fixed by the job before the first row; `values` and `failed` fill exactly these names.
"""

from collections.abc import Iterable
from typing import Any, Protocol

import orjson

from transforms.records.answer import RequestResult
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.usage import Usage
from transforms.rules.answer_type import AnswerType, fit, json_type


class TemplateFacts(Protocol):
    """What the columns tell of the job's templates (`rules.prompt.PromptTemplate` has it)."""

    template_sha256: str
    template_source: str
    lookup_sha256: str | None
    lookup_source: str | None


_TEXT = AnswerType("string")
_COUNT = AnswerType("integer")

#: The members of `<field>_usage`; sums over the calls that made the answer, null where a call did not say.
USAGE_TYPE = AnswerType(
    "object",
    (
        ("input_tokens", _COUNT),
        ("output_tokens", _COUNT),
        ("cache_read_input_tokens", _COUNT),
        ("cache_write_input_tokens", _COUNT),
        ("reasoning_output_tokens", _COUNT),
        ("cost_usd", AnswerType("decimal")),
    ),
)


class AnswerColumns:
    """Maps results to columns; the same names and types for every row of a job.

    Attributes:
        answer_type: the type of the answer's own column.
    """

    def __init__(
        self,
        field: str,
        schema: dict[str, Any] | None,
        template: TemplateFacts,
        *,
        flatten: bool = False,
        keep: bool = False,
        row_id: bool = False,
    ) -> None:
        """Fix names and types.

        Args:
            field: the answer's column.
            schema: the answer's JSON Schema, or None for text.
            template: the job's templates; only what they were made of is kept.
            flatten: also give each member of an object answer its own column `<field>_<member>`.
            keep: failed rows are kept, so there is a column `<field>_error`.
            row_id: there is a column `<field>_row_id`, by which a later run replaces the row.

        Raises:
            ConfigError: a member's column would have the name of another of our columns.
        """
        self.answer_type = json_type(schema)
        self._field = field
        self._is_text = schema is None
        self._keep = keep
        self._row_id = f"{field}_row_id" if row_id else None
        self._constants = {
            f"{field}_template_hash": template.template_sha256,
            f"{field}_template_source": template.template_source,
            f"{field}_lookup_hash": template.lookup_sha256,
            f"{field}_lookup_source": template.lookup_source,
        }
        self._members = (
            tuple((f"{field}_{name}", name, kind) for name, kind in self.answer_type.fields) if flatten else ()
        )
        self._columns = self._list_columns()
        self._names = tuple(name for name, _ in self._columns)
        self._refuse_twins()

    def names(self) -> tuple[str, ...]:
        """Return the column names in the order of the output."""
        return self._names

    def types(self) -> tuple[tuple[str, AnswerType], ...]:
        """Return (name, type) of every column in the order of the output; every column may be null."""
        return self._columns

    def check(self, input_columns: Iterable[str]) -> None:
        """Raise ConfigError when an input column has the name of a column of ours."""
        ours = set(self.names())
        for column in input_columns:
            if column in ours:
                raise ConfigError(
                    f"answer.field: the input already has a column {column!r}, which the answer would add; "
                    f"choose another answer.field than {self._field!r}"
                )

    def values(self, result: RequestResult, variables_sha256: str, row_id: str | None = None) -> dict[str, Any]:
        """Return the columns of a row whose request is settled, with or without an answer.

        Args:
            result: what became of the row's request.
            variables_sha256: hash of this row's own variables (rows that share a request may differ in them).
            row_id: the row's.

        Returns:
            A dict with exactly `names()`, in order.
        """
        columns = self._blank(variables_sha256, result.request_id, row_id)
        columns[f"{self._field}_model"] = result.response_model
        columns[f"{self._field}_usage"] = _usage(result.usage) | {"cost_usd": result.cost_usd}
        if result.value_json is not None:
            self._put_answer(columns, orjson.loads(result.value_json))
        elif self._keep:
            columns[f"{self._field}_error"] = f"{result.kind}: {result.reason}"
        return columns

    def failed(self, kind: FailureKind, reason: str, row_id: str | None = None) -> dict[str, Any]:
        """Return the columns of a kept row that never became a request: null but the error and the template's.

        Only for columns made with keep.
        """
        columns = self._blank(None, None, row_id)
        columns[f"{self._field}_error"] = f"{kind}: {reason}"
        return columns

    def _put_answer(self, columns: dict[str, Any], value: Any) -> None:
        answer = value if self._is_text else fit(value, self.answer_type)
        columns[self._field] = answer
        if isinstance(answer, dict):
            for column, name, _ in self._members:
                columns[column] = answer[name]

    def _blank(self, variables_sha256: str | None, request_id: str | None, row_id: str | None) -> dict[str, Any]:
        columns: dict[str, Any] = dict.fromkeys(self.names()) | self._constants
        columns[f"{self._field}_variables_hash"] = variables_sha256
        columns[f"{self._field}_request_id"] = request_id
        if self._row_id is not None:
            columns[self._row_id] = row_id
        return columns

    def _list_columns(self) -> tuple[tuple[str, AnswerType], ...]:
        field = self._field
        own = [(field, self.answer_type), *((column, kind) for column, _, kind in self._members)]
        texts = ("template_hash", "variables_hash", "template_source", "lookup_hash", "lookup_source", "request_id")
        facts = [(f"{field}_model", _TEXT), (f"{field}_usage", USAGE_TYPE)]
        facts += [(f"{field}_{name}", _TEXT) for name in (*texts, "error")[: None if self._keep else -1]]
        return (*own, *facts) if self._row_id is None else (*own, *facts, (self._row_id, _TEXT))

    def _refuse_twins(self) -> None:
        seen: set[str] = set()
        for name in self._names:
            if name in seen:
                raise ConfigError(
                    f"answer.flatten: the schema's member {name.removeprefix(self._field + '_')!r} would give a second "
                    f"column {name!r}; rename the member in answer.schema, or leave answer.flatten off"
                )
            seen.add(name)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "cache_write_input_tokens": usage.cache_write_input_tokens,
        "reasoning_output_tokens": usage.reasoning_output_tokens,
    }
