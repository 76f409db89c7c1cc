"""Rows become prompts.

Enters a row's values; leaves the prompt to send, the prompt that audit may show, and hashes that say what it was
made of. Rendering is a function of the row, the templates and the lookup data alone: the same row gives the same
prompt in every process and run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from types import TracebackType
from typing import Any

from jinja2 import Template
from jinja2.runtime import Context

from transforms.records.errors import ConfigError, RowError
from transforms.records.failure import FailureKind
from transforms.records.quick import quick
from transforms.records.request import Prompt, PromptHashes
from transforms.rules.canonical import canonical_sha256
from transforms.rules.plain_template import fill, plain_pieces
from transforms.rules.prompt_hash import prompt_sha256
from transforms.rules.templating import (
    Fields,
    MissingColumnError,
    NoTextError,
    PromptEnvironment,
    RowFields,
    TemplateNames,
    inspect_template,
)

REDACTED = "[redacted]"
MAX_PROMPT_CHARS = 4 * 1024 * 1024


@quick
@dataclass(frozen=True, slots=True)
class Rendered:
    """One row's prompt; shown_prompt is None when nothing in it is redacted."""

    prompt: Prompt
    shown_prompt: Prompt | None
    hashes: PromptHashes


class PromptTemplate:
    """The job's templates, checked, with their lookup data.

    Pickles as sources and lookup data; a worker compiles on its first row.

    Attributes:
        columns_used: the columns a template reads, sorted; None when that can't be known (it uses the row as a
            whole or by a computed name).
        template_source: where the template came from, for people and for the audit.
        lookup_source: "name=path" of each lookup, joined by ", "; None without lookups.
        template_sha256, lookup_sha256: hashes of the sources and of the lookup data.
    """

    def __init__(
        self,
        system: str | None,
        template: str,
        lookup: Mapping[str, object] | None = None,
        lookup_sources: Mapping[str, str] | None = None,
        redact: Sequence[str] = (),
        *,
        system_source: str = "prompt.system",
        template_source: str = "prompt.template",
    ) -> None:
        """Check the templates and hash what every row shares.

        Args:
            system: template of the system part, or None.
            template: template of the user part.
            lookup: data of each lookup, as `parse_lookup` gives it.
            lookup_sources: the file of each lookup, as the job names it.
            redact: columns whose values audit never shows.
            system_source: what to call the system template in errors, such as its file.
            template_source: what to call the user template in errors, such as its file.

        Raises:
            ConfigError: a template can't work; the sentence has the line and the cure.
        """
        self._sources = (
            [(template, template_source)]
            if system is None
            else [
                (template, template_source),
                (system, system_source),
            ]
        )
        self._lookup = Fields(lookup or {})
        self._redact = tuple(redact)
        self.template_source = template_source
        self.lookup_source = (
            ", ".join(f"{name}={path}" for name, path in sorted((lookup_sources or {}).items())) if lookup else None
        )
        self.template_sha256 = canonical_sha256([system, template])
        self.lookup_sha256 = canonical_sha256(dict(lookup)) if lookup else None
        self._names = [inspect_template(self._environment, source, where) for source, where in self._sources]
        self._refuse_unknown_lookups()
        self.columns_used = _columns_read(self._names)
        self._refuse_blank()

    def check(self, columns: Iterable[str]) -> None:
        """Raise ConfigError when a template names a column the input does not have.

        A column that the template tests with `is defined`, or gives a `default`, may be missing.
        """
        known = list(columns)
        for names, (_, where) in zip(self._names, self._sources, strict=True):
            for column, line in names.columns:
                if column not in known and column not in names.optional:
                    near = get_close_matches(column, known, n=1)
                    cure = f"did you mean {near[0]!r}? " if near else ""
                    raise ConfigError(
                        f"{where} line {line} names column {column!r}, which the input does not have; "
                        f"{cure}Columns are {', '.join(known)}"
                    )

    def render(self, values: dict[str, object]) -> Rendered:
        """Return the prompt of one row.

        Raises:
            RowError: MISSING_COLUMN for a column this row lacks; TEMPLATE_ERROR when the template fails on it, or
                gives no text, more than MAX_PROMPT_CHARS characters, or text that is not Unicode.
        """
        prompt = self._render(RowFields(values))
        try:
            hashes = PromptHashes(
                prompt=prompt_sha256(prompt),
                template=self.template_sha256,
                variables=canonical_sha256(self._variables(values)),
                lookup=self.lookup_sha256,
            )
        except (ValueError, TypeError) as exc:
            reason = f"{self.template_source}: the row's text is not valid Unicode ({exc}); repair it in the input"
            raise RowError(FailureKind.TEMPLATE_ERROR, reason) from exc
        return Rendered(prompt, self._shown(values) if self._redact_read else None, hashes)

    def _variables(self, values: dict[str, object]) -> dict[str, object]:
        if self.columns_used is None:
            return values
        return {name: values[name] for name in self.columns_used if name in values}

    def _shown(self, values: dict[str, object]) -> Prompt:
        hidden = {name: REDACTED for name in self._redact_read if name in values}
        try:
            return self._render(RowFields(values | hidden))
        except RowError:
            # A template may do with the value what can't be done with a text; then nothing of it is shown.
            return Prompt(None, (("user", REDACTED),))

    def _render(self, row: RowFields) -> Prompt:
        variables = {"row": row, "lookup": self._lookup}
        texts = [part if isinstance(part, str) else part.render(variables) for part in self._parts]
        if not texts[0].strip():
            raise RowError(FailureKind.TEMPLATE_ERROR, f"{self.template_source} gives no text for this row")
        return Prompt((texts[1] or None) if len(texts) > 1 else None, (("user", texts[0]),))

    @cached_property
    def _redact_read(self) -> tuple[str, ...]:
        used = self.columns_used
        return tuple(name for name in self._redact if used is None or name in used)

    @cached_property
    def _environment(self) -> PromptEnvironment:
        return PromptEnvironment()

    @cached_property
    def _parts(self) -> "list[str | _Part]":
        """The user part, then the system part; a part that does not name the row is its text already."""
        parts: list[str | _Part] = []
        for names, (source, where) in zip(self._names, self._sources, strict=True):
            part = _Part(self._environment, source, where)
            try:
                parts.append(part if names.uses_row else part.render({"lookup": self._lookup}))
            except RowError as exc:
                raise ConfigError(exc.reason) from exc
        return parts

    def _refuse_unknown_lookups(self) -> None:
        for names, (_, where) in zip(self._names, self._sources, strict=True):
            for name, line in names.lookups:
                if name not in self._lookup:
                    raise ConfigError(
                        f"{where} line {line} names lookup {name!r}, which the job does not give; add it under "
                        f"prompt.lookup (now: {', '.join(self._lookup) or 'none'})"
                    )

    def _refuse_blank(self) -> None:
        text = self._parts[0]
        if isinstance(text, str) and not text.strip():
            raise ConfigError(f"{self.template_source} gives no text; write what to ask of each row")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled."""
        return {key: value for key, value in self.__dict__.items() if key not in {"_environment", "_parts"}}


class _Part:
    """A compiled template and its name for errors."""

    def __init__(self, environment: PromptEnvironment, source: str, where: str) -> None:
        self._template: Template = environment.from_string(source)
        self._where = where
        self._globals = dict(self._template.globals)
        self._plain = plain_pieces(environment.parse(source))

    def render(self, variables: dict[str, Any]) -> str:
        """Return the text, stopping at MAX_PROMPT_CHARS rather than when memory is full."""
        text = None if self._plain is None else fill(self._plain, variables.get("row", {}), MAX_PROMPT_CHARS)
        return self._render(variables) if text is None else text

    def _render(self, variables: dict[str, Any]) -> str:
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.root_render_func(self._context(variables)):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_PROMPT_CHARS:
                    break
        except MissingColumnError as exc:
            raise RowError(FailureKind.MISSING_COLUMN, str(exc)) from exc
        except NoTextError as exc:
            reason = f"{self._where} line {self._line(exc.__traceback__)} {exc}"
            raise RowError(FailureKind.TEMPLATE_ERROR, reason) from exc
        except Exception as exc:  # a template calls whatever its values offer, so anything can come out
            reason = f"{self._where} line {self._line(exc.__traceback__)} fails on this row: {_words(exc)}"
            raise RowError(FailureKind.TEMPLATE_ERROR, reason) from exc
        if length > MAX_PROMPT_CHARS:
            reason = f"{self._where} gives more than {MAX_PROMPT_CHARS:,} characters for this row"
            raise RowError(FailureKind.TEMPLATE_ERROR, reason)
        return "".join(pieces)

    def _context(self, variables: dict[str, Any]) -> Context:
        # Template.new_context walks a ChainMap of globals each time, which takes longer than a small template.
        template = self._template
        parent = {**self._globals, **variables}
        return template.environment.context_class(template.environment, parent, template.name, template.blocks)

    def _line(self, trace: TracebackType | None) -> int:
        line = 1
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<template>":
                line = self._template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


def _words(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _columns_read(parts: Iterable[TemplateNames]) -> tuple[str, ...] | None:
    names = list(parts)
    if any(part.whole_row for part in names):
        return None
    return tuple(sorted({column for part in names for column, _ in part.columns}))
