"""The shape of a results line: what thousands of lines of one batch have in common, letter by letter.

Lines that answer the requests of a batch differ in ids, the answer's text, token counts and times only. A shape is
learned from one of them; a line that fits it holds the same JSON but for those, so that nothing of it has to be parsed
again. What does not fit to the letter (another key, a refusal, an error, a float, white space elsewhere, a letter that
is no UTF-8) is for whoever reads any line.
"""

import re
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from operator import itemgetter
from typing import Literal, NamedTuple

import orjson

from transforms.rules.json_tokens import TEXT, Token, tokens_of

_ID_KEYS = frozenset({"id", "custom_id", "request_id"})
_TEXT_KEYS = frozenset({"content", "text"})
_TIME_KEYS = frozenset({"created", "created_at", "completed_at"})
_USAGE_KEY = "usage"
#: So many different token counts are remembered as well-formed.
_USAGES_KEPT = 2_000

# Digits that JSON and its readers keep as they are: no sign, no leading zero, below 10**15.
_NUMBER = "(?>0|[1-9][0-9]{0,14}+)"
# Possessive throughout: a line that does not fit must cost no more than one that does.
_ID = "[A-Za-z0-9_-]{1,128}+"
_BRACES = r"\{(?>[^{}]*+(?>\{[^{}]*+\})?+)*+\}"
_ANY_ID, _ANY_NUMBER = re.compile(_ID), re.compile(_NUMBER)


class _Slot(Enum):
    """What may be in a place that lines differ in."""

    ID = auto()
    TEXT = auto()
    TIME = auto()
    USAGE = auto()


_PATTERNS = {_Slot.ID: _ID, _Slot.TEXT: TEXT, _Slot.TIME: _NUMBER, _Slot.USAGE: _BRACES}


class _Piece(NamedTuple):
    """A stretch of a line: as it stands there, as our JSON would write it, and the slot that it is, or None."""

    raw: str
    canonical: str
    slot: _Slot | None
    path: tuple[str, ...]


class FitLine(NamedTuple):
    """A line that fits a shape.

    Attributes:
        custom_id, request_id: the line's; request_id is None where its kind of line has none.
        text: the answer.
        usage: the token counts, as they stand in the line; "" where it has none.
        body: the body, as our JSON writes it.
        words: of what other lines have otherwise, all that letters may be in and a record holds, but for custom_id;
            each on a line of its own, as our JSON writes it.
    """

    custom_id: str
    request_id: str | None
    text: str
    usage: str
    body: str
    words: str


_new_fit = tuple.__new__


