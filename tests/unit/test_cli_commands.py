"""The command line itself: arguments, JSON keys, exit codes, one line per error, and what `--help` costs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from tests.unit.cli_outputs import RUN_1, make_call, row_end, write_run
from transforms.records.row import Outcome

ROOT = Path(__file__).resolve().parents[2]
JOB: dict[str, Any] = {
    "name": "reviews",
    "input": {"path": "rows.csv", "key": ["id"]},
    "output": "out",
    "prompt": {"template": "Rate: {{ row.text }}"},
    "answer": {"field": "label"},
    "model": {"provider": "openai", "name": "gpt-4o-mini-2024-07-18", "params": {"max_output_tokens": 64}},
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return a job file with three rows beside it."""
    (tmp_path / "rows.csv").write_text("id,text\nA,good\nB,bad\nC,good\n", encoding="utf-8")
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(JOB), encoding="utf-8")
    return path


def rowbeam(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environ}
    )


def test_help_imports_nothing_heavy() -> None:
    """Neither Beam nor Arrow, DuckDB, pydantic or rich is loaded, so that it takes a fraction of a second."""
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "heavy = {'apache_beam', 'pyarrow', 'duckdb', 'pydantic', 'rich', 'aiohttp', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(' '.join(sorted(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_help_is_quick() -> None:
    """The best of three starts is under 0.4 s (DESIGN section 9), unless the machine is busy; then twice that."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        assert rowbeam("--help").returncode == 0
        times.append(time.perf_counter() - began)
    assert min(times) < 0.8


def test_commands_that_run_no_pipeline_never_import_beam(job: Path) -> None:
    """A second's import is spared where nothing runs."""
    output = job.parent / "out"
    write_run(output, rows=[row_end("A", "q1", Outcome.ENRICHED)], calls=[make_call(0, "q1")])
    commands = [["plan", str(job)], ["status", str(output)], ["explain", str(output), "A"], ["batches", str(output)]]
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app\n"
        f"for command in {commands!r}:\n"
        "    done = CliRunner().invoke(app, command)\n"
        "    assert done.exit_code == 0, done.output\n"
        "    assert 'apache_beam' not in sys.modules, command"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version_is_one_line() -> None:
    """The package's own version, or where it runs from."""
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith("rowbeam ")


def test_commands_of_later_issues_are_absent() -> None:
    """What is not built is not offered."""
    shown = CliRunner().invoke(app, ["--help"]).output
    assert not [name for name in ("replay",) if f"  {name} " in shown]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["run"], "Missing argument", id="no-job"),
        pytest.param(["run", "job.yaml", "stray"], "after a lone --", id="stray-word"),
        pytest.param(["plan", "job.yaml", "--nonsense"], "No such option", id="unknown-option"),
        pytest.param(["nonsense"], "No such command", id="unknown-command"),
        pytest.param(["plan", "nowhere.yaml"], "rowbeam: nowhere.yaml: can't read the job file", id="no-such-file"),
        pytest.param(["status", "nowhere"], "rowbeam: nowhere is not the output of a job", id="no-such-output"),
        pytest.param(["explain", "nowhere", "A"], "rowbeam: nowhere holds no run", id="nothing-to-explain"),
        pytest.param(["sandbox", "--faults", "nonsense=1"], "rowbeam: fault plan", id="bad-faults"),
    ],
)
def test_what_is_wrong_with_the_command_line_ends_with_2(arguments: list[str], said: str) -> None:
    """Usage errors and our own both go to standard error, with the same code."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_wrong_job_is_one_line_for_each_key(job: Path) -> None:
    """No traceback; every wrong key is named."""
    done = CliRunner().invoke(app, ["plan", str(job), "--set", "pool.timeout=-1", "--set", "modle.name=x"])
    assert done.exit_code == 2
    lines = done.stderr.splitlines()
    assert lines == [
        "rowbeam: --set pool.timeout: -1 is not allowed; give a number greater than 0",
        "rowbeam: job.yaml: modle: unknown key; did you mean model?",
    ]


def test_a_missing_key_stops_a_run_before_anything_is_written(job: Path) -> None:
    """The variable is named, and there is no output folder."""
    done = rowbeam("run", str(job))
    assert done.returncode == 2
    assert done.stderr == "rowbeam: the environment variable OPENAI_API_KEY is not set; it must hold the API key\n"
    assert not (job.parent / "out").exists()


def test_ctrl_c_ends_with_130_and_one_line() -> None:
    """Also while imports are under way, where Python itself would end by the signal."""
    program = (
        "import os, signal; from pipelines.screen import Screen\n"
        "with Screen().guard():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    import time; time.sleep(5)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "rowbeam: stopped by you\n"


def test_secrets_and_tracebacks_of_a_failure() -> None:
    """A key in an exception's text is never shown; the traceback only for debugging."""
    program = (
        "import sys; from pipelines.screen import Screen\n"
        "screen = Screen(debug=len(sys.argv) > 1); screen.keep_secret(['canary-0123456789'])\n"
        "with screen.guard():\n"
        "    raise ValueError('the key canary-0123456789 is bad')"
    )
    for extra in ([], ["debug"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *extra], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 3
        assert "canary" not in done.stderr.replace("screen.keep_secret(['canary-0123456789'])", "")
        assert ("Traceback" in done.stderr) is bool(extra)
        assert "the key [redacted] is bad" in done.stderr


def test_plan_json_is_one_line_with_stable_keys(job: Path) -> None:
    """Nothing else is on standard output."""
    done = CliRunner().invoke(app, ["plan", str(job), "--json"])
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 1
    assert list(orjson.loads(done.stdout)) == [
        "job", "output", "provider", "model", "model_entry", "model_findings", "rows", "failures", "requests", "savings",
        "tokens", "cost_usd", "time", "batch", "budget", "route", "warnings",
    ]  # fmt: skip


def test_status_json_has_stable_keys(tmp_path: Path) -> None:
    """One line of JSON."""
    write_run(tmp_path, rows=[row_end("A", "q1", Outcome.ENRICHED)], calls=[make_call(0, "q1")])
    found = orjson.loads(CliRunner().invoke(app, ["status", str(tmp_path), "--json"]).stdout)
    assert list(found) == ["output", "job", "latest_run_id", "pending_rows", "lease", "ledger", "batches",
                           "estimate", "budget", "runs"]  # fmt: skip


def test_explain_json_has_stable_keys(tmp_path: Path) -> None:
    """One line of JSON; --run chooses the run."""
    write_run(tmp_path, rows=[row_end("A", "q1", Outcome.ENRICHED)], calls=[make_call(0, "q1")])
    found = orjson.loads(CliRunner().invoke(app, ["explain", str(tmp_path), "A", "--run", RUN_1, "--json"]).stdout)
    assert list(found) == [
        "row_id", "run_id", "run_status", "job_name", "outcome", "source", "values", "values_from", "row_hash", "failure",
        "pending_reason", "waits_in", "answer", "parse", "output_file", "request", "template", "model", "prompt", "reuse",
        "batches", "calls", "repair", "cost_usd", "calls_of_unknown_cost", "cost", "history", "timeline", "retentions",
        "notes", "proof",
    ]  # fmt: skip


def test_the_sandbox_serves_until_it_is_stopped() -> None:
    """It says in one line of JSON where it is, and ends with 0 when asked to."""
    command = [sys.executable, "-m", "pipelines.cli", "sandbox", "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = orjson.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert ready["port"] > 0
