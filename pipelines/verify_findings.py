"""What the checks of `rowbeam verify` share: the checks with what they found, and the runs they look at."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transforms.storage.run_folder import CRASHED, RunFolder

#: Findings of one check that are kept in words; the others are counted.
MAX_EXAMPLES = 20
#: Ids that one finding names.
MAX_IDS = 3


@dataclass(slots=True)
class Check:
    """One thing that is checked. says: what is true when nothing is found; examples: a sentence for each finding."""

    name: str
    says: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def found(self, finding: str, count: int = 1) -> None:
        """Add a finding that stands for so many."""
        self.count += count
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(finding)

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "name": self.name,
            "ok": self.count == 0,
            "count": self.count,
            "says": self.says,
            "examples": self.examples,
        }


@dataclass(frozen=True)
class Scope:
    """What one verification looks at.

    Attributes:
        output: the output folder.
        manifests: of all runs that can be read, oldest first, those under way included.
        closed: of these, the runs that have ended.
        checked: of the closed ones, those whose own files are checked.
    """

    output: str
    manifests: list[dict[str, Any]]
    closed: list[dict[str, Any]]
    checked: list[dict[str, Any]]

    @property
    def ended(self) -> list[dict[str, Any]]:
        """The checked runs that came to an end of their own: a killed one has no outcomes of rows."""
        return [manifest for manifest in self.checked if manifest["status"] != CRASHED]

    def folder(self, manifest: dict[str, Any]) -> RunFolder:
        """Return a run's folder."""
        return RunFolder(self.output, manifest["run_id"])

    def is_linked(self, path: str) -> bool:
        """Say whether a symbolic link stands for a file of a run or of the ledger, or for a folder inside of these.

        What it leads to can change, or go, without a trace in the output; an output as a whole, and a run's folder, may
        lie elsewhere.
        """
        parts = Path(path).parts
        outer = 2 if parts[0] == "runs" else 1
        steps = (Path(self.output, *parts[:count]) for count in range(outer + 1, len(parts) + 1))
        return any(step.is_symlink() for step in steps)

    def listed(self, manifest: dict[str, Any], prefix: str) -> list[str]:
        """Return the paths of the files a run lists below a folder of its own, as far as they are there."""
        root = Path(self.folder(manifest).path)
        paths = [root / file["path"] for file in manifest["files"] if file["path"].startswith(prefix + "/")]
        return [str(path) for path in paths if path.is_file()]


def some(ids: list[Any], count: int) -> str:
    """Return ids for a sentence: the first few, and how many more there are."""
    shown = [str(one) for one in ids[:MAX_IDS]]
    more = count - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
