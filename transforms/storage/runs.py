"""A run's folder, and the files that say what the run was: manifest.json, summary.json, the output's latest.json.

The manifest is written with status "running" before anything is sent and replaced once, at the end, so a manifest
that says "running" while we hold the lease belongs to a run that was killed. Each final manifest names the sha256
of the one before, so a changed or missing run shows.
"""

import platform
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from transforms.records.errors import InternalError
from transforms.records.model_entry import ModelEntry
from transforms.storage.arrow_types import AUDIT_SCHEMAS, RUNS
from transforms.storage.objects import create_if_absent, join, list_files, open_read, sha256_file, write_atomic
from transforms.storage.run_chain import head_link, list_segments
from transforms.storage.run_folder import CRASHED, RUNNING, RunFolder, list_runs, read_manifest
from transforms.storage.tables import ParquetWriter, json_default

__all__ = [
    "CRASHED",
    "RUNNING",
    "RunFolder",
    "close_run",
    "finish_run",
    "list_runs",
    "new_run_id",
    "read_manifest",
    "run_row",
    "start_run",
    "unfinished_runs",
    "versions",
]

_RUN_ID_TIME = "%Y%m%dT%H%M%S"


def new_run_id(now: datetime, randbits: Callable[[int], int] = secrets.randbits) -> str:
    """Return a run id that sorts by time, such as 20261121T053412-3f9a2c (UTC)."""
    return f"{now.astimezone(UTC).strftime(_RUN_ID_TIME)}-{randbits(24):06x}"


def versions() -> dict[str, str | None]:
    """Return the versions that a manifest names; None for what runs from a source tree."""
    return {"rowbeam": _version("rowbeam"), "beam": _version("apache-beam"), "python": platform.python_version()}


def start_run(
    folder: RunFolder,
    *,
    job: dict[str, Any],
    job_sha256: str,
    runner: str,
    started_at: datetime,
    estimate: dict[str, Any] | None = None,
    model_entry: ModelEntry | None = None,
) -> dict[str, Any]:
    """Write the manifest with status "running" and return it.

    Args:
        folder: of a run id never used before.
        job: the job as it runs, overrides included, as JSON values; its `name` and `model` also get keys of their own.
        job_sha256: hex digest of the job's canonical form.
        runner: the Beam runner's name.
        started_at: with a time zone.
        estimate: what the run expects of tokens and dollars, as JSON values.
        model_entry: what the model manifest says of the model; None where it says nothing.

    Raises:
        InternalError: this output has a run of that id.
    """
    manifest = {
        "run_id": folder.run_id,
        "status": RUNNING,
        "job_name": job["name"],
        "job_sha256": job_sha256,
        "job": job,
        "model": job.get("model"),
        "model_entry": None if model_entry is None else model_entry.model_dump(mode="json"),
        "estimate": estimate,
        "runner": runner,
        "versions": versions(),
        "started_at": _iso(started_at),
        "ended_at": None,
        "counts": None,
        "cost_usd": None,
        "files": [],
        "ledger": [],
        "previous": None,
    }
    if not create_if_absent(folder.manifest, _dump(manifest)):
        raise InternalError(f"{folder.manifest} exists; start again (a new run id is drawn each time)")
    return manifest


def finish_run(
    folder: RunFolder, *, status: str, summary: dict[str, Any], ended_at: datetime | None = None
) -> dict[str, Any]:
    """Write the audit table runs, summary.json, the final manifest and latest.json, in this order.

    All other files of the run must be complete: the manifest lists them with their hashes.

    Args:
        folder: of a run that `start_run` began.
        status: how it ended.
        summary: what summary.json holds, as JSON values; the manifest takes over "rows" {"in", "enriched",
            "dead_lettered", "pending"}, "calls" {"sent", "succeeded", "failed", "reused"}, "tokens" {"input",
            "output"} and "cost_usd" (text or Decimal, or None).
        ended_at: with a time zone; now, if not given.

    Returns:
        The manifest.
    """
    manifest = close_run(folder, status=status, summary=summary, ended_at=ended_at or datetime.now(UTC))
    digest, _ = sha256_file(folder.manifest)
    latest = {"run_id": folder.run_id, "status": status, "manifest": f"runs/{folder.run_id}/manifest.json"}
    latest["manifest_sha256"] = digest
    write_atomic(join(folder.output, "latest.json"), _dump(latest))
    return manifest


