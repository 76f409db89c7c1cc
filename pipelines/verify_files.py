"""The files of a run against its manifest: there, whole, as they were, and no others."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.verify_findings import Check, Scope
from transforms.records.errors import InternalError
from transforms.storage.objects import sha256_file
from transforms.storage.parts import PENDING
from transforms.storage.run_chain import read_retention, retention_paths

#: What lies in a run's folder and is in no list: it is the list itself, or can be made again from what is listed.
_FOLDERS = ("enriched", "dead_letters", "audit")

#: (path relative to the output, sha256) -> what it became by dropping payloads.
_Rewritten = dict[tuple[str, str], set[str]]


def check_files(scope: Scope) -> list[Check]:
    """Check every listed file of the checked runs, and of the ledger's segments, and look for files in no list."""
    listed = Check("files", "every listed file is there with its size, rows and hash")
    unlisted = Check("unlisted", "nothing lies among the listed files that is in no list")
    rewritten = _rewritten(scope)
    for manifest in scope.checked:
        run_id = manifest["run_id"]
        for file in manifest["files"]:
            _check_file(scope, listed, run_id, f"runs/{run_id}/{file['path']}", file, rewritten)
        for segment in manifest.get("ledger", []):
            _check_file(scope, listed, run_id, segment["path"], segment, rewritten)
        for path in _strangers(scope, manifest):
            unlisted.found(f"run {run_id}: {path} is in no list; move it out of runs/{run_id}")
    return [listed, unlisted]


def _rewritten(scope: Scope) -> _Rewritten:
    found: _Rewritten = defaultdict(set)
    for path in retention_paths(scope.output):
        try:
            files = read_retention(scope.output, path)["files"]
        except InternalError:  # a finding of the chain's
            continue
        for file in files:
            if file["now"] is not None:
                found[file["path"], file["was"]["sha256"]].add(file["now"]["sha256"])
    return found


def _check_file(
    scope: Scope, check: Check, run_id: str, path: str, file: dict[str, Any], rewritten: _Rewritten
) -> None:
    whole = Path(scope.output) / path
    if not whole.is_file():
        check.found(f"run {run_id}: {path} is gone: restore it")
        return
    if scope.is_linked(path):
        check.found(f"run {run_id}: {path} is a symbolic link, or lies behind one: put the file itself there")
    digest, size = sha256_file(str(whole))
    if digest not in _allowed(path, file["sha256"], rewritten):
        shown = f"{size:,} bytes where {file['bytes']:,} were" if size != file["bytes"] else f"still {size:,} bytes"
        check.found(f"run {run_id}: {path} was changed ({shown}): restore it")
    elif (rows := _parquet_rows(whole)) not in (None, file.get("rows")):
        check.found(f"run {run_id}: {path} has {rows:,} rows, and the manifest lists {file.get('rows')}")


def _allowed(path: str, listed: str, rewritten: _Rewritten) -> set[str]:
    """Return the hashes a file may have: the listed one, and what retention records made of it, step by step."""
    allowed, new = {listed}, {listed}
    while new:
        new = {after for before in new for after in rewritten.get((path, before), ())} - allowed
        allowed |= new
    return allowed


def _parquet_rows(path: Path) -> int | None:
    if path.suffix != ".parquet":
        return None
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return -1


def _strangers(scope: Scope, manifest: dict[str, Any]) -> Iterator[str]:
    root = scope.folder(manifest).path
    listed = {file["path"] for file in manifest["files"]}
    for place in _FOLDERS:
        for folder, folders, names in os.walk(Path(root) / place):
            # What nobody reads: parts that a dying worker left, and files that never got their name.
            folders[:] = [name for name in folders if name != PENDING]
            # A link to a folder is no folder to walk, but a stranger.
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in [*names, *links]:
                path = (Path(folder) / name).relative_to(root).as_posix()
                if path not in listed and not name.startswith("."):
                    yield f"runs/{manifest['run_id']}/{path}"
