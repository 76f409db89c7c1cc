"""Output files that become visible all at once: bundles write parts under `_pending/`, the end of the run names them.

A bundle that a runner throws away leaves a file that no one names, so that no row is written twice; a run that is
killed leaves only `_pending/`, which Parquet readers skip.
"""

import contextlib
import uuid
from pathlib import Path, PurePath
from typing import Protocol

import pyarrow as pa

from transforms.storage.json_lines import JsonLinesWriter
from transforms.storage.objects import exists, is_remote, join, list_files, move, remove, sync_folder
from transforms.storage.tables import ParquetWriter

PENDING = "_pending"


class PartWriter(Protocol):
    """What writes one part."""

    def append(self, row: dict[str, object]) -> None:
        """Add a row."""

    def close(self) -> None:
        """Finish the file."""

    def discard(self) -> None:
        """Drop the file."""


def new_part(folder: str, schema: pa.Schema | None) -> tuple[str, PartWriter]:
    """Open a part of a folder: Parquet with a schema, JSON lines without; returns its path and writer."""
    path = join(folder, PENDING, uuid.uuid4().hex + (".jsonl" if schema is None else ".parquet"))
    return path, JsonLinesWriter(path) if schema is None else ParquetWriter(path, schema)


def name_parts(folder: str, parts: list[str], empty: pa.Schema | None = None) -> list[str]:
    """Give the parts of a folder their final names and drop all else in it; returns the names.

    Args:
        folder: the output folder.
        parts: paths that `new_part` gave and whose writers were closed. The same list gives the same names, so
            this may be done again after a crash in the middle.
        empty: schema of an empty file to write when there is no part; None to write nothing.
    """
    names = []
    for place, part in enumerate(sorted(parts)):
        name = join(folder, f"part-{place:05d}{PurePath(part).suffix}")
        if exists(part):
            move(part, name)
        elif not exists(name):
            raise FileNotFoundError(f"{part} is gone and {name} is not there; run the job again")
        names.append(name)
    if not names and empty is not None:
        names.append(join(folder, "part-00000.parquet"))
        ParquetWriter(names[0], empty).close()
    for stale in set(list_files(folder)) - set(names):
        remove(stale)
    drop_pending(folder)
    if names:
        sync_folder(folder)
    return names


def drop_pending(folder: str) -> None:
    """Remove the parts that no one named; one that a dying worker adds meanwhile is left to lie."""
    pending = join(folder, PENDING)
    if is_remote(pending):
        for orphan in list_files(pending):
            remove(orphan)
        return
    for hidden in Path(pending).iterdir() if Path(pending).is_dir() else ():
        hidden.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        Path(pending).rmdir()
