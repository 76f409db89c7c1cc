"""The chain that makes tampering visible: each closed run, and each retention record, names the sha256 of the one before.

A link is {"run_id", "manifest_sha256"} of a closed run and, where payloads were dropped after it and before the next run
closed, also {"retention", "retention_sha256"}: the path (relative to the output) and hash of the last such record. The
hash of the last link, the head, stands for the whole history: whoever noted it elsewhere sees any change of it.
"""

from pathlib import Path
from typing import Any

import orjson

from transforms.records.errors import InternalError
from transforms.storage.gcs import matching
from transforms.storage.objects import is_remote, join, list_files, read_bytes, sha256_file
from transforms.storage.run_folder import RUNNING, RunFolder

RETENTION_PREFIX = "retention-"


def head_link(output: str, manifests: list[dict[str, Any]], without: str | None = None) -> dict[str, Any] | None:
    """Return the link to the end of the chain, for the next run or retention record to name.

    The end is the closed run that no other names: a clock that was put back does not break the chain.

    Args:
        output: the output folder.
        manifests: of its runs, oldest first, as `list_runs` gives them.
        without: a run that is about to be closed.

    Raises:
        InternalError: a retention record is damaged.
    """
    closed = [one for one in manifests if one["status"] != RUNNING and one["run_id"] != without]
    named = {one["previous"]["run_id"] for one in closed if one["previous"]}
    ends = [one["run_id"] for one in closed if one["run_id"] not in named]
    if not ends:
        return None
    digest, _ = sha256_file(RunFolder(output, ends[-1]).manifest)
    link: dict[str, Any] = {"run_id": ends[-1], "manifest_sha256": digest}
    return link | _last_retention(output, ends[-1])


def head_sha256(link: dict[str, Any] | None) -> str | None:
    """Return the hash that stands for all that a link ends."""
    if link is None:
        return None
    digest: str = link.get("retention_sha256") or link["manifest_sha256"]
    return digest


def retention_paths(output: str, run_id: str = "*") -> list[str]:
    """Return the paths of the retention records, relative to the output, of all runs or of one; sorted."""
    pattern = f"runs/{run_id}/{RETENTION_PREFIX}*.json"
    found = matching(join(output, pattern)) if is_remote(output) else Path(output).glob(pattern)
    return sorted(Path(path).relative_to(output).as_posix() for path in found)


def read_retention(output: str, path: str) -> dict[str, Any]:
    """Return a retention record.

    Raises:
        InternalError: it is damaged.
    """
    try:
        record: dict[str, Any] = orjson.loads(read_bytes(join(output, path)))
        _ = record["rule"]["answers"], record["rule"]["dead_letters"], record["run_id"] + record["forgotten_at"]
        # A record always follows a closed run.
        _ = record["previous"]["run_id"] + record["previous"]["manifest_sha256"]
        for file in record["files"]:
            _ = file["path"] + file["was"]["sha256"], file["now"] and file["now"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(f"{join(output, path)} is damaged ({error}); restore it from a backup") from error
    return record


def list_segments(output: str, run_id: str) -> list[dict[str, Any]]:
    """Return path (relative to the output), size and hash of each ledger segment of a run that makes no more calls."""
    found = []
    for path in list_files(join(output, "ledger", "answers"), ".jsonl"):
        if Path(path).name.split(".", 1)[0] == run_id:
            digest, size = sha256_file(path)
            found.append({"path": Path(path).relative_to(output).as_posix(), "bytes": size, "sha256": digest})
    return found


def _last_retention(output: str, run_id: str) -> dict[str, str]:
    after = {path: record for path in retention_paths(output) if (record := _after(output, path, run_id)) is not None}
    named = {record["previous"].get("retention") for record in after.values()}
    ends = [path for path in after if path not in named]
    if not ends:
        return {}
    digest, _ = sha256_file(join(output, ends[-1]))
    return {"retention": ends[-1], "retention_sha256": digest}


def _after(output: str, path: str, run_id: str) -> dict[str, Any] | None:
    record = read_retention(output, path)
    return record if record["previous"] and record["previous"]["run_id"] == run_id else None
