"""After each test of whole runs: every output that it left holds what `rowbeam verify` checks, but for damage on purpose."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.verify import verify_output
from transforms.storage.run_folder import RUNNING, RunFolder, read_manifest

#: Marks a test that damages its outputs on purpose; takes the reason.
MARK = "damages_outputs"


def outputs_below(folder: Path) -> list[Path]:
    """Return the output folders in which at least one run has ended."""
    found = sorted({path.parents[2] for path in folder.rglob("runs/*/manifest.json")})
    return [output for output in found if (output / "ledger").is_dir() and _has_ended(output)]


def findings(output: Path) -> list[str]:
    """Return what verify finds, a sentence each."""
    facts = verify_output(str(output))
    return [f"{check['name']}: {example}" for check in facts["checks"] for example in check["examples"]]


@pytest.fixture(autouse=True)
def _outputs_hold(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Verify every output below the test's folder, whatever the test looked at itself."""
    yield
    if request.node.get_closest_marker(MARK) is None:
        broken = {str(output.relative_to(tmp_path)): findings(output) for output in outputs_below(tmp_path)}
        assert {name: found for name, found in broken.items() if found} == {}


def _has_ended(output: Path) -> bool:
    folders = [RunFolder(str(output), path.parent.name) for path in output.glob("runs/*/manifest.json")]
    return any(read_manifest(folder)["status"] != RUNNING for folder in folders)
