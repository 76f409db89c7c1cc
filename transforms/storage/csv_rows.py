"""CSV and TSV files: their header, and their rows as a stream.

RFC 4180 quoting; quoted fields may span lines. Every physical line ends in exactly one RawRow or DeadLetter, or
is empty (skipped). A stray quote can't swallow the rest of a file: when a record that spans several lines is bad,
only its first line becomes a dead letter and reading goes on at its second.
"""

import csv
from collections.abc import Callable, Iterator
from typing import Any

from transforms.records.errors import InputError
from transforms.records.failure import DeadLetter, FailureKind
from transforms.records.row import RawRow
from transforms.records.settings import InputSettings
from transforms.rules.values import show_value, text_converter, wrong_type
from transforms.storage.input_lines import MAX_LINE_BYTES, LineSource, overlong_letter
from transforms.storage.input_schema import InputFile, InputSchema, unread_line

#: A quoted record may span at most so many lines, and grow by lines up to so many bytes.
MAX_RECORD_LINES = 10_000
MAX_RECORD_BYTES = 4 << 20

# Within lines that a bad record has already claimed, less and less is looked ahead, down to this many lines: else
# a file in which every line opens a quote would be scanned once for each of its lines.
_MIN_LOOKAHEAD = 100

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# The limit of the csv module is 128 KiB for the whole process; ours is on lines and records.
csv.field_size_limit(MAX_LINE_BYTES + MAX_RECORD_BYTES)


def read_header(file: InputFile, settings: InputSettings) -> list[str] | None:
    """Give the names in a file's header line, or None for a file without any line.

    Raises:
        InputError: the header can't be read, or it names a column twice or not at all.
    """
    with LineSource(file) as lines:
        header = _CsvRecords(file, lines, _delimiter(file, settings)).header()
    if header is not None:
        _check_header(file.path, header)
    return header


def read_csv(file: InputFile, settings: InputSettings, schema: InputSchema) -> Iterator[RawRow | DeadLetter]:
    """Yield the rows of one file in order; bad lines as dead letters (UNDECODABLE, MALFORMED_ROW, WRONG_TYPE).

    Raises:
        OSError: the file can't be opened or read.
    """
    path = file.path
    names = schema.names
    width = len(names)
    delimiter = _delimiter(file, settings)
    typed = _typed_columns(schema)
    with LineSource(file) as lines:
        records = _CsvRecords(file, lines, delimiter, names)
        if settings.header:
            records.header()
        take, one_line = lines.take, _OneLine(delimiter)
        while (raw := take()) is not None:
            line = lines.number
            fields = one_line.fields(raw)
            if fields is None or len(fields) != width:
                parsed = records.parse(raw, width)
                if parsed is None:
                    continue
                if isinstance(parsed, DeadLetter):
                    yield parsed
                    continue
                fields = parsed
            values: dict[str, Any] = dict(zip(names, fields, strict=True))
            letter = _type_values(values, typed, path, line) if typed else None
            yield letter or RawRow(values, path, line)
        if (letter := lines.damage_letter()) is not None:
            yield letter


