"""Where a run's files are, and its manifest as it is read back; `runs.py` writes it.

Apart from that, so that commands which only look at an output load no table library.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from transforms.records.errors import InternalError
from transforms.storage.gcs import matching
from transforms.storage.objects import is_remote, join, read_bytes

RUNNING = "running"
CRASHED = "crashed"

_COUNTS = {
    "rows": ("in", "enriched", "dead_lettered", "pending"),
    "calls": ("sent", "succeeded", "failed", "reused"),
    "tokens": ("input", "output"),
}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where the files of one run are; creates nothing."""

    output: str
    run_id: str

    @property
    def path(self) -> str:
        """The run's folder."""
        return join(self.output, "runs", self.run_id)

    @property
    def enriched(self) -> str:
        """Folder of the enriched rows."""
        return join(self.path, "enriched")

    @property
    def dead_letters(self) -> str:
        """Folder of the dead letters."""
        return join(self.path, "dead_letters")

    @property
    def audit(self) -> str:
        """Folder of the audit tables, each of which is a folder in it."""
        return join(self.path, "audit")

    def table(self, name: str) -> str:
        """Folder of one audit table."""
        return join(self.audit, name)

    @property
    def asked(self) -> str:
        """Folder of the run's own requests of provider batches, while it is under way."""
        return join(self.path, "asked")

    @property
    def totals(self) -> str:
        """Where the pipeline leaves its counts for the launcher, while the run is under way."""
        return join(self.path, "totals.json")

    @property
    def manifest(self) -> str:
        """The manifest's path."""
        return join(self.path, "manifest.json")

    @property
    def report(self) -> str:
        """The report's path."""
        return join(self.path, "report.html")

    @property
    def summary(self) -> str:
        """The summary's path."""
        return join(self.path, "summary.json")


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """Return a run's manifest.

    Raises:
        FileNotFoundError: there is no such run.
        InternalError: the file is damaged.
    """
    try:
        manifest = orjson.loads(read_bytes(folder.manifest))
        is_ours = manifest["run_id"] == folder.run_id
        _check_shape(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise InternalError(
            f"{folder.manifest} is damaged ({error}); restore it, or remove the run's folder"
        ) from error
    if not is_ours:
        raise InternalError(f"{folder.manifest} is of run {manifest['run_id']}; give the folder that name")
    return manifest


def _check_shape(manifest: dict[str, Any]) -> None:
    """Raise KeyError, TypeError, ValueError or ArithmeticError where what every reader relies on is not there."""
    _ = manifest["job"].keys(), manifest["versions"].keys()
    _texts(manifest, "run_id", "status", "job_name", "started_at")
    datetime.fromisoformat(manifest["started_at"])
    for file in (*manifest["files"], *manifest.get("ledger", ())):
        _texts(file, "path", "sha256")
        _ints(file, "bytes")
    if manifest["status"] == RUNNING:
        return
    datetime.fromisoformat(manifest["ended_at"])
    is_killed = manifest["status"] == CRASHED  # and left no outcomes of rows
    for part, names in _COUNTS.items():
        _ints(manifest["counts"][part], *names, may_lack=is_killed or part == "tokens")
    if manifest["cost_usd"] is not None:
        _texts(manifest, "cost_usd")
        if not Decimal(manifest["cost_usd"]).is_finite():
            raise ValueError("cost_usd is no amount")
    if (link := manifest["previous"]) is not None:
        _texts(link, "run_id", "manifest_sha256")


def _texts(found: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(found[name], str):
            raise TypeError(f"{name} is no text")


def _ints(found: dict[str, Any], *names: str, may_lack: bool = False) -> None:
    for name in names:
        value = found[name]
        if not (isinstance(value, int) or (may_lack and value is None)):
            raise TypeError(f"{name} is no count")


def list_runs(output: str) -> list[dict[str, Any]]:
    """Return the manifests of the output's runs, oldest first; [] where there is no output yet."""
    found = [read_manifest(RunFolder(output, name)) for name in run_ids(output)]
    return sorted(found, key=run_age)


def run_ids(output: str) -> list[str]:
    """Return the ids of the output's runs, sorted; [] where there is no output yet."""
    runs = join(output, "runs")
    if is_remote(runs):
        return sorted({PurePosixPath(path).parent.name for path in matching(join(runs, "*", "manifest.json"))})
    return sorted(path.parent.name for path in Path(runs).glob("*/manifest.json"))


def run_age(manifest: dict[str, Any]) -> tuple[str, str]:
    """Return what runs are sorted by: when a run began, and its id."""
    return manifest["started_at"], manifest["run_id"]