class LineShape:
    """One shape of lines; `learn` makes it.

    A shape is a row of literals with a slot between each two; a line fits when its slots hold what they may and the
    stretches between them are the literals.
    """

    def __init__(self, pieces: list[_Piece], body_path: tuple[str, ...]) -> None:
        """Put the shape together; ValueError where lines like it have to be read one by one."""
        slots = [piece for piece in pieces if piece.slot is not None]
        self._text = _only(slots, [number for number, piece in enumerate(slots) if piece.slot is _Slot.TEXT])
        self._custom_id = _only(slots, _at(slots, ("custom_id",)))
        request_ids = _at(slots, (*body_path[:1], "request_id"))
        self._request_id = _only(slots, request_ids) if request_ids else None
        self._usage = next((number for number, piece in enumerate(slots) if piece.slot is _Slot.USAGE), None)
        inside = [number for number, piece in enumerate(slots) if _is_inside(piece, body_path)]
        if self._text not in inside or len(inside) == 1:
            raise ValueError("the answer is not in the body, or nothing else of it varies")
        self._of_body = itemgetter(*inside)
        self._of_words = itemgetter(
            *(number for number, piece in enumerate(slots) if _is_word(piece, number in inside, body_path))
        )
        body = [piece for piece in pieces if _is_inside(piece, body_path)]
        self._body_format, self._raw_format = _format(body, "canonical"), _format(pieces, "raw")
        self._fits = _slots_pattern(pieces)
        usage = "" if self._usage is None else slots[self._usage].raw
        self._usage_fits = re.compile(_counts_pattern(usage))
        #: Token counts that were found well-formed, and how our JSON writes them; "" for as they came.
        self._usages: dict[str, str] = {}

    def fit(self, line: str) -> FitLine | None:
        """Read a line of this shape; None for any other."""
        found = self._fits.fullmatch(line)
        if found is None:
            return None
        slots = found.groups()
        # Comparing all of it at once takes a fifth of the time of a pattern that holds what is between the slots.
        if self._raw_format % slots != line:
            return None
        text, usage = slots[self._text], "" if self._usage is None else slots[self._usage]
        counts = self._usages.get(usage)
        if counts is None and (counts := self._counts(usage)) is None:
            return None
        if "\\" in text:
            try:
                text = orjson.loads(f'"{text}"')
            except orjson.JSONDecodeError:  # half of a surrogate pair
                return None
        mended: Sequence[str] = slots
        is_odd = "\\u" in slots[self._text] or "\\/" in slots[self._text]
        if counts or is_odd:
            mended = self._mended(slots, text if is_odd else None, counts)
        return _new_fit(
            FitLine,
            (
                slots[self._custom_id],
                None if self._request_id is None else slots[self._request_id],
                text,
                usage,
                self._body_format % self._of_body(mended),
                "\n".join(self._of_words(mended)),
            ),
        )

    def _mended(self, slots: tuple[str, ...], text: str | None, counts: str) -> list[str]:
        """Return the slots with a text that is escaped, and counts that are written, as our JSON does it."""
        mended = list(slots)
        if text is not None:
            mended[self._text] = orjson.dumps(text).decode()[1:-1]
        if self._usage is not None and counts:
            mended[self._usage] = counts
        return mended

    def altered(self, line: str) -> str:
        """Return a line of this shape that differs from `line`, which has it, wherever lines may differ."""
        found = self._fits.fullmatch(line)
        if found is None:
            raise ValueError("the line has another shape")
        slots = [f"{slot}7" for slot in found.groups()]
        slots[self._text] = 'another \\"text\\" \\u00e9'
        if self._usage is not None:
            counts = iter(range(11, 10_000, 7))
            slots[self._usage] = re.sub(
                r"(?<=[:\s])[0-9]+(?=[,\s}])", lambda _: str(next(counts)), found[self._usage + 1]
            )
        return self._raw_format % tuple(slots)

    def _counts(self, usage: str) -> str | None:
        """Return token counts as our JSON writes them, "" for as they are; None where they have another shape."""
        if self._usage is None:
            return ""
        if self._usage_fits.fullmatch(usage) is None:
            return None
        if len(self._usages) >= _USAGES_KEPT:
            self._usages = {}
        counts = orjson.dumps(orjson.loads(usage)).decode()
        self._usages[usage] = "" if counts == usage else counts
        return self._usages[usage]


def learn(line: str, body_path: tuple[str, ...]) -> LineShape | None:
    """Return the shape of a line, or None where lines like it have to be read one by one.

    Args:
        line: of results, without its newline.
        body_path: the keys that lead to the body of its response.
    """
    tokens = list(tokens_of(line))
    if "".join(f"{token.before}{token.text}{token.after}" for token in tokens) != line:
        return None
    try:
        shape = LineShape(list(_pieces(tokens)), body_path)
    except ValueError:
        return None
    if not _is_faithful(shape, line, body_path) or not _is_faithful(shape, shape.altered(line), body_path):
        return None
    return shape


def _is_faithful(shape: LineShape, line: str, body_path: tuple[str, ...]) -> bool:
    """Whether the shape gives the body of a line as our JSON writes it."""
    fit = shape.fit(line)
    try:
        body = orjson.loads(line)
        for key in body_path:
            body = body[key]
    except (ValueError, KeyError, TypeError):
        return False
    return fit is not None and orjson.dumps(body).decode() == fit.body


