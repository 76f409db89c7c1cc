"""The tokens of a line of JSON, each with the keys that lead to it."""

import re
from collections.abc import Iterator
from typing import NamedTuple

#: The inside of a JSON string. Possessive: a text that does not fit costs no more than one that does.
TEXT = r'[^"\\\x00-\x1f]*+(?>\\["\\/bfnrtu][^"\\\x00-\x1f]*+)*+'
_BLANKS = r"[ \t\r\n]*+"
_TOKEN = re.compile(
    rf'({_BLANKS})("{TEXT}"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|[{{}}\[\],:]|true|false|null)({_BLANKS})'
)


class Token(NamedTuple):
    """A token of JSON: the blanks around it, and the keys that lead to it; "" for an element of an array."""

    before: str
    text: str
    after: str
    path: tuple[str, ...]
    is_key: bool


def tokens_of(line: str) -> Iterator[Token]:
    """Yield the tokens of a line of JSON; what is no JSON is not among them, or ends them."""
    path: list[str] = []
    place = 0
    while found := _TOKEN.match(line, place):
        before, text, after = found.groups()
        place = found.end()
        is_key = text[0] == '"' and line[place : place + 1] == ":"
        if is_key:
            path = [*path[:-1], text[1:-1]]
        elif text in "}]":
            path = path[:-1]
        # What stands between values belongs to what holds them.
        yield Token(before, text, after, tuple(path[:-1] if is_key or text in ":," else path), is_key)
        if text in "{[":
            path = [*path, ""]
