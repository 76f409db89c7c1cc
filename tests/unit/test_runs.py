"""A run's files say what it was, and a killed run is told from its ledger alone."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from tests.unit.storage_builders import RUN, make_call, make_ended, make_failed_call, make_opened
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind
from transforms.storage import runs
from transforms.storage.audit_rows import seal_run
from transforms.storage.ledger import SegmentWriter

_START = datetime(2026, 11, 18, 11, 0, tzinfo=UTC)
_SUMMARY = {
    "rows": {"in": 3, "enriched": 2, "dead_lettered": 1, "pending": 0},
    "calls": {"sent": 4, "succeeded": 2, "failed": 2, "reused": 0},
    "tokens": {"input": 400, "output": 80},
    "cost_usd": "0.0001",
    "duration_s": 1.5,
}


def _start(output: Path, run_id: str = RUN, minutes: int = 0) -> runs.RunFolder:
    folder = runs.RunFolder(str(output), run_id)
    job = {"name": "reviews", "model": {"name": "gpt-4o-mini"}}
    runs.start_run(
        folder, job=job, job_sha256="ab", runner="FnApiRunner", started_at=_START + timedelta(minutes=minutes)
    )
    return folder


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _append(output: Path, *records: Any) -> None:
    with SegmentWriter(str(output / "ledger" / "answers"), RUN) as writer:
        for record in records:
            writer.append(record)


def test_run_ids_sort_by_time() -> None:
    """The id is the UTC second and six hex digits, whatever the time zone given."""
    zone = datetime.fromisoformat("2026-11-21T07:34:12+02:00")
    assert runs.new_run_id(zone, lambda bits: 0x3F9A2C) == "20261121T053412-3f9a2c"
    assert runs.new_run_id(zone, lambda bits: 1) < runs.new_run_id(zone + timedelta(seconds=1), lambda bits: 0)
    assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{6}", runs.new_run_id(zone))


def test_a_started_run_is_unfinished_until_it_ends(tmp_path: Path) -> None:
    """The manifest says running, then the final status; latest.json then names the run."""
    assert runs.list_runs(str(tmp_path)) == []
    folder = _start(tmp_path)
    assert runs.unfinished_runs(str(tmp_path)) == [RUN]
    assert not (tmp_path / "latest.json").exists()
    runs.finish_run(folder, status="done", summary=_SUMMARY)
    assert runs.unfinished_runs(str(tmp_path)) == []
    assert [run["status"] for run in runs.list_runs(str(tmp_path))] == ["done"]
    latest = orjson.loads((tmp_path / "latest.json").read_bytes())
    digest = hashlib.sha256(Path(folder.manifest).read_bytes()).hexdigest()
    named = {"run_id": RUN, "status": "done", "manifest": f"runs/{RUN}/manifest.json", "manifest_sha256": digest}
    assert latest == named
    assert (tmp_path / latest["manifest"]).exists()


def test_a_run_id_is_used_once(tmp_path: Path) -> None:
    """Two runs never share a folder."""
    _start(tmp_path)
    with pytest.raises(InternalError, match="exists"):
        _start(tmp_path)


def test_the_manifest_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    """Sizes, rows and digests are of the files as they are; hidden files are no output."""
    folder = _start(tmp_path)
    Path(folder.dead_letters).mkdir(parents=True)
    letters = b'{"row_id": 1}\n{"row_id": 2}\n'
    (Path(folder.dead_letters) / "part.jsonl").write_bytes(letters)
    (Path(folder.dead_letters) / ".part.tmp").write_bytes(b"x")
    manifest = runs.finish_run(folder, status="done", summary=_SUMMARY, ended_at=_START + timedelta(seconds=90))
    assert manifest == runs.read_manifest(folder)
    assert manifest["files"][0] == {
        "path": "dead_letters/part.jsonl",
        "bytes": len(letters),
        "rows": 2,
        "sha256": hashlib.sha256(letters).hexdigest(),
    }
    others = [(file["path"], file["rows"]) for file in manifest["files"][1:]]
    assert others == [("audit/runs/runs.parquet", 1), ("summary.json", None)]
    assert manifest["versions"].keys() == {"rowbeam", "beam", "python"}
    assert manifest["model"] == {"name": "gpt-4o-mini"}
    assert manifest["ended_at"] == "2026-11-18T11:01:30.000000Z"
    assert orjson.loads(Path(folder.summary).read_bytes()) == _SUMMARY


def test_the_runs_table_holds_counts_and_money(tmp_path: Path) -> None:
    """One row, with the summary's numbers."""
    folder = _start(tmp_path)
    runs.finish_run(folder, status="done", summary=_SUMMARY)
    (row,) = pq.read_table(Path(folder.table("runs")) / "runs.parquet").to_pylist()
    assert (row["run_id"], row["job_name"], row["runner"]) == (RUN, "reviews", "FnApiRunner")
    assert (row["rows_in"], row["rows_enriched"], row["calls_sent"]) == (3, 2, 4)
    assert row["cost_usd"] == Decimal("0.0001")
    assert row["started_at"] == _START


