"""Whether an output is what its runs left: the chain of hashes, keys, rows, money and the ledger, from the files alone.

Needs no job file, sends nothing and changes nothing. Runs under way, and killed ones that nobody has sealed yet, are
left out and named.
"""

import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.verify_chain import check_chain, check_expected, walk
from pipelines.verify_counts import check_conservation, check_costs, load_rows
from pipelines.verify_files import check_files
from pipelines.verify_findings import Check, Scope
from pipelines.verify_ledger import check_batches, load_calls
from pipelines.verify_tables import open_tables
from transforms.records.errors import ConfigError, InternalError, RowbeamError
from transforms.storage.run_chain import head_link, head_sha256
from transforms.storage.run_folder import RUNNING, RunFolder, read_manifest, run_age


def verify_output(output: str, run_id: str | None = None, expect: str | None = None) -> dict[str, Any]:
    """Check an output.

    Args:
        output: the job's output folder.
        run_id: check the files of this run only (the chain of all runs all the same); None: all that have ended.
        expect: a head's sha256 that was noted earlier; it must be of this history or of its beginning.

    Returns:
        JSON values with stable keys: output, ok, head {run_id, sha256} or None, noted {name, after} or None, runs {checked, left_out},
        findings, checks [{name, ok, count, says, examples}], duration_s.

    Raises:
        ConfigError: there is no such output, or no such run that has ended.
    """
    began = time.monotonic()
    manifests, unreadable = _read_manifests(output)
    scope = _scope(output, manifests, run_id)
    head = _head(scope)
    history = walk(scope, head)
    checks = [unreadable, *check_chain(scope, history), *check_files(scope)]
    noted = None
    if expect is not None:
        check, noted = check_expected(history, expect)
        checks.append(check)
    checks += _check_tables(scope)
    count = sum(check.count for check in checks)
    return {
        "output": output,
        "ok": count == 0,
        "head": None if head is None else {"run_id": head["run_id"], "sha256": head_sha256(head)},
        "noted": noted,
        "runs": {
            "checked": [manifest["run_id"] for manifest in scope.checked],
            "left_out": [manifest["run_id"] for manifest in manifests if manifest["status"] == RUNNING],
        },
        "findings": count,
        "checks": [check.facts() for check in checks],
        "duration_s": round(time.monotonic() - began, 3),
    }


def _read_manifests(output: str) -> tuple[list[dict[str, Any]], Check]:
    check = Check("manifests", "every run has a manifest that can be read")
    runs = Path(output) / "runs"
    if not runs.is_dir():
        raise ConfigError(f"{output} holds no run; name the `output` folder of a job that has run")
    found = []
    for folder in sorted(path for path in runs.iterdir() if path.is_dir()):
        try:
            manifest = read_manifest(RunFolder(output, folder.name))
            if _names_answer(manifest["job"]):
                found.append(manifest)
            else:
                check.found(f"run {folder.name}: the job in its manifest.json has no answer.field: restore it")
        except FileNotFoundError:
            check.found(f"run {folder.name} has no manifest.json: restore it, or remove the folder")
        except RowbeamError as error:
            check.found(f"run {folder.name}: {error}")
    return sorted(found, key=run_age), check


def _names_answer(job: dict[str, Any]) -> bool:
    answer = job.get("answer")
    return isinstance(answer, dict) and isinstance(answer.get("field"), str)


def _scope(output: str, manifests: list[dict[str, Any]], run_id: str | None) -> Scope:
    closed = [manifest for manifest in manifests if manifest["status"] != RUNNING]
    checked = [manifest for manifest in closed if run_id in (None, manifest["run_id"])]
    if run_id is not None and not checked:
        known = ", ".join(manifest["run_id"] for manifest in closed[-5:]) or "none"
        raise ConfigError(f"{output} has no run {run_id} that has ended; its runs are: {known}")
    return Scope(output, manifests, closed, checked)


def _head(scope: Scope) -> dict[str, Any] | None:
    try:
        return head_link(scope.output, scope.manifests)
    except InternalError:  # a retention record is damaged, which the chain says
        return None


def _check_tables(scope: Scope) -> list[Check]:
    try:
        with open_tables(scope) as tables:
            loaded = [*load_rows(scope, tables), *load_calls(scope, tables)]
            asked = tables.ask()
            counted = [*check_conservation(scope, tables), *check_costs(scope, tables)]
            return [*asked, *counted, *loaded, *check_batches(scope, tables)]
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        check = Check("tables", "the audit tables can be read")
        check.found(f"the audit tables can't be read, so nothing in them was checked: {str(error).splitlines()[0]}")
        return [check]
