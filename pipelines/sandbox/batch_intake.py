"""Reads a create that carries its rows inline: the rows into a spool, one a line; what is around them as an object."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipelines.sandbox.batch_http import BatchCall
from pipelines.sandbox.batch_inline import InlineRows
from pipelines.sandbox.batch_spool import Spool

_CHUNK = 1 << 16


@dataclass(slots=True)
class Intake:
    """A create as it came.

    Attributes:
        spool: its rows, one a line; only those before the first problem.
        around: the body without its rows (`requests` is empty), keys in the order in which they came; {} when the body
            can't be read.
        count: rows.
        size: bytes of the body.
        unreadable: why the body is no JSON object with a list of objects in it, or "".
        objection: what the check found wrong with the first row that it objected to, or "".
    """

    spool: Spool = field(default_factory=Spool)
    around: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    size: int = 0
    unreadable: str = ""
    objection: str = ""


async def take_rows(call: BatchCall, most_bytes: int, objection: Callable[[int, dict[str, Any]], str]) -> Intake:
    """Read the whole body, in flat memory; also one that is refused in the end, so that the client hears why.

    Args:
        call: the create.
        most_bytes: beyond so many nothing is kept; `Intake.size` tells.
        objection: is given each row with its number (0, 1, ...) and returns what is wrong with it, or "".
    """
    intake, reader = Intake(), InlineRows()
    async for piece in call.request.content.iter_chunked(_CHUNK):
        intake.size += len(piece)
        if intake.size > most_bytes or intake.unreadable:
            continue
        try:
            _keep(intake, reader.feed(piece), objection)
        except ValueError as error:
            intake.unreadable = str(error)
    if intake.size <= most_bytes and not intake.unreadable:
        try:
            intake.around = reader.finish()
        except ValueError as error:
            intake.unreadable = str(error)
    return intake


def _keep(intake: Intake, rows: Iterable[bytes], objection: Callable[[int, dict[str, Any]], str]) -> None:
    """Check and keep the rows of one piece; ValueError for one that is no JSON."""
    lines = bytearray()
    for row in rows:
        said = objection(intake.count, orjson.loads(row))
        intake.count += 1
        intake.objection = intake.objection or said
        if not intake.objection:
            # In JSON a raw line break can only be space between values.
            lines += row.replace(b"\n", b" ") + b"\n"
    intake.spool.write(lines)