def test_each_manifest_names_the_one_before(tmp_path: Path) -> None:
    """The chain goes by start time and shows when a run was changed or removed."""
    first = _start(tmp_path, "20261118T120000-ffffff")
    assert runs.finish_run(first, status="done", summary=_SUMMARY)["previous"] is None
    second = _start(tmp_path, "20261118T120000-000000", minutes=1)
    manifest = runs.finish_run(second, status="done", summary=_SUMMARY)
    assert manifest["previous"] == {
        "run_id": first.run_id,
        "manifest_sha256": hashlib.sha256(Path(first.manifest).read_bytes()).hexdigest(),
    }


def test_a_clock_that_was_put_back_does_not_break_the_chain(tmp_path: Path) -> None:
    """A run that begins, by the clock, before the one that ended last names that one all the same."""
    first = _start(tmp_path, "20261118T120000-aaaaaa", minutes=5)
    runs.finish_run(first, status="done", summary=_SUMMARY)
    for run_id, before in (
        ("20261118T115000-bbbbbb", first.run_id),
        ("20261118T121000-cccccc", "20261118T115000-bbbbbb"),
    ):
        folder = _start(tmp_path, run_id, minutes=-5 if run_id.endswith("b") else 10)
        assert runs.finish_run(folder, status="done", summary=_SUMMARY)["previous"]["run_id"] == before


def test_a_run_sealed_again_keeps_its_place_in_the_chain(tmp_path: Path) -> None:
    """Also when another run has named it meanwhile."""
    _start(tmp_path)
    _append(tmp_path, make_opened(), make_call(0))
    seal_run(str(tmp_path), RUN)
    after = _start(tmp_path, "20261118T130000-000000", minutes=60)
    assert runs.finish_run(after, status="done", summary=_SUMMARY)["previous"]["run_id"] == RUN
    before = _files(tmp_path)
    seal_run(str(tmp_path), RUN)
    assert _files(tmp_path) == before


