"""Dropping the payloads of runs that ended long ago: what they hold shrinks to hashes, and a record says so.

For each run: the successors of its files are written beside them; then `runs/<id>/retention-<n>.json`, durably, names
each file's old and new hash; then the successors take the files' places. A kill on the way is made good by doing it
again, and at no moment is there a file that neither the manifest nor a record knows. The lease must be held.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from transforms.records.errors import InternalError
from transforms.rules.retention import drop_from_call, drop_row
from transforms.storage.batch_entry import BatchEntry
from transforms.storage.batch_ledger import list_entries, requests_path
from transforms.storage.ledger import segments
from transforms.storage.objects import create_if_absent, join, list_files, parent, sha256_file, sync_folder
from transforms.storage.retention_files import Rewritten, clear_hidden, put, removed, rewrite_calls, rewrite_lines
from transforms.storage.run_chain import RETENTION_PREFIX, head_link, read_retention, retention_paths
from transforms.storage.run_folder import RUNNING, RunFolder, list_runs
from transforms.storage.runs import versions

_Rewrite = Callable[..., Rewritten | None]


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What is dropped.

    Attributes:
        older_than: the age as it was given, such as 30d.
        before: runs that ended earlier are due.
        answers: also the answers' texts in the ledger, without which a request is asked again.
        dead_letters: also the rows in dead letters, without which they can't be replayed.
    """

    older_than: str
    before: datetime
    answers: bool = False
    dead_letters: bool = False

    def json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "older_than": self.older_than,
            "ended_before": _iso(self.before),
            "answers": self.answers,
            "dead_letters": self.dead_letters,
        }


@dataclass(frozen=True, slots=True)
class Due:
    """The runs of an output as a rule sees them.

    Attributes:
        runs: manifests of those whose payloads go, oldest first.
        waiting: (run_id, why) of those that are old enough and have to wait.
        newer: how many are not old enough.
        requests: request files of collected batches, by the run that collected them.
    """

    runs: list[dict[str, Any]]
    waiting: list[tuple[str, str]]
    newer: int
    requests: dict[str, list[str]]


def find_due(output: str, rule: RetentionRule) -> Due:
    """Return which runs are due: ended before the rule's moment, and with no batch that waits to be collected.

    Raises:
        InternalError: a manifest or a batch's file is damaged.
    """
    due, waiting, newer = [], [], 0
    ledger = join(output, "ledger")
    open_ids: dict[str, BatchEntry] = {}
    requests = defaultdict(list)
    for entry in list_entries(ledger):
        if entry.collected is None:
            open_ids[entry.staged.batch_id] = entry
        elif Path(path := requests_path(ledger, entry.key)).exists():
            requests[entry.collected.run_id].append(path)
    for manifest in list_runs(output):
        run_id = manifest["run_id"]
        if manifest["status"] == RUNNING:
            waiting.append((run_id, "it was killed and waits for the next run to close it"))
        elif datetime.fromisoformat(manifest["ended_at"]) >= rule.before:
            newer += 1
        elif held := _held_by(RunFolder(output, run_id), open_ids):
            waiting.append((run_id, f"batch {held.key[:12]} is not collected yet"))
        else:
            due.append(manifest)
    return Due(due, waiting, newer, requests)


