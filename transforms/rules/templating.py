"""The Jinja2 dialect of prompt templates: what it may use, and what can be said of a template before it runs.

Differences from plain Jinja2, all of them so that a prompt depends on its row and lookup alone: no loaders, no
`lipsum` and no `random` filter; `row` and `lookup` give names before methods (`row.items` is the column "items");
None prints as nothing, dates as ISO 8601, lists and objects as JSON, all else as Python writes it; `tojson` writes plain JSON, not HTML-safe JSON.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from transforms.records.errors import ConfigError
from transforms.rules.canonical import to_json

_TEMPLATE_NAMES = frozenset({"row", "lookup"})


class MissingColumnError(UndefinedError):
    """A template used a column that the row does not have."""


class Fields(dict[str, object]):
    """A mapping whose names a template sees as attributes, before any method of dict."""

    __slots__ = ()


class RowFields(Fields):
    """The row's columns; a missing one is reported as such."""

    __slots__ = ()


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox that compiles and runs prompt templates."""

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            keep_trailing_newline=False,
            finalize=_finalize,
            cache_size=0,
        )
        del self.globals["lipsum"]
        del self.filters["random"]
        self.filters["tojson"] = _tojson

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Resolve `obj.attribute`; on `row` and `lookup` it is always the name, never a method."""
        if isinstance(obj, Fields):
            return self._field(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Resolve `obj[argument]` in the same way."""
        if isinstance(obj, Fields):
            return self._field(obj, argument)
        return super().getitem(obj, argument)

    def _field(self, obj: Fields, name: Any) -> Any:
        if name in obj:
            return obj[name]
        if isinstance(obj, RowFields):
            hint = f"template names column {name!r}, which the row does not have; columns are {', '.join(obj)}"
            return self.undefined(hint=hint, obj=obj, name=name, exc=MissingColumnError)
        hint = f"there is no lookup {name!r}; lookups are {', '.join(obj) or 'none'}"
        return self.undefined(hint=hint, obj=obj, name=name)


@dataclass(frozen=True, slots=True)
class TemplateNames:
    """What a template names, as far as it can be known without running it.

    Attributes:
        columns: (column, line) of every column named outright.
        optional: columns the template tests with `is defined` or gives a `default`; a row may lack them.
        whole_row: it also uses the row as a whole, or by a computed name; then it may read any column.
        lookups: (lookup, line) of every lookup named outright.
        uses_row: it names `row` at all.
    """

    columns: tuple[tuple[str, int], ...]
    optional: frozenset[str]
    whole_row: bool
    lookups: tuple[tuple[str, int], ...]
    uses_row: bool


def inspect_template(environment: PromptEnvironment, source: str, where: str) -> TemplateNames:
    """Parse a template and list what it names.

    Args:
        environment: the sandbox it will run in.
        source: the template's text.
        where: what to call it in errors, such as "prompt.template".

    Raises:
        ConfigError: broken syntax, an unknown filter, test or name, or a statement that needs other files; the
            sentence has the line and the cure.
    """
    try:
        tree = environment.parse(source)
        _refuse_unknown(environment, tree, where)
        undeclared = meta.find_undeclared_variables(tree) - _TEMPLATE_NAMES - environment.globals.keys()
    except TemplateSyntaxError as exc:
        raise ConfigError(f"{where} line {exc.lineno}: {exc.message}; correct the template") from exc
    except (TemplateError, RecursionError) as exc:
        raise ConfigError(f"{where}: {exc}; correct the template") from exc
    for name in tree.find_all(nodes.Name):
        if name.name in undeclared:
            raise ConfigError(
                f"{where} line {name.lineno}: {name.name!r} is not defined; "
                f"write row.{name.name} for a column or lookup.{name.name} for a lookup"
            )
    return _list_names(tree)


def _refuse_unknown(environment: PromptEnvironment, tree: nodes.Template, where: str) -> None:
    for used in tree.find_all((nodes.Filter, nodes.Test)):
        known, what = (environment.filters, "filter") if isinstance(used, nodes.Filter) else (environment.tests, "test")
        name = getattr(used, "name", None)
        if name is not None and name not in known:
            cure = "prompts may not differ by chance" if name == "random" else "see Jinja2's list of built-in ones"
            raise ConfigError(f"{where} line {used.lineno}: unknown {what} {name!r}; {cure}")
    for other in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise ConfigError(
            f"{where} line {other.lineno}: a template can't include, import or extend another; "
            "write its text here, or give it as a lookup"
        )


def _list_names(tree: nodes.Template) -> TemplateNames:
    fields = list(_fields_of(tree))
    accounted = {id(base) for base, _, _ in fields}
    row_names = [name for name in tree.find_all(nodes.Name) if name.name == "row"]
    optional = {
        field[1]
        for used in tree.find_all((nodes.Filter, nodes.Test))
        if used.name in {"default", "d", "defined", "undefined"}
        for field in _field_of(used.node)
    }
    return TemplateNames(
        columns=tuple((key, line) for base, key, line in fields if base.name == "row"),
        optional=frozenset(optional),
        whole_row=any(id(name) not in accounted or name.ctx != "load" for name in row_names),
        lookups=tuple((key, line) for base, key, line in fields if base.name == "lookup"),
        uses_row=bool(row_names),
    )


def _fields_of(tree: nodes.Template) -> Iterator[tuple[nodes.Name, str, int]]:
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        yield from _field_of(node)


def _field_of(node: nodes.Node | None) -> Iterator[tuple[nodes.Name, str, int]]:
    """Yield (base name, field, line) if `node` is `row.x`, `row["x"]` or the same on lookup, else nothing."""
    if not isinstance(node, nodes.Getattr | nodes.Getitem) or not isinstance(node.node, nodes.Name):
        return
    if node.node.name not in _TEMPLATE_NAMES:
        return
    if isinstance(node, nodes.Getattr):
        yield node.node, node.attr, node.lineno
    elif isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        yield node.node, node.arg.value, node.lineno


def _finalize(value: object) -> object:
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, dict | list | tuple):
        return _tojson(value)
    isoformat = getattr(type(value), "isoformat", None)
    return value if isoformat is None else isoformat(value)


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(to_json(value), ensure_ascii=False, indent=indent)
