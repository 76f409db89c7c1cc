"""Where a run's files are, and its manifest as it is read back; `runs.py` writes it.

Apart from that, so that commands which only look at an output load no table library.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from transforms.records.errors import InternalError
from transforms.storage.objects import read_bytes

RUNNING = "running"
CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where the files of one run are; creates nothing."""

    output: str
    run_id: str

    @property
    def path(self) -> str:
        """The run's folder."""
        return str(Path(self.output) / "runs" / self.run_id)

    @property
    def enriched(self) -> str:
        """Folder of the enriched rows."""
        return str(Path(self.path) / "enriched")

    @property
    def dead_letters(self) -> str:
        """Folder of the dead letters."""
        return str(Path(self.path) / "dead_letters")

    @property
    def audit(self) -> str:
        """Folder of the audit tables, each of which is a folder in it."""
        return str(Path(self.path) / "audit")

    def table(self, name: str) -> str:
        """Folder of one audit table."""
        return str(Path(self.audit) / name)

    @property
    def asked(self) -> str:
        """Folder of the run's own requests of provider batches, while it is under way."""
        return str(Path(self.path) / "asked")

    @property
    def totals(self) -> str:
        """Where the pipeline leaves its counts for the launcher, while the run is under way."""
        return str(Path(self.path) / "totals.json")

    @property
    def manifest(self) -> str:
        """The manifest's path."""
        return str(Path(self.path) / "manifest.json")

    @property
    def summary(self) -> str:
        """The summary's path."""
        return str(Path(self.path) / "summary.json")


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """Return a run's manifest.

    Raises:
        FileNotFoundError: there is no such run.
        InternalError: the file is damaged.
    """
    try:
        manifest = orjson.loads(read_bytes(folder.manifest))
        is_ours = manifest["run_id"] == folder.run_id
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(
            f"{folder.manifest} is damaged ({error}); restore it, or remove the run's folder"
        ) from error
    if not is_ours:
        raise InternalError(f"{folder.manifest} is of run {manifest['run_id']}; give the folder that name")
    return manifest


def list_runs(output: str) -> list[dict[str, Any]]:
    """Return the manifests of the output's runs, oldest first; [] where there is no output yet."""
    runs = Path(output) / "runs"
    found = [read_manifest(RunFolder(output, path.parent.name)) for path in runs.glob("*/manifest.json")]
    return sorted(found, key=run_age)


def run_age(manifest: dict[str, Any]) -> tuple[str, str]:
    """Return what runs are sorted by: when a run began, and its id."""
    return manifest["started_at"], manifest["run_id"]
