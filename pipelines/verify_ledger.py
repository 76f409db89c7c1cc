"""The ledger against the audit: the same calls, of known runs only, and a handle for each batch that was submitted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.verify_findings import Check, Scope
from pipelines.verify_tables import Tables
from transforms.records.errors import InternalError
from transforms.storage.batch_entry import BatchEntry, Handle, Phase
from transforms.storage.batch_fold import batch_keys, batch_path, file_names, read_entry, read_record
from transforms.storage.batch_members import members_path, requests_path
from transforms.storage.ledger_lines import BROKEN_LINE, parse_line
from transforms.storage.objects import list_files

_CHUNK = 100_000
_ID_START = b'{"call_id":"'
_CALL_END = b'"type":"call"}\n'
_SUBMITTED = """
    SELECT DISTINCT run_id, batch_key, provider_batch_id FROM batches WHERE provider_batch_id IS NOT NULL ORDER BY ALL
"""


def load_calls(scope: Scope, tables: Tables) -> list[Check]:
    """Load the ids of the calls in the ledger of the checked runs; look for segments of runs that are gone."""
    check = Check("ledger.segments", "the ledger's segments can be read and are of runs that are there")
    known = {manifest["run_id"] for manifest in scope.manifests}
    own = {manifest["run_id"] for manifest in scope.checked}
    for path in list_files(str(Path(scope.output) / "ledger" / "answers"), ".jsonl"):
        run_id = Path(path).name.split(".", 1)[0]
        if run_id not in known:
            check.found(f"ledger/answers/{Path(path).name} is of run {run_id}, which is gone: restore runs/{run_id}")
        elif run_id in own:
            _load_calls(tables, check, path, run_id)
    return [check]


def _load_calls(tables: Tables, check: Check, path: str, run_id: str) -> None:
    try:
        for ids in _call_ids(path):
            tables.add("recorded", run_id, call_id=ids)
    except BROKEN_LINE as error:
        check.found(f"run {run_id}: ledger/answers/{Path(path).name} is damaged ({error}): restore it")


def _call_ids(path: str) -> Iterator[list[str | None]]:
    """Yield the ids of a segment's calls; a last line that a kill tore is none."""
    ids: list[str | None] = []
    with Path(path).open("rb", buffering=1 << 20) as lines:
        for line in lines:
            if not line.endswith(_CALL_END):
                continue
            # A call's id is its first field; the rest of the line is not looked at.
            end = line.find(b'"', len(_ID_START))
            ids.append(
                line[len(_ID_START) : end].decode() if line.startswith(_ID_START) else parse_line(line)["call_id"]
            )
            if len(ids) >= _CHUNK:
                yield ids
                ids = []
    if ids:
        yield ids


def check_batches(scope: Scope, tables: Tables) -> list[Check]:
    """Check the ledger's batches against table batches of the checked runs."""
    check = Check("ledger.batches", "each batch has its files in the ledger, and a handle when it was submitted")
    ledger = str(Path(scope.output) / "ledger")
    known = {manifest["run_id"] for manifest in scope.manifests}
    handles: dict[str, set[str]] = {}
    for key in batch_keys(ledger):
        try:
            entry = read_entry(ledger, key)
            handles[key] = _handles(ledger, key)
        except InternalError as error:
            check.found(str(error))
            continue
        if entry is not None:
            _check_entry(check, ledger, entry, known)
    own = {manifest["run_id"] for manifest in scope.checked}
    for run_id, key, provider_batch_id in tables.rows(_SUBMITTED):
        if run_id in own and provider_batch_id not in handles.get(key, set()):
            check.found(
                f"run {run_id}: batch {key[:12]} was submitted as {provider_batch_id}, of which the ledger has no handle"
            )
    return [check]


def _handles(ledger: str, key: str) -> set[str]:
    names = [name for name in file_names(ledger, key) if name.startswith("handle-")]
    return {read_record(ledger, key, batch_path(ledger, key, name), Handle).provider_batch_id for name in names}


def _check_entry(check: Check, ledger: str, entry: BatchEntry, known: set[str]) -> None:
    staged, key = entry.staged, entry.key[:12]
    if staged.run_id not in known:
        check.found(f"batch {key} was staged by run {staged.run_id}, which is gone: restore runs/{staged.run_id}")
    if entry.phase in (Phase.SUBMITTED, Phase.ENDED) and entry.intent is None:
        check.found(f"batch {key} is {entry.phase} without an intent: restore ledger/intents")
    members = Path(members_path(ledger, entry.key))
    count = _line_count(members)
    if count != staged.request_count:
        check.found(f"batch {key}: {members.name} has {count} lines for {staged.request_count} requests: restore it")
    if entry.is_in_flight:
        _check_requests(check, Path(requests_path(ledger, entry.key)), staged.byte_count, key)


def _check_requests(check: Check, path: Path, byte_count: int, key: str) -> None:
    size: Any = path.stat().st_size if path.is_file() else "no"
    if size != byte_count:
        check.found(f"batch {key} is in flight, and {path.name} has {size} bytes where {byte_count} were: restore it")


def _line_count(path: Path) -> int:
    if not path.is_file():
        return 0
    with path.open("rb") as lines:
        return sum(1 for _ in lines)
