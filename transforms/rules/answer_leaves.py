"""The leaves of an answer's type: each place that holds a plain value, with the values its schema allows there."""

from dataclasses import dataclass
from typing import Any

from transforms.rules.answer_type import AnswerType, follow_ref

#: The step into the items of an array.
ITEMS = None

_DEEPEST = 60


@dataclass(frozen=True, slots=True)
class Leaf:
    """One place of an answer.

    Attributes:
        steps: member names from the answer down; ITEMS goes into an array.
        kind: the kind of value there; never "object" or "array".
    """

    steps: tuple[str | None, ...]
    kind: str

    def path(self, field: str) -> str:
        """Return the place as people write it: review.about.topic, review.tags[]."""
        return field + "".join("[]" if step is ITEMS else f".{step}" for step in self.steps)


def find_leaves(kind: AnswerType, steps: tuple[str | None, ...] = ()) -> list[Leaf]:
    """Return the leaves of a type, in the order of its members."""
    if kind.kind == "object":
        return [leaf for name, member in kind.fields for leaf in find_leaves(member, (*steps, name))]
    if kind.kind == "array":
        return find_leaves(kind.item or AnswerType("string"), (*steps, ITEMS))
    return [Leaf(steps, kind.kind)]


def allowed_values(schema: dict[str, Any] | None, leaf: Leaf) -> list[Any] | None:
    """Return what `enum` or `const` allows at a leaf, null left out; None where the schema leaves it open."""
    here: Any = schema
    for step in leaf.steps:
        here = _resolved(here, schema)
        here = here.get("items") if step is ITEMS else (here.get("properties") or {}).get(step)
    here = _resolved(here, schema)
    if "const" in here:
        return [here["const"]]
    found = here.get("enum")
    return [value for value in found if value is not None] if isinstance(found, list) else None


def _resolved(schema: Any, root: dict[str, Any] | None) -> dict[str, Any]:
    """Follow references, and the one branch that is not null; {} where that leads nowhere."""
    for _ in range(_DEEPEST):
        if not isinstance(schema, dict):
            return {}
        branches = [each for each in schema.get("anyOf") or schema.get("oneOf") or () if each != {"type": "null"}]
        if "$ref" in schema:
            schema = follow_ref(schema, root or {})
        elif len(branches) == 1:
            schema = branches[0]
        else:
            return schema
    return {}
