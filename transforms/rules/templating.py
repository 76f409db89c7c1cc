"""The Jinja2 dialect of prompt templates: what it may use, and what can be said of a template before it runs.

Differences from plain Jinja2, all of them so that a prompt depends on its row and lookup alone: no loaders, no
`lipsum` and no `random` filter; `row` and `lookup` give names before methods (`row.items` is the column "items");
None prints as nothing, dates as ISO 8601, lists and objects as JSON, numbers as Python writes them; what is neither
text nor data (a method without its parentheses, a cycler) is refused, because Python would write a memory address.
`~` and `string` follow the same rules; `tojson` writes plain JSON, not HTML-safe JSON.
"""

import datetime as dt
import json
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from functools import wraps
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from transforms.records.errors import ConfigError
from transforms.rules.canonical import to_json

_TEMPLATE_NAMES = frozenset({"row", "lookup"})
#: Filters that give generators, which other filters would print as memory addresses.
_LAZY_FILTERS = ("batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "unique")
_METHODS = (BuiltinMethodType, FunctionType, MethodType)
_TIMES = (dt.date, dt.time)
_PRINTED = (str, int, float, Decimal, dt.timedelta)
_UNCHANGED = (*_PRINTED, Undefined)
_SCALARS = (*_PRINTED, *_TIMES, bytes)
_SEQUENCES = (list, tuple, range, Iterator, KeysView, ItemsView, ValuesView)


class MissingColumnError(UndefinedError):
    """A template used a column that the row does not have."""


class NoTextError(TemplateError):
    """A template prints what is neither text nor data; says what it is and the cure."""


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
        self.filters["string"] = _text
        self.filters |= {name: _eager(self.filters[name]) for name in _LAZY_FILTERS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Resolve `obj.attribute`: on `row` and `lookup` always the name, on other objects a member before a method."""
        if isinstance(obj, Fields):
            return self._field(obj, attribute)
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return _guarded(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Resolve `obj[argument]` in the same way."""
        if isinstance(obj, Fields):
            return self._field(obj, argument)
        return _guarded(super().getitem(obj, argument))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse, and make the parts of `a ~ b` print as they would alone."""
        tree = super()._parse(source, name, filename)
        for joined in tree.find_all(nodes.Concat):
            joined.nodes = [
                part
                if isinstance(part, nodes.Const)
                else nodes.Filter(part, "string", [], [], None, None, lineno=part.lineno, environment=self)
                for part in joined.nodes
            ]
        return tree

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


class _Method:
    """A method of a value: to be called; it has no text, wherever a template puts it."""

    __slots__ = ("_method",)

    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)

    def __str__(self) -> str:
        raise _no_text(self._method)

    __repr__ = __str__


def _eager(lazy: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(lazy)  # with Jinja's marks on it
    def eager(*args: Any, **kwargs: Any) -> Any:
        found = lazy(*args, **kwargs)
        return list(found) if isinstance(found, Iterator) else found

    return eager


def _guarded(value: Any) -> Any:
    return _Method(value) if isinstance(value, _METHODS) else value


def _finalize(value: object) -> object:
    """Return what Jinja prints as text; an undefined value raises when it is printed."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, _UNCHANGED):
        return value
    if isinstance(value, _TIMES):
        return value.isoformat()
    if isinstance(value, bytes):
        raise NoTextError("gives bytes, which are no text; write .decode() after them")
    return _tojson(value)


def _text(value: object) -> str:
    return str(_finalize(value))


def _tojson(value: object, indent: int | None = None) -> str:
    return json.dumps(to_json(_data(value)), ensure_ascii=False, indent=indent)


def _data(value: object) -> object:
    """Return a value made of objects, lists and scalars alone; sets are sorted by their JSON."""
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, dict):
        return {key: _data(member) for key, member in value.items()}
    if isinstance(value, _SEQUENCES) and not isinstance(value, LoopContext):
        return [_data(member) for member in value]
    if isinstance(value, AbstractSet):
        return sorted((_data(member) for member in value), key=_tojson)
    if isinstance(value, Undefined):
        str(value)  # raises, with the words for what is missing
    raise _no_text(value)


def _no_text(value: object) -> NoTextError:
    kind = "method" if isinstance(value, (_Method, *_METHODS)) else type(value).__name__
    return NoTextError(f"gives a {kind}, which is no text; did you forget ()?")
