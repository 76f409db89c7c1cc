r"""Templates that are nothing but text and columns, filled in without Jinja.

Most prompts are: "Label this review.\n\nReview: {{ row.text }}". Jinja's context for one rendering takes longer than
the whole of the rest. What `fill` gives is what Jinja gives; where it gives None, Jinja decides.
"""

from collections.abc import Mapping
from typing import NamedTuple

from jinja2 import nodes


class Column(NamedTuple):
    """The place of a column's value."""

    name: str


#: A template's texts and columns, in their order.
Pieces = tuple[str | Column, ...]


def plain_pieces(tree: nodes.Template) -> Pieces | None:
    """Return the pieces of a parsed template, or None for one that holds anything else than text and `row.<column>`."""
    pieces: list[str | Column] = []
    for statement in tree.body:
        if not isinstance(statement, nodes.Output):
            return None
        for node in statement.nodes:
            piece = _piece(node)
            if piece is None:
                return None
            pieces.append(piece)
    return tuple(pieces)


def _piece(node: nodes.Expr) -> str | Column | None:
    if isinstance(node, nodes.TemplateData):
        return node.data
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "row":
        return Column(node.attr)
    return None


def fill(pieces: Pieces, row: Mapping[str, object], max_chars: int) -> str | None:
    """Return the text for a row, or None where a column is missing or no text, or the text is longer than `max_chars`."""
    texts: list[str] = []
    for piece in pieces:
        value = row.get(piece.name) if type(piece) is Column else piece
        if type(value) is not str:
            return None
        texts.append(value)
    text = "".join(texts)
    return text if len(text) <= max_chars else None