class _OneLine:
    """The fast way: records that are whole and sound on one line. The csv reader is kept: to make one takes longer than to use it."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._texts: list[str] = []
        self._reader = self._new_reader()

    def fields(self, raw: bytes) -> list[str] | None:
        """Give the fields of a record that is whole and sound on its one line; None for any other line."""
        if b"\0" in raw or len(raw) > MAX_LINE_BYTES:
            return None
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            return None
        if '"' not in text:
            return text.split(self._delimiter) if text and "\r" not in text else None
        self._texts.append(text)
        try:
            return next(self._reader)
        except (csv.Error, IndexError):  # IndexError: the record asks for another line
            self._texts.clear()
            self._reader = self._new_reader()
            return None

    def _new_reader(self) -> "Iterator[list[str]]":
        return csv.reader(iter(self._texts.pop, None), delimiter=self._delimiter, strict=True)


class _CsvRecords:
    """The slow way: records that span lines, and lines that are empty or broken."""

    def __init__(self, file: InputFile, lines: LineSource, delimiter: str, names: list[str] | None = None) -> None:
        self._path = file.path
        self._lines = lines
        self._delimiter = delimiter
        self._names = names
        self._lookahead = MAX_RECORD_LINES
        self._claimed_to = 0

    def header(self) -> list[str] | None:
        """Take the header, passing over empty lines; None at the end of the file.

        Raises:
            InputError: it can't be read.
        """
        while (raw := self._lines.take()) is not None:
            if raw.startswith(_UTF16_MARKS):
                raise InputError(f"{self._path} is UTF-16 text; convert it to UTF-8")
            parsed = self.parse(raw, None)
            if isinstance(parsed, DeadLetter):
                raise InputError(f"{self._path}: the header can't be read: {parsed.reason}")
            if parsed is not None:
                return parsed
        if (letter := self._lines.damage_letter()) is not None:
            raise InputError(f"{self._path}: the header can't be read: {letter.reason}")
        return None

    def parse(self, raw: bytes, width: int | None) -> list[str] | DeadLetter | None:
        """Give the fields of the record that begins with the line taken last, or why not; None for an empty line.

        Args:
            raw: that line.
            width: the number of fields it must have; None for any.
        """
        line = self._lines.number
        if not raw.strip(b"\r\n"):
            return None
        if len(raw) > MAX_LINE_BYTES:
            return overlong_letter(self._path, line, raw)
        if line > self._claimed_to:
            self._lookahead = MAX_RECORD_LINES
        taken = [raw]
        try:
            fields = next(csv.reader(self._feed(taken), delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            return self._refuse(taken, line, _explain(str(error), taken, self._lookahead))
        if width is not None and len(fields) != width:
            return self._refuse(taken, line, _explain_width(len(fields), width))
        return self._check_text(fields, taken, line)

    def _feed(self, taken: list[bytes]) -> Iterator[str]:
        """Yield lines as the record asks for them, up to the bounds; bad bytes pass as lone surrogates."""
        yield taken[0].decode("utf-8", "surrogateescape")
        size = 0
        while len(taken) < self._lookahead and (raw := self._lines.take()) is not None:
            taken.append(raw)
            size += len(raw)
            if size > MAX_RECORD_BYTES:
                return
            yield raw.decode("utf-8", "surrogateescape")

    def _refuse(self, taken: list[bytes], line: int, problem: str) -> DeadLetter:
        if len(taken) > 1:
            self._lines.give_back(taken[1:])
            self._claimed_to = max(self._claimed_to, line + len(taken) - 1)
            self._lookahead = max(self._lookahead // 2, _MIN_LOOKAHEAD)
        first = taken[0]
        if not _decodes(first):
            problem += "; it also holds bytes that are not UTF-8"
        return unread_line(self._path, line, first, FailureKind.MALFORMED_ROW, f"line {line} {problem}")

    def _check_text(self, fields: list[str], taken: list[bytes], line: int) -> list[str] | DeadLetter:
        raw = b"".join(taken)
        if not _decodes(raw):
            column = self._label(fields, _is_text)
            reason = f"line {line}, column {column}: bytes that are not UTF-8; save the file as UTF-8"
            return unread_line(self._path, line, raw, FailureKind.UNDECODABLE, reason)
        if b"\0" in raw:
            column = self._label(fields, lambda field: "\0" not in field)
            reason = f"line {line}, column {column}: a NUL byte; remove it"
            return unread_line(self._path, line, raw, FailureKind.MALFORMED_ROW, reason)
        return fields

    def _label(self, fields: list[str], is_good: Callable[[str], bool]) -> str:
        """Name the first column whose field is not good."""
        number = next(number for number, field in enumerate(fields) if not is_good(field))
        return self._names[number] if self._names else str(number + 1)


def _explain(error: str, taken: list[bytes], lookahead: int) -> str:
    if "unexpected end of data" in error:
        limit = len(taken) >= lookahead or sum(map(len, taken)) > MAX_RECORD_BYTES
        where = f"within {lookahead:,} lines or {MAX_RECORD_BYTES >> 20} MiB" if limit else "before the file ends"
        return f'opens a quote that does not close {where}; close it, or write a quote inside a field as ""'
    if "expected after" in error:
        return 'has text after a closing quote; quote the whole field and write each quote in it as ""'
    if "new-line character" in error:
        return "has a bare carriage return outside quotes; end lines with LF or CRLF, and quote the field"
    return f"is not CSV ({error})"


def _explain_width(found: int, width: int) -> str:
    cure = "quote fields that hold the delimiter" if found > width else "add the missing fields"
    return f"has {found} columns where {width} are expected; {cure}"


def _decodes(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_text(field: str) -> bool:
    try:
        field.encode()
    except UnicodeEncodeError:
        return False
    return True


def _typed_columns(schema: InputSchema) -> list[tuple[str, Callable[[str], Any]]]:
    converters = ((column.name, text_converter(column.shape)) for column in schema.columns)  # type: ignore[arg-type]
    return [(name, convert) for name, convert in converters if convert is not None]


def _type_values(
    values: dict[str, Any], typed: list[tuple[str, Callable[[str], Any]]], path: str, line: int
) -> DeadLetter | None:
    """Type the values in place; at the first that does not fit, give the dead letter with the values as read."""
    texts: dict[str, Any] = {}
    for name, convert in typed:
        text = values[name]
        texts[name] = text
        try:
            values[name] = convert(text)
        except ValueError as error:
            refused = wrong_type(line, name, text, str(error))
            return unread_line(path, line, {**values, **texts}, refused.kind, refused.reason)
    return None


def _check_header(path: str, header: list[str]) -> None:
    seen: set[str] = set()
    for number, name in enumerate(header, 1):
        if "\r" in name or "\n" in name:
            raise InputError(f"{path}: the header's column {number} holds a line break: {show_value(name)}")
        if not name.strip():
            raise InputError(f"{path}: the header's column {number} has no name; give it one")
        if name in seen:
            raise InputError(f'{path}: the header names "{name}" twice; rename one of the columns')
        seen.add(name)


def _delimiter(file: InputFile, settings: InputSettings) -> str:
    if settings.delimiter is not None:
        return settings.delimiter
    return "\t" if file.path.lower().removesuffix(".gz").endswith(".tsv") else ","
