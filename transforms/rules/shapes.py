"""What kind of value a column holds, inferred from JSON values.

A shape is a column type's name, or a `ListShape` or `StructShape` of shapes. Shapes of many values merge into one
that holds them all: integers widen to float, structs take the union of their members, and kinds that can't live
together become "json" (each value kept as JSON text), so that merging never fails and its result does not depend
on which rows came first, except for the order of struct members.
"""

from dataclasses import dataclass
from typing import Any

from transforms.records.settings import ColumnType

#: A struct with more members than this is a map with free keys; its column becomes JSON text.
MAX_MEMBERS = 200

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class ListShape:
    """A list whose items share a shape."""

    item: "Shape"


@dataclass(frozen=True, slots=True)
class StructShape:
    """An object with named members, in order of first appearance."""

    members: tuple[tuple[str, "Shape"], ...]


#: None is the shape of null: it merges into anything.
Shape = ColumnType | ListShape | StructShape | None

_SCALARS: dict[type, Shape] = {
    type(None): None,
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "float",
}


def infer_shape(value: Any) -> Shape:
    """Tell the shape of one JSON value. Integers beyond 64 bits are "json", so that no digit is lost."""
    if isinstance(value, list):
        item: Shape = None
        for member in value:
            item = merge_shapes(item, infer_shape(member))
        return ListShape(item)
    if isinstance(value, dict):
        if len(value) > MAX_MEMBERS:
            return "json"
        return StructShape(tuple((name, infer_shape(member)) for name, member in value.items()))
    if isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        return "json"
    return _SCALARS[type(value)]


def merge_shapes(left: Shape, right: Shape) -> Shape:
    """Give the narrowest shape that holds the values of both."""
    if left == right or right is None:
        return left
    if left is None:
        return right
    if {left, right} == {"integer", "float"}:
        return "float"
    if isinstance(left, ListShape) and isinstance(right, ListShape):
        return ListShape(merge_shapes(left.item, right.item))
    if isinstance(left, StructShape) and isinstance(right, StructShape):
        return _merge_structs(left, right)
    return "json"


def settle_shape(shape: Shape) -> ColumnType | ListShape | StructShape:
    """Turn what is still open after the last value into something a file can hold.

    Nulls only become "string"; a struct that never had a member becomes "json" (Parquet has no empty struct).
    """
    if shape is None:
        return "string"
    if isinstance(shape, ListShape):
        return ListShape(settle_shape(shape.item))
    if isinstance(shape, StructShape):
        if not shape.members:
            return "json"
        return StructShape(tuple((name, settle_shape(member)) for name, member in shape.members))
    return shape


def _merge_structs(left: StructShape, right: StructShape) -> Shape:
    members = dict(left.members)
    for name, shape in right.members:
        members[name] = merge_shapes(members.get(name), shape)
    return StructShape(tuple(members.items())) if len(members) <= MAX_MEMBERS else "json"