def close_run(folder: RunFolder, *, status: str, summary: dict[str, Any], ended_at: datetime) -> dict[str, Any]:
    """Do what `finish_run` does, but leave latest.json as it is; given the same, writes the same bytes."""
    cost_usd = summary["cost_usd"]
    found = read_manifest(folder)
    if found["status"] not in (RUNNING, status):
        raise InternalError(f"run {folder.run_id} was closed by another process (status {found['status']})")
    manifest = found | {
        "status": status,
        "ended_at": _iso(ended_at),
        "counts": {part: summary[part] for part in ("rows", "calls", "tokens")},
        "cost_usd": None if cost_usd is None else format(Decimal(cost_usd), "f"),
        "budget": summary.get("budget"),
    }
    with ParquetWriter(join(folder.table("runs"), "runs.parquet"), RUNS) as table:
        table.append(run_row(manifest))
    write_atomic(folder.summary, _dump(summary))
    manifest["files"] = _described_files(folder)
    manifest["ledger"] = list_segments(folder.output, folder.run_id)
    manifest["previous"] = _previous(folder, found)
    write_atomic(folder.manifest, _dump(manifest))
    return manifest


def run_row(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the row of the audit table runs that a final manifest stands for."""
    rows, calls, tokens = (manifest["counts"][part] for part in ("rows", "calls", "tokens"))
    cost_usd = manifest["cost_usd"]
    return {
        "run_id": manifest["run_id"],
        "job_name": manifest["job_name"],
        "job_sha256": manifest["job_sha256"],
        "started_at": datetime.fromisoformat(manifest["started_at"]),
        "ended_at": datetime.fromisoformat(manifest["ended_at"]),
        "status": manifest["status"],
        "runner": manifest["runner"],
        "rows_in": rows["in"],
        "rows_enriched": rows["enriched"],
        "rows_dead_lettered": rows["dead_lettered"],
        "rows_pending": rows["pending"],
        "calls_sent": calls["sent"],
        "calls_succeeded": calls["succeeded"],
        "calls_failed": calls["failed"],
        "calls_reused": calls["reused"],
        "input_tokens": tokens["input"],
        "output_tokens": tokens["output"],
        "cost_usd": None if cost_usd is None else Decimal(cost_usd),
    }


def unfinished_runs(output: str) -> list[str]:
    """Return the ids of the runs whose manifest says running, oldest first; ask while holding the lease."""
    return [manifest["run_id"] for manifest in list_runs(output) if manifest["status"] == RUNNING]


def _previous(folder: RunFolder, found: dict[str, Any]) -> dict[str, Any] | None:
    # A run that is closed again stays where it is in the chain: others may name it by now.
    if found["status"] != RUNNING:
        previous: dict[str, Any] | None = found["previous"]
        return previous
    return head_link(folder.output, list_runs(folder.output), without=folder.run_id)


def _described_files(folder: RunFolder) -> list[dict[str, Any]]:
    folders = [folder.enriched, folder.dead_letters, *(folder.table(table) for table in sorted(AUDIT_SCHEMAS))]
    listed = [_described(folder, path) for place in folders for path in list_files(place)]
    return [*listed, _described(folder, folder.summary)]


def _described(folder: RunFolder, path: str) -> dict[str, Any]:
    digest, size = sha256_file(path)
    name = Path(path).relative_to(folder.path).as_posix()
    return {"path": name, "bytes": size, "rows": _row_count(path), "sha256": digest}


def _row_count(path: str) -> int | None:
    if path.endswith(".json"):
        return None
    if path.endswith(".parquet"):
        with open_read(path) as file:
            return pq.read_metadata(file).num_rows
    with open_read(path) as file:
        return sum(1 for _ in file)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _dump(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, default=json_default, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
