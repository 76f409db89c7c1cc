"""EnrichRows in a pipeline of one's own: one run at a time, a budget that holds, and an output that verify takes."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines.enrich import EnrichRows
from pipelines.job import LoadedJob, load_job
from pipelines.run import OpenRun, opened
from pipelines.runners import beam_options
from pipelines.verify import verify_output
from tests.conformance.batch_jobs import Workshop
from tests.conformance.budget_chaos import spent_usd
from tests.conformance.jobs import beam_args
from transforms.records.errors import ConfigError, InternalError, OutputBusyError
from transforms.storage.runs import list_runs

_README = Path(__file__).resolve().parents[2] / "README.md"
_ROWS = 40


def _write(workshop: Workshop) -> Path:
    workshop.write("openai", _ROWS, batching={"mode": "per_request"}, budget={"max_usd": "0.0005"})
    return workshop.folder / "job.yaml"


def test_p6_a_budget_holds_in_a_pipeline_of_ones_own(workshop: Workshop, runner: str) -> None:
    """README's code as it stands: it stops before the overspend, and rows reach the steps that follow.

    The next pipeline counts what was spent, nothing is paid for twice, and nothing is wrong with the output.
    """
    job = _write(workshop)
    [code] = re.findall(r"^```python\n(.*?)^```", _README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own README
    stopped = names["run"].result
    assert (stopped.exit_code, stopped.summary["status"]) == (4, "budget_stop")
    spent = spent_usd(workshop.sandbox)
    assert 0 < spent == Decimal(stopped.summary["budget"]["charged_usd"]) <= Decimal("0.0005")
    labels = [line for path in Path().glob("labels*") for line in path.read_text(encoding="utf-8").splitlines()]
    assert 0 < len(labels) == stopped.summary["rows"]["enriched"] < _ROWS

    options = beam_options(beam_args(runner))
    with opened(load_job(str(job), ["budget.max_usd=1"]), runner=runner) as run, beam.Pipeline(options=options) as pipe:
        _ = pipe | "EnrichRows" >> EnrichRows(run.job)
    ended = run.result.summary
    assert (run.result.exit_code, ended["rows"]["enriched"]) == (0, _ROWS)
    assert Decimal(ended["budget"]["charged_usd"]) == spent_usd(workshop.sandbox)
    bill = workshop.sandbox.bill()
    assert bill["accepted"] == bill["distinct"] == _ROWS
    checked = verify_output(str(workshop.output.folder))
    assert (checked["ok"], len(checked["runs"]["checked"])) == (True, 2)


def _open_twice(loaded: LoadedJob, seen: list[OpenRun]) -> None:
    """Open a run, try to open another one beside it, and run no pipeline."""
    with opened(loaded) as first:
        seen.append(first)
        with pytest.raises(OutputBusyError, match=first.job.run_id), opened(loaded):
            pytest.fail("two at a time")
        with pytest.raises(InternalError, match="after the `with` block"):
            _ = first.result


def _fail_inside(loaded: LoadedJob, seen: list[OpenRun]) -> None:
    """Open a run, apply it and the one before, and fail."""
    with opened(loaded) as second:
        _ = beam.Pipeline() | EnrichRows(second.job)
        with pytest.raises(ConfigError, match="does not hold"):
            _ = beam.Pipeline() | EnrichRows(seen[0].job)
        raise RuntimeError("an error of mine")


def test_p2_two_pipelines_on_one_output_exclude_each_other(workshop: Workshop) -> None:
    """The second is told who holds it, EnrichRows applies to the open run alone, and a block that fails lets go."""
    loaded = load_job(str(_write(workshop)))
    seen: list[OpenRun] = []
    with pytest.raises(InternalError, match=r"no pipeline with EnrichRows\(run.job\) ended"):
        _open_twice(loaded, seen)
    with pytest.raises(ConfigError, match=f"^EnrichRows: run {seen[0].job.run_id} does not hold .* inside `with"):
        _ = beam.Pipeline() | EnrichRows(seen[0].job)
    with pytest.raises(RuntimeError, match="of mine"):
        _fail_inside(loaded, seen)
    assert [run["status"] for run in list_runs(str(workshop.output.folder))] == ["crashed", "running"]
    assert not (workshop.output.folder / "ledger" / "lease.json").exists()
    assert workshop.sandbox.bill()["accepted"] == 0
