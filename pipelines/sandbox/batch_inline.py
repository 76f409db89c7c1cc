"""Takes a batch's rows out of the JSON body that carries them inline, piece by piece as it arrives; pure.

Anthropic and OpenRouter take `{..., "requests": [{...}, {...}]}` of up to 256 MB (providers.md 4.4, 5.3). As Python
objects that would be gigabytes, so the body is cut at its brackets: what is held at any time is one row that has not
ended yet, and the body without its rows.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

_REST_OF_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_TO_BRACKET: Final = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+', re.DOTALL)
_ROWS_NEXT: Final = re.compile(rb'[{,\s]"requests"\s*:\s*\[\Z')
#: Around the rows there are a few names and settings.
_MOST_AROUND: Final = 1024 * 1024
#: How deep the body is nested inside the list of rows.
_IN_LIST: Final = 2


class InlineRows:
    """Cuts one body: feed it piece by piece, then finish."""

    __slots__ = ("_around", "_data", "_depth", "_in_list", "_in_row", "_in_string", "_place", "_separator", "_start")

    def __init__(self) -> None:
        self._around = bytearray()
        #: What came and is not dealt with before `_start`, and not looked at from `_place` on.
        self._data = b""
        self._start = self._place = 0
        self._depth = 0
        self._in_string = self._in_list = self._in_row = False
        self._separator = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the rows that end in this piece, each the bytes of one `{...}` as they came.

        A row's inside is not looked at: it may be no JSON.

        Raises:
            ValueError: `requests` holds something else than objects with commas between, or what is around the rows
                passes a megabyte.
        """
        self._data = self._data[self._start :] + piece
        self._place -= self._start
        self._start = 0
        while self._to_next_bracket():
            if self._data[self._place - 1] in b"{[":
                self._open()
            elif self._close():
                yield self._data[self._start : self._place]
                self._start = self._place
        if not self._in_list:
            self._keep_around()

    def finish(self) -> dict[str, Any]:
        """Return the body without its rows (`requests` is empty), its keys in the order in which they came.

        Raises:
            ValueError: the body ended too early, or is no JSON object.
        """
        if self._in_list:
            raise ValueError("the body ends inside requests")
        around = orjson.loads(bytes(self._around) + self._data[self._start :])
        if not isinstance(around, dict):
            raise ValueError("the body is no JSON object")  # noqa: TRY004 - the value is wrong, whatever its type
        return around

    def _to_next_bracket(self) -> bool:
        """Go behind the next bracket outside strings; tell whether there is one."""
        if self._in_string:
            self._skip(_REST_OF_STRING)
            # Neither the end of the string nor, after a lone backslash, the end of an escape has come yet.
            if self._data[self._place : self._place + 1] != b'"':
                return False
            self._place += 1
            self._in_string = False
        self._skip(_TO_BRACKET)
        if self._place == len(self._data):
            return False
        self._place += 1
        # A string that is not skipped goes on in the next piece.
        self._in_string = self._data[self._place - 1] == ord('"')
        if self._in_string:
            self._skip(_REST_OF_STRING)
        return not self._in_string

    def _skip(self, pattern: re.Pattern[bytes]) -> None:
        match = pattern.match(self._data, self._place)
        self._place = match.end() if match else self._place

    def _open(self) -> None:
        self._depth += 1
        if self._in_row:
            return
        if self._in_list:
            self._check_between(self._separator)
            self._in_row = True
        elif self._depth == _IN_LIST:
            self._keep_around()
            self._in_list = _ROWS_NEXT.search(self._around) is not None
            self._separator = b""

    def _close(self) -> bool:
        """Tell whether a row has ended."""
        self._depth -= 1
        if self._in_row:
            if self._depth > _IN_LIST:
                return False
            self._in_row, self._separator = False, b","
            return True
        if self._in_list:
            self._check_between(b"")
            self._in_list = False
        return False

    def _check_between(self, expected: bytes) -> None:
        """Check what stands before the bracket just passed, and take the bracket as the start of what comes."""
        found = self._data[self._start : self._place - 1].strip()
        if found != expected or (self._in_row is False and self._data[self._place - 1] == ord("[")):
            raise ValueError("requests: must be a list of objects")
        self._start = self._place - 1

    def _keep_around(self) -> None:
        self._around += self._data[self._start : self._place]
        self._start = self._place
        if len(self._around) > _MOST_AROUND:
            raise ValueError("the body is too large around its requests")
