"""Everything in a bucket, input, output and ledger: the same rows, the same proofs, nothing paid twice (P1, P2, P8, P10)."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.cli import app
from tests.conformance.batch_jobs import Workshop
from tests.conformance.jobs import plain_rows
from tests.unit.gcs_bucket import Bucket

_OUT = "gs://bucket/jobs/out"


def _put_input(workshop: Workshop, bucket: Bucket) -> list[str]:
    """Move a workshop's input into the bucket; returns the overrides that say so."""
    source = workshop.folder / "reviews.csv"
    bucket.store("bucket", "in/reviews.csv", source.read_bytes())
    source.unlink()
    return ["input.path=gs://bucket/in/*.csv", f"output={_OUT}"]


def _run(workshop: Workshop, overrides: list[str], **changes: Any) -> Any:
    from tests.conformance.jobs import run

    return run(workshop.folder / "job.yaml", *overrides, *(f"{key}={value}" for key, value in changes.items()))


def _told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run the command line tool, which ends well; returns its JSON."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        app([*arguments, "--json"], prog_name="rowbeam")
    assert not end.value.code, capsys.readouterr()
    told: dict[str, Any] = orjson.loads(capsys.readouterr().out.splitlines()[-1])
    return told


@pytest.mark.parametrize("mode", ["per_request", "provider_batch_api"])
def test_a_job_lives_in_a_bucket(
    workshop: Workshop, bucket: Bucket, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """Two runs, the second for nothing; every command that looks at an output finds what a local one shows."""
    workshop.write("openai", 40, batching={"mode": mode})
    overrides = _put_input(workshop, bucket)
    first = _run(workshop, overrides)
    assert first.summary["rows"] == {"in": 40, "enriched": 40, "dead_lettered": 0, "pending": 0}
    again = _run(workshop, overrides)
    assert again.summary["rows"]["enriched"] == 40
    assert again.summary["calls"]["sent"] == 0
    bill = workshop.sandbox.bill()
    assert (bill["accepted"] + bill["batch_rows"], bill["paid_twice"]) == (40, 0)

    names = bucket.names()
    assert not [name for name in names if "_pending" in name or "/asked/" in name or name.endswith("lease.json")]
    assert sum(name.endswith("manifest.json") for name in names) == 2
    assert first.summary["outputs"]["enriched"].startswith(_OUT)

    assert _told(capsys, "verify", _OUT)["ok"]
    status = _told(capsys, "status", _OUT)
    assert [run["status"] for run in status["runs"]] == ["done", "done"]
    assert status["ledger"]["settled_requests"] == 40
    story = _told(capsys, "explain", _OUT, "r7")
    assert story["row_id"] == "r7"
    assert _told(capsys, "diff", _OUT, "previous", "latest")["rows"]
    assert _told(capsys, "report", _OUT)["report"].startswith(_OUT)
    assert b"<html" in bucket.data(f"jobs/out/runs/{again.summary['run_id']}/report.html")


@pytest.mark.parametrize("mode", ["per_request", pytest.param("provider_batch_api", marks=pytest.mark.soak)])
def test_the_rows_are_those_of_a_local_output(workshop: Workshop, bucket: Bucket, mode: str) -> None:
    """The place makes no difference to a cell of them."""
    import duckdb

    workshop.write("anthropic", 25, batching={"mode": mode})
    here = workshop.run()
    there = _run(workshop, [*_put_input(workshop, bucket), "input.path=gs://bucket/in/reviews.csv"])
    copy = workshop.folder / "copy"
    copy.mkdir()
    prefix = f"jobs/out/runs/{there.summary['run_id']}/enriched/"
    for name in bucket.names():
        if name.startswith(prefix):
            (copy / Path(name).name).write_bytes(bucket.data(name))
    query = "from read_parquet('{}/*.parquet') order by id"
    local = duckdb.sql(query.format(here.summary["outputs"]["enriched"])).fetchall()
    assert duckdb.sql(query.format(copy)).fetchall() == local
    assert len(local) == 25


def test_one_run_at_a_time_and_a_budget_hold_in_a_bucket(workshop: Workshop, bucket: Bucket) -> None:
    """The lease is there while a run is, and spend is booked beside the ledger (P6)."""
    from pipelines.summary import EXIT_BUDGET

    workshop.write("openai", plain_rows(80), batching={"mode": "per_request"}, budget={"max_usd": 0.0006})
    overrides = _put_input(workshop, bucket)
    stopped = _run(workshop, overrides)
    assert stopped.exit_code == EXIT_BUDGET
    assert 0 < stopped.summary["rows"]["enriched"] < 80
    done = _run(workshop, overrides, **{"budget.max_usd": 1})
    assert done.summary["rows"]["enriched"] == 80
    assert any("/ledger/budget/" in name for name in bucket.names())


def test_a_bucket_that_refuses_stops_the_run_before_a_cent(
    workshop: Workshop, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit 2."""
    workshop.write("openai", 5)
    overrides = _put_input(workshop, bucket)
    sets = [part for override in overrides for part in ("--set", override)]
    bucket.refusal = 403
    with pytest.raises(SystemExit) as end:
        app(["run", str(workshop.folder / "job.yaml"), *sets], prog_name="rowbeam")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "grant this account" in said
    assert said.count("\n") == 1
    assert workshop.sandbox.bill()["accepted"] == 0