def _only(slots: list[_Piece], numbers: list[int]) -> int:
    if len(numbers) != 1 or sum(piece.slot is _Slot.USAGE for piece in slots) > 1:
        raise ValueError("the line has not one answer, one custom_id, one request id")
    return numbers[0]


def _at(slots: list[_Piece], path: tuple[str, ...]) -> list[int]:
    return [number for number, piece in enumerate(slots) if piece.path == path]


def _is_inside(piece: _Piece, body_path: tuple[str, ...]) -> bool:
    return piece.path[: len(body_path)] == body_path


def _is_word(piece: _Piece, is_inside: bool, body_path: tuple[str, ...]) -> bool:
    """Whether a slot may hold letters that get into a record otherwise than as its custom_id."""
    return piece.slot in (_Slot.ID, _Slot.TEXT) and (is_inside or piece.path == (*body_path[:1], "request_id"))


def _format(pieces: list[_Piece], form: Literal["raw", "canonical"]) -> str:
    return "".join("%s" if piece.slot else getattr(piece, form).replace("%", "%%") for piece in pieces)


def _slots_pattern(pieces: list[_Piece]) -> re.Pattern[str]:
    """Return the pattern whose groups are the slots, with as many letters between them as there are here."""
    pattern, between = "", 0
    for piece in pieces:
        if piece.slot is None:
            between += len(piece.raw)
        else:
            pattern, between = f"{pattern}.{{{between}}}({_PATTERNS[piece.slot]})", 0
    return re.compile(f"{pattern}.{{{between}}}", re.DOTALL)


def _counts_pattern(usage: str) -> str:
    """Return the pattern of token counts that differ from these in their numbers only."""
    tokens = list(tokens_of(usage))
    return "".join(
        re.escape(token.before) + (_NUMBER if _is_count(token) else re.escape(token.text)) + re.escape(token.after)
        for token in tokens
    )


def _pieces(tokens: list[Token]) -> Iterator[_Piece]:
    """Yield the pieces of a line, token counts as one; ValueError where it ends inside them."""
    rest = iter(tokens)
    for token in rest:
        if token.text != "{" or token.path[-1:] != (_USAGE_KEY,):
            yield from _piece(token)
            continue
        inside = [token.text + token.after]
        for last in rest:
            inside.append(last.before + last.text + last.after)
            if last.text == "}" and last.path == token.path:
                break
        else:
            raise ValueError("the line ends inside its token counts")
        raw = "".join(inside).rstrip()
        yield _Piece(token.before, "", None, token.path)
        yield _Piece(raw, raw, _Slot.USAGE, token.path)
        yield _Piece("".join(inside)[len(raw) :], "", None, token.path)


def _piece(token: Token) -> Iterator[_Piece]:
    slot = None if token.is_key else _slot(token)
    if slot is None:
        canonical = token.text if token.text in "{}[]:," else orjson.dumps(orjson.loads(token.text)).decode()
        yield _Piece(token.before + token.text + token.after, canonical, None, token.path)
        return
    quote = "" if slot is _Slot.TIME else '"'
    text = token.text[len(quote) : len(token.text) - len(quote)]
    yield _Piece(token.before + quote, quote, None, token.path)
    yield _Piece(text, text, slot, token.path)
    yield _Piece(quote + token.after, quote, None, token.path)


def _is_count(token: Token) -> bool:
    return not token.is_key and _ANY_NUMBER.fullmatch(token.text) is not None


def _slot(token: Token) -> _Slot | None:
    """Return which slot a value is, by its key and its form."""
    key = token.path[-1] if token.path else ""
    if token.text[0] != '"':
        return _Slot.TIME if key in _TIME_KEYS and _ANY_NUMBER.fullmatch(token.text) else None
    if key in _TEXT_KEYS:
        return _Slot.TEXT
    return _Slot.ID if key in _ID_KEYS and _ANY_ID.fullmatch(token.text[1:-1]) else None