def test_the_manifest_lists_the_segments_of_its_run_alone(tmp_path: Path) -> None:
    """Their hashes make the answers that later runs reuse as hard to change as the audit."""
    folder = _start(tmp_path)
    _append(tmp_path, make_opened(), make_call(0))
    with SegmentWriter(str(tmp_path / "ledger" / "answers"), "20261118T130000-000000") as writer:
        writer.append(make_call(1))
    (segment,) = runs.finish_run(folder, status="done", summary=_SUMMARY)["ledger"]
    data = (tmp_path / segment["path"]).read_bytes()
    assert Path(segment["path"]).name.startswith(f"{RUN}.")
    assert (segment["bytes"], segment["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"run_id":"another"}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    """The error gives the path."""
    folder = _start(tmp_path)
    Path(folder.manifest).write_bytes(content)
    with pytest.raises(InternalError, match=r"manifest\.json is"):
        runs.list_runs(str(tmp_path))


def test_a_killed_run_is_told_from_its_ledger(tmp_path: Path) -> None:
    """Calls, batches and members become tables; a batch without an end is interrupted; what stages left is replaced."""
    folder = _start(tmp_path)
    _append(tmp_path, make_opened(), make_call(0), make_call(1), make_call(2), make_ended())
    failed = {
        kind: make_failed_call(n, kind, batch_id="b2", call_id=f"b2-{n}")
        for n, kind in enumerate((FailureKind.REFUSAL, FailureKind.TIMEOUT))
    }
    _append(
        tmp_path, make_opened(4, "b2"), *failed.values(), make_call(2, batch_id="b2", call_id="b2-2", cost_usd=None)
    )
    left = Path(folder.table("calls")) / "part-00000-of-00002.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a table")

    found = seal_run(str(tmp_path), RUN)

    assert found == {"calls": 6, "batches": 2, "interrupted": 1, "cost_usd": "0.0001725"}
    assert not left.exists()
    calls = pq.read_table(folder.table("calls")).to_pylist()
    batches = {row["batch_id"]: row for row in pq.read_table(folder.table("batches")).to_pylist()}
    members = pq.read_table(folder.table("batch_members")).to_pylist()
    assert sorted(row["call_id"] for row in calls) == ["b1-000000", "b1-000001", "b1-000002", "b2-0", "b2-1", "b2-2"]
    assert {row["batch_id"] for row in calls} == batches.keys()
    assert len(members) == 7
    counts = ("status", "request_count", "succeeded_count", "failed_count", "pending_count")
    assert [batches["b1"][name] for name in counts] == ["completed", 3, 3, 0, 0]
    assert [batches["b2"][name] for name in counts] == ["interrupted", 4, 1, 1, 2]
    manifest = runs.read_manifest(folder)
    assert manifest["status"] == "crashed"
    assert manifest["ended_at"] == "2026-11-18T11:06:49.000000Z"
    assert manifest["counts"]["calls"] == {"sent": 6, "succeeded": 4, "failed": 2, "reused": None}
    assert manifest["counts"]["rows"]["in"] is None
    assert runs.unfinished_runs(str(tmp_path)) == []
    assert not (tmp_path / "latest.json").exists()


def test_sealing_again_writes_the_same_files(tmp_path: Path) -> None:
    """A seal that was itself killed can simply be done again."""
    _start(tmp_path)
    _append(tmp_path, make_opened(), make_call(0))
    first = seal_run(str(tmp_path), RUN), _files(tmp_path)
    assert (seal_run(str(tmp_path), RUN), _files(tmp_path)) == first


def test_a_run_killed_before_its_first_call_can_be_sealed(tmp_path: Path) -> None:
    """Empty tables, no calls, and an end at its start."""
    folder = _start(tmp_path)
    assert seal_run(str(tmp_path), RUN)["calls"] == 0
    manifest = runs.read_manifest(folder)
    assert manifest["ended_at"] == manifest["started_at"]
    assert pq.read_table(folder.table("calls")).num_rows == 0


def test_a_run_that_ended_by_itself_is_not_sealed(tmp_path: Path) -> None:
    """Its tables are its own."""
    runs.finish_run(_start(tmp_path), status="done", summary=_SUMMARY)
    with pytest.raises(InternalError, match="ended with status done"):
        seal_run(str(tmp_path), RUN)


def test_calls_without_their_batch_stop_the_seal(tmp_path: Path) -> None:
    """A missing segment is reported instead of leaving references that lead nowhere."""
    folder = _start(tmp_path)
    _append(tmp_path, make_call(0))
    with pytest.raises(InternalError, match="batch b1"):
        seal_run(str(tmp_path), RUN)
    assert runs.read_manifest(folder)["status"] == "running"
