"""A batch's request file and its members file in `ledger/requests/`: what was sent, line by line, and for whom.

Both hold the requests in the same order. The members file has one JSON object a line, which says where in the request
file the request's own line is, so that it can be fetched without reading the rest.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import itemgetter
from types import TracebackType
from typing import Self

import orjson

from transforms.records.errors import InternalError
from transforms.records.request import Lane
from transforms.storage.objects import join, local_copy, open_read

_LANES = {member.value: member for member in Lane}
_READ_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class MemberLine:
    """One request of a batch.

    Attributes:
        custom_id: what the provider sees.
        request_id, root_request_id, lane: as in its ModelRequest.
        prompt_sha256, template_sha256, variables_sha256, lookup_sha256: its PromptHashes.
        offset, length: bytes of its line in the request file, the newline not counted.
    """

    custom_id: str
    request_id: str
    root_request_id: str
    lane: Lane
    prompt_sha256: str
    template_sha256: str
    variables_sha256: str
    lookup_sha256: str | None
    offset: int
    length: int


_VALUES = itemgetter(*(field.name for field in fields(MemberLine)))


def requests_path(ledger: str, key: str) -> str:
    """Return the path of a batch's request file."""
    return join(ledger, "requests", f"{key}.jsonl")


def members_path(ledger: str, key: str) -> str:
    """Return the path of a batch's members file."""
    return join(ledger, "requests", f"{key}.members.jsonl")


def member_line(member: MemberLine) -> bytes:
    """Return the member's line, newline included."""
    return orjson.dumps(member, option=orjson.OPT_APPEND_NEWLINE)


def read_members(ledger: str, key: str, request_count: int | None = None) -> Iterator[MemberLine]:
    """Yield the requests of a batch in the order of its request file, in flat memory.

    Args:
        ledger: the ledger's folder.
        key: of the batch.
        request_count: how many there must be, where the caller knows: those that a cut file lacks would be sent again.

    Raises:
        InternalError: the file is missing or damaged, or holds another number; at the end, where it is too short.
    """
    for number, line in _lines(ledger, key, request_count):
        try:
            yield _member(line)
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(ledger, key, number, error) from error


def read_member_ids(ledger: str, key: str, request_count: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield (custom_id, request_id) of each request, as `read_members`, for a third of its time."""
    for number, line in _lines(ledger, key, request_count):
        try:
            member = orjson.loads(line)
            yield member["custom_id"], member["request_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(ledger, key, number, error) from error


def _lines(ledger: str, key: str, request_count: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield the numbered lines of a members file."""
    path, number = members_path(ledger, key), 0
    try:
        file = open_read(path)
    except FileNotFoundError as error:
        raise InternalError(f"{path} is missing; {_cure(key)}") from error
    with file:
        for number, line in enumerate(file, 1):
            yield number, line
    if request_count is not None and number != request_count:
        raise InternalError(f"{path} has {number:,} lines for {request_count:,} requests; {_cure(key)}")


def _damaged(ledger: str, key: str, number: int, error: Exception) -> InternalError:
    what = f"{members_path(ledger, key)}, line {number}, is damaged ({type(error).__name__}: {error})"
    return InternalError(f"{what}; {_cure(key)}")


def _cure(key: str) -> str:
    return f"restore the file from a backup: without it the results of batch {key} can't be told apart"


class RequestLines:
    """A batch's request file, open, for fetching single lines. A context manager."""

    def __init__(self, ledger: str, key: str) -> None:
        """Open the file.

        Raises:
            FileNotFoundError: the batch is not staged.
        """
        self._path = requests_path(ledger, key)
        self._descriptor = os.open(local_copy(self._path), os.O_RDONLY)

    def line(self, offset: int, length: int) -> bytes:
        """Return the line that a MemberLine points to, as it was sent.

        Raises:
            InternalError: the file is too short.
        """
        data = os.pread(self._descriptor, length, offset)
        if len(data) < length:
            raise InternalError(f"{self._path} is damaged (it ends before byte {offset + length}); restore it")
        return data

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def request_line(ledger: str, key: str, offset: int, length: int) -> bytes:
    """Return one line of a batch's request file; for more than one, `RequestLines` opens the file once.

    Raises:
        FileNotFoundError: the batch is not staged.
        InternalError: the file is too short.
    """
    with RequestLines(ledger, key) as lines:
        return lines.line(offset, length)


def _member(line: bytes) -> MemberLine:
    custom_id, request_id, root_request_id, lane, *rest = _VALUES(orjson.loads(line))
    return MemberLine(custom_id, request_id, root_request_id, _LANES[lane], *rest)
