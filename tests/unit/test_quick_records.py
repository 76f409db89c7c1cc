"""A quick record is the dataclass it was, built another way."""

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from inspect import getmembers, isclass, signature
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records import answer, reply, request, row
from transforms.records.quick import quick


@dataclass(frozen=True, slots=True)
class Plain:
    """As the standard library makes it."""

    a: int
    b: str
    c: float | None = None
    d: tuple[int, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    """The same, quick."""

    a: int
    b: str
    c: float | None = None
    d: tuple[int, ...] = ()


_VALUES = (st.integers(), st.text(), st.none() | st.floats(allow_nan=False), st.tuples(st.integers()))
_CALLS = st.integers(0, 4).flatmap(
    lambda taken: st.tuples(
        st.tuples(*_VALUES[:taken]),
        st.fixed_dictionaries({}, optional=dict(zip("abcde"[taken:], (*_VALUES[taken:], st.integers()), strict=True))),
    )
)


def _made(record: type, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        made = record(*args, **named)
    except TypeError:
        return TypeError
    return [getattr(made, one.name) for one in fields(made)], hash(made), repr(made).partition("(")[2]


@given(_CALLS)
def test_it_takes_what_the_dataclass_takes(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    """By place, by name, by default, with too little or too much: the same fields, hash and words, or a TypeError."""
    assert _made(Quick, *call) == _made(Plain, *call)


@given(*_VALUES)
def test_it_is_frozen_equal_and_of_its_own_class(a: int, b: str, c: float | None, d: tuple[int, ...]) -> None:
    """Once built it can't be changed; copies, replacements and pickles are equal and of the same class."""
    made = Quick(a, b, c, d)
    assert type(made) is Quick
    assert made == Quick(a, b, c, d) == replace(made, a=a) == pickle.loads(pickle.dumps(made))  # noqa: S301 - ours
    assert made != replace(made, a=a + 1)
    with pytest.raises(FrozenInstanceError):
        made.a = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del made.a


def test_it_looks_like_the_dataclass_from_outside() -> None:
    """Signature, names and annotations are the dataclass's."""
    assert str(signature(Quick)) == str(signature(Plain))
    assert Quick.__init__.__qualname__ == "Quick.__init__"


@pytest.mark.parametrize("module", [answer, reply, request, row], ids=lambda module: module.__name__)
def test_every_record_of_a_module_sets_each_field_to_its_own_value(module: ModuleType) -> None:
    """No field is left out or takes another's value, in whatever record."""
    for name, record in getmembers(module, isclass):
        if is_dataclass(record) and record.__module__ == module.__name__:
            marks = [object() for _ in fields(record)]
            made = record(*marks)
            assert [getattr(made, one.name) for one in fields(record)] == marks, name
            assert type(made) is record


def test_what_it_can_t_do_is_refused() -> None:
    """A default factory is the dataclass's business."""

    @dataclass(frozen=True, slots=True)
    class Listed:
        a: list[int] = field(default_factory=list)

    with pytest.raises(TypeError, match="Listed has a default factory"):
        quick(Listed)