def forget_run(
    output: str, run_id: str, requests: list[str], rule: RetentionRule, now: datetime, *, write: bool
) -> dict[str, Any] | None:
    """Drop the payloads of one run that is due; None when it holds none any more.

    Args:
        output: the output folder; its lease must be held.
        run_id: the run.
        requests: the request files of batches that it collected.
        rule: what goes.
        now: for the record.
        write: False: only count what would go.

    Returns:
        {"run_id", "record" (path or None), "files", "dropped" (texts), "bytes_before", "bytes_after"}.

    Raises:
        InternalError: a file is damaged; nothing of this run was changed.
    """
    folder = RunFolder(output, run_id)
    if write:
        for place in (folder.table("calls"), folder.dead_letters, join(output, "ledger", "answers")):
            clear_hidden(place)
    found = list(_rewritten(folder, requests, rule, write=write))
    if not found:
        return None
    if Path(folder.report).exists():
        # It quotes errors and answers; `rowbeam report` draws it anew from what is left.
        found.append(replace(removed(folder.report), dropped=0))
    record = _record(folder, rule, now, found) if write else None
    if write:
        for one in found:
            put(one)
        if requests:
            sync_folder(parent(requests[0]))
    return {
        "run_id": run_id,
        "record": record,
        "files": len(found),
        "dropped": sum(one.dropped for one in found),
        "bytes_before": sum(one.was.bytes for one in found),
        "bytes_after": sum(0 if one.now is None else one.now.bytes for one in found) if write else None,
    }


def _held_by(folder: RunFolder, open_ids: dict[str, BatchEntry]) -> BatchEntry | None:
    """Return a batch that is not collected and that the run has to do with."""
    for entry in open_ids.values():
        if entry.staged.run_id == folder.run_id:
            return entry
    for path in list_files(folder.table("batches"), ".parquet") if open_ids else ():
        for batch_id in pq.read_table(path, columns=["batch_id"])["batch_id"].to_pylist():
            if batch_id in open_ids:
                return open_ids[batch_id]
    return None


def _rewritten(folder: RunFolder, requests: list[str], rule: RetentionRule, *, write: bool) -> Iterator[Rewritten]:
    done = _done(folder, rule)
    rules: list[tuple[list[str], _Rewrite]] = [
        (list_files(folder.table("calls"), ".parquet"), rewrite_calls),
        (
            segments(join(folder.output, "ledger"), only_run=folder.run_id),
            partial(rewrite_lines, drop=partial(drop_from_call, answers=rule.answers)),
        ),
    ]
    if rule.dead_letters:
        rules.append((list_files(folder.dead_letters, ".jsonl"), partial(rewrite_lines, drop=drop_row)))
    for paths, rewrite in rules:
        for path in paths:
            if sha256_file(path)[0] not in done and (one := rewrite(path, write=write)):
                yield one
    yield from map(removed, requests)


def _done(folder: RunFolder, rule: RetentionRule) -> set[str]:
    """Return the hashes of files from which this rule, or a stricter one, has dropped all there was."""
    found = set()
    for path in retention_paths(folder.output, folder.run_id):
        record = read_retention(folder.output, path)
        was = record["rule"]
        if was["answers"] >= rule.answers and was["dead_letters"] >= rule.dead_letters:
            found |= {file["now"]["sha256"] for file in record["files"] if file["now"]}
    return found


def _record(folder: RunFolder, rule: RetentionRule, now: datetime, found: list[Rewritten]) -> str | None:
    """Write the run's next retention record; return its path, or None where records of an earlier try say it all."""
    files = [_file(folder.output, one) for one in found]
    paths = retention_paths(folder.output, folder.run_id)
    known = [file for path in paths for file in read_retention(folder.output, path)["files"]]
    if all(file in known for file in files):
        return None
    record = {
        "run_id": folder.run_id,
        "forgotten_at": _iso(now),
        "rule": rule.json(),
        "rowbeam": versions()["rowbeam"],
        "files": files,
        "previous": head_link(folder.output, list_runs(folder.output)),
    }
    # After the highest: one before it may be lost, and its number must not be given twice.
    number = 1 + max((int(Path(path).stem.removeprefix(RETENTION_PREFIX)) for path in paths), default=0)
    path = Path(folder.path) / f"{RETENTION_PREFIX}{number}.json"
    if not create_if_absent(str(path), orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)):
        raise InternalError(f"{path} exists; nothing of this run was dropped: run forget again")
    return path.relative_to(folder.output).as_posix()


def _file(output: str, one: Rewritten) -> dict[str, Any]:
    now = None if one.now is None else one.now.json()
    return {"path": Path(one.path).relative_to(output).as_posix(), "was": one.was.json(), "now": now}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
