"""Verify finds each change of an output, and names the run and what was changed; on an output as runs left it, nothing."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.screen import Screen
from pipelines.verify import verify_output
from pipelines.verify_command import verify_to_screen
from tests.unit.verify_outputs import KEY, KILLED, RUN_1, RUN_2, change_json, change_table, make_output, rehash
from transforms.records.errors import ConfigError
from transforms.storage.run_folder import RunFolder
from transforms.storage.runs import start_run

Change = Callable[[Path], Any]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output as runs leave it."""
    return make_output(tmp_path_factory.mktemp("verify") / "out")


@pytest.fixture
def output(pristine: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it to damage."""
    shutil.copytree(pristine, tmp_path / "out")
    return tmp_path / "out"


def _broken(facts: dict[str, Any]) -> dict[str, list[str]]:
    return {check["name"]: check["examples"] for check in facts["checks"] if not check["ok"]}


def _file(output: Path, pattern: str) -> Path:
    (path,) = output.glob(pattern)
    return path


def _flip(output: Path, pattern: str) -> None:
    path = _file(output, pattern)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _drop_line(output: Path, pattern: str, number: int) -> None:
    path = _file(output, pattern)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))


def _edit_summary(output: Path, run_id: str, **parts: Any) -> None:
    """Change a run's summary and manifest alike, with all hashes made anew."""
    folder = output / "runs" / run_id
    change_json(folder / "summary.json", lambda summary: summary.update(parts))
    counted = {name: value for name, value in parts.items() if name in ("rows", "calls", "tokens")}
    change_json(folder / "manifest.json", lambda manifest: manifest["counts"].update(counted))
    rehash(output)


def test_an_output_as_runs_left_it_holds(pristine: Path) -> None:
    """Killed runs, batches, reused answers and a torn line are no findings; the head stands for all of it."""
    facts = verify_output(str(pristine))
    assert (_broken(facts), facts["findings"], facts["ok"]) == ({}, 0, True)
    assert facts["runs"] == {"checked": [RUN_1, KILLED, RUN_2], "left_out": []}
    latest = orjson.loads((pristine / "latest.json").read_bytes())
    assert facts["head"] == {"run_id": RUN_2, "sha256": latest["manifest_sha256"]}


@pytest.mark.parametrize(
    ("change", "check", "named"),
    [
        pytest.param(lambda o: _flip(o, f"runs/{RUN_1}/enriched/*"), "files", f"runs/{RUN_1}/enriched/part-00000.parquet",
                     id="a byte of an enriched file"),
        pytest.param(lambda o: _flip(o, f"runs/{KILLED}/audit/calls/*"), "files", "audit/calls/sealed.parquet",
                     id="a byte of a killed run's calls"),
        pytest.param(lambda o: _file(o, f"runs/{RUN_2}/dead_letters/*").unlink(), "files", "part-00000.jsonl is gone",
                     id="a file removed"),
        pytest.param(lambda o: _drop_line(o, f"runs/{RUN_1}/dead_letters/*", 0), "dead_letters", "row-q2",
                     id="a dead letter removed"),
        pytest.param(lambda o: (o / "runs" / RUN_1 / "enriched" / "more.parquet").write_bytes(b"x"), "unlisted",
                     "enriched/more.parquet", id="a file added"),
        pytest.param(lambda o: change_json(o / "runs" / RUN_1 / "summary.json", lambda s: s.update(cost_usd="0")),
                     "files", "summary.json was changed", id="a summary"),
        pytest.param(lambda o: change_json(o / "runs" / RUN_1 / "manifest.json", lambda m: m.update(job_name="x")),
                     "chain", f"run {RUN_1}: manifest.json was changed", id="an earlier manifest"),
        pytest.param(lambda o: change_json(o / "runs" / RUN_2 / "manifest.json", lambda m: m.update(job_name="x")),
                     "latest", f"run {RUN_2}: manifest.json was changed", id="the newest manifest"),
        pytest.param(lambda o: (o / "runs" / RUN_1 / "manifest.json").write_bytes(b"{"), "manifests", RUN_1,
                     id="a manifest that can't be read"),
        pytest.param(lambda o: (o / "runs" / KILLED / "manifest.json").unlink(), "manifests",
                     f"run {KILLED} has no manifest.json", id="a manifest removed"),
        pytest.param(lambda o: shutil.rmtree(o / "runs" / KILLED), "chain", f"run {KILLED} before it, and that run is gone",
                     id="a run removed"),
        pytest.param(lambda o: shutil.rmtree(o / "runs" / RUN_2), "latest", f"names run {RUN_2}", id="the newest run removed"),
        pytest.param(lambda o: shutil.rmtree(o / "runs" / RUN_2), "ledger.segments", f"is of run {RUN_2}, which is gone",
                     id="the newest run removed, by its calls"),
        pytest.param(lambda o: (o / "latest.json").unlink(), "latest", "latest.json is gone", id="latest.json removed"),
        pytest.param(lambda o: change_json(o / "latest.json", lambda x: x.update(status="broken")), "latest", "as broken",
                     id="latest.json edited"),
        pytest.param(lambda o: (o / "latest.json").write_bytes(b"[]"), "latest", "can't be read", id="latest.json damaged"),
        pytest.param(lambda o: _flip(o, f"ledger/answers/{RUN_1}*"), "files", f"ledger/answers/{RUN_1}",
                     id="a byte of the ledger"),
        pytest.param(lambda o: _drop_line(o, f"ledger/answers/{RUN_1}*", 2), "ledger.calls", "b1-000000",
                     id="a call taken out of the ledger"),
        pytest.param(lambda o: _file(o, f"ledger/answers/{RUN_1}*").unlink(), "files", "is gone", id="a segment removed"),
        pytest.param(lambda o: _file(o, f"ledger/batches/{KEY}/handle-0.json").unlink(), "ledger.batches", "no handle",
                     id="a handle removed"),
        pytest.param(lambda o: _file(o, f"ledger/batches/{KEY}/staged.json").unlink(), "ledger.batches", "staged.json is missing",
                     id="a batch's first file removed"),
        pytest.param(lambda o: _drop_line(o, f"ledger/requests/{KEY}.members.jsonl", 0), "ledger.batches", "1 lines for 2",
                     id="a member removed"),
    ],
)  # fmt: skip
def test_each_change_is_found_and_named(output: Path, change: Change, check: str, named: str) -> None:
    """By hashes, without looking at what the files mean."""
    change(output)
    found = _broken(verify_output(str(output)))
    assert any(named in finding for finding in found[check]), found


def _first(key: str, value: object) -> Callable[[list[dict[str, Any]]], None]:
    return lambda rows: rows[0].update({key: value})


_TWICE: Callable[[list[dict[str, Any]]], None] = lambda rows: rows.append(rows[0])  # noqa: E731


@pytest.mark.parametrize(
    ("run_id", "table", "change", "check", "named"),
    [
        pytest.param(RUN_1, "calls", _TWICE, "calls.call_id", "b1-000000", id="a call twice"),
        pytest.param(RUN_1, "calls", list.pop, "rows.call_id", "row-q3", id="a call removed"),
        pytest.param(RUN_1, "calls", list.pop, "ledger.calls", "b1-000002", id="a call removed, by the ledger"),
        pytest.param(RUN_1, "calls", _first("batch_id", "other"), "calls.batch_id", "b1-000000", id="a call's batch"),
        pytest.param(RUN_1, "calls", _first("custom_id", "other"), "calls.custom_id", "b1-000000", id="a call's member"),
        pytest.param(RUN_1, "calls", _first("run_id", "other"), "calls.run_id", "run other", id="a call's run"),
        pytest.param(RUN_1, "calls", _first("call_index", 9), "calls.call_index", "b1", id="a call's number"),
        pytest.param(RUN_1, "calls", _first("root_request_id", "other"), "calls.root_request_id", "b1-000000",
                     id="what a call was for"),
        pytest.param(RUN_1, "calls", _first("cost_usd", 1), "costs", f"run {RUN_1}: its calls come to", id="a call's cost"),
        pytest.param(RUN_1, "calls", _first("cost_usd", None), "costs", "1 calls have no known cost", id="a cost unknown"),
        pytest.param(RUN_1, "calls", _first("input_tokens", 7), "costs", "207 + 60 tokens", id="a call's tokens"),
        pytest.param(RUN_1, "calls", _first("status", "ERROR"), "costs", "(1 ok, 2 failed)", id="a call's status"),
        pytest.param(RUN_1, "runs", _first("cost_usd", 1), "costs", "table runs says", id="a run's cost"),
        pytest.param(RUN_1, "runs", list.clear, "rows.run_id", "row-q1", id="a run out of its table"),
        pytest.param(RUN_1, "runs", _TWICE, "runs.run_id", RUN_1, id="a run twice"),
        pytest.param(RUN_1, "rows", _TWICE, "rows.row_id", "row-q1", id="a row twice"),
        pytest.param(RUN_1, "rows", list.pop, "conservation", "the manifest says 3 in", id="a row removed"),
        pytest.param(RUN_1, "rows", _first("outcome", "pending"), "conservation", "1 pending", id="a row's outcome"),
        pytest.param(RUN_1, "rows", _first("request_id", "other"), "enriched", "other", id="a row's request"),
        pytest.param(RUN_1, "rows", _first("request_id", "other"), "rows.request_id", "row-q1", id="a request of no batch"),
        pytest.param(RUN_1, "rows", _first("call_id", None), "rows.call_id", "row-q1", id="an answer without a call"),
        pytest.param(RUN_2, "rows", _first("answered_in_run_id", RUN_2), "rows.answered_in_run_id", "row-q1",
                     id="where a row was answered"),
        pytest.param(RUN_2, "batches", _first("provider_batch_id", "batch_9"), "ledger.batches", "batch_9",
                     id="a batch's id at the provider"),
        pytest.param(RUN_2, "batches", _first("run_id", "other"), "batches.run_id", "bb", id="a batch's run"),
        pytest.param(RUN_2, "batches", _TWICE, "batches.batch_id", "bb", id="a batch twice"),
        pytest.param(RUN_2, "batch_members", list.pop, "batches.request_count", "bb", id="a member removed"),
        pytest.param(RUN_2, "batch_members", _first("ordinal", 5), "batch_members", "bb", id="a member's place"),
        pytest.param(RUN_2, "batch_members", _first("batch_id", "zz"), "batch_members", "zz", id="a member's batch"),
    ],
)  # fmt: skip
def test_a_table_that_was_changed_with_all_hashes_made_anew_contradicts_others(
    output: Path, run_id: str, table: str, change: Change, check: str, named: str
) -> None:
    """Keys, sums and the ledger still tell, where the hashes do not."""
    change_table(output, run_id, table, change)
    rehash(output)
    found = _broken(verify_output(str(output)))
    assert not found.keys() & {"chain", "files", "latest"}
    assert any(named in finding for finding in found[check]), found


def test_counts_that_were_changed_in_manifest_and_summary_contradict_the_tables(output: Path) -> None:
    """Rows and costs are counted, not believed."""
    _edit_summary(output, RUN_1, rows={"in": 4, "enriched": 3, "dead_lettered": 1, "pending": 0})
    assert _broken(verify_output(str(output))).keys() == {"conservation"}


def test_history_rewritten_whole_shows_only_against_a_head_noted_elsewhere(output: Path) -> None:
    """Whoever may write files can make all hashes anew; --expect tells, and takes the head of any earlier state."""
    noted = verify_output(str(output))["head"]["sha256"]
    assert verify_output(str(output), expect=noted.upper())["noted"] == {"name": f"run {RUN_2}", "after": 0}
    earlier = orjson.loads((output / "runs" / RUN_2 / "manifest.json").read_bytes())["previous"]["manifest_sha256"]
    assert verify_output(str(output), expect=earlier)["noted"] == {"name": f"run {KILLED}", "after": 1}

    change_json(output / "runs" / RUN_1 / "manifest.json", lambda manifest: manifest.update(job_name="another"))
    rehash(output)
    assert verify_output(str(output))["ok"]
    facts = verify_output(str(output), expect=noted)
    assert (facts["ok"], facts["noted"]) == (False, None)
    assert "history was rewritten" in _broken(facts)["expect"][0]
    assert "is no sha256" in _broken(verify_output(str(output), expect="abc"))["expect"][0]


def test_a_run_that_was_put_in_is_in_no_chain(output: Path) -> None:
    """It names a run before it, and none names it."""
    forged = "20261002T090000-00000f"
    shutil.copytree(output / "runs" / RUN_2, output / "runs" / forged)
    change_json(
        output / "runs" / forged / "manifest.json", lambda m: m.update(run_id=forged, started_at="2026-10-02T09:00")
    )
    found = _broken(verify_output(str(output)))
    assert any(f"run {forged} is not in the chain" in finding for finding in found["chain"]), found


def test_one_run_can_be_looked_at_alone(output: Path) -> None:
    """Damage of another's files is not its; an unknown run is an error."""
    _flip(output, f"runs/{RUN_1}/enriched/*")
    facts = verify_output(str(output), run_id=RUN_2)
    assert (facts["ok"], facts["runs"]["checked"]) == (True, [RUN_2])
    assert not verify_output(str(output), run_id=RUN_1)["ok"]
    with pytest.raises(ConfigError, match=f"no run x that has ended; its runs are: {RUN_1}"):
        verify_output(str(output), run_id="x")
    with pytest.raises(ConfigError, match="holds no run"):
        verify_output(str(output / "ledger"))


def test_a_run_under_way_is_left_out(output: Path) -> None:
    """Its files are not complete yet, and its calls in no table."""
    running = RunFolder(str(output), "20261004T053412-000004")
    manifest = orjson.loads((output / "runs" / RUN_2 / "manifest.json").read_bytes())
    start_run(running, job=manifest["job"], job_sha256="d", runner="r", started_at=datetime(2026, 10, 4, tzinfo=UTC))
    (output / "ledger" / "answers" / f"{running.run_id}.x.jsonl").write_bytes(b'{"call_id":"x","type":"call"}\n')
    facts = verify_output(str(output))
    assert (facts["ok"], facts["runs"]["left_out"]) == (True, [running.run_id])


@pytest.mark.parametrize("is_damaged", [False, True])
def test_the_command_says_each_finding_on_a_line(
    output: Path, capsys: pytest.CaptureFixture[str], is_damaged: bool
) -> None:
    """Exit code 0 or 3; what was found on standard error, the head and what to do with it on standard output."""
    if is_damaged:
        _flip(output, f"runs/{RUN_1}/enriched/*")
        _file(output, f"runs/{RUN_2}/dead_letters/*").unlink()
    exit_code = verify_to_screen(Screen(), str(output))
    shown = capsys.readouterr()
    assert exit_code == (3 if is_damaged else 0)
    assert "--expect" in shown.out
    assert ("All holds in 3 runs" in shown.out) is not is_damaged
    lines = shown.err.splitlines()
    assert len([line for line in lines if line.startswith("rowbeam: files: run ")]) == (2 if is_damaged else 0)


def test_the_command_gives_json(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with stable keys, findings included."""
    _flip(output, f"runs/{RUN_1}/enriched/*")
    assert verify_to_screen(Screen(as_json=True), str(output), None, "0" * 64) == 3
    (line,) = capsys.readouterr().out.splitlines()
    facts = orjson.loads(line)
    keys = {"output", "ok", "head", "noted", "runs", "findings", "checks", "duration_s"}
    assert facts.keys() == keys
    assert {check["name"] for check in facts["checks"] if not check["ok"]} >= {"files", "expect"}


@pytest.mark.parametrize(
    "key", ["status", "job", "started_at", "ended_at", "counts", "cost_usd", "files", "ledger", "previous"]
)
@pytest.mark.parametrize("value", ["x", [1], 7], ids=str)
def test_a_manifest_of_another_shape_is_a_finding(output: Path, key: str, value: Any) -> None:
    """Whoever tampers need not leave what readers rely on: verify says so, and does not fall over."""
    change_json(output / "runs" / RUN_1 / "manifest.json", lambda manifest: manifest.update({key: value}))
    assert not verify_output(str(output))["ok"]
    change_json(output / "runs" / RUN_1 / "manifest.json", lambda manifest: manifest.pop(key))
    assert not verify_output(str(output))["ok"]


@pytest.mark.parametrize("record", [b"{}", b'{"files":null,"previous":null,"run_id":1}', b"[1]"], ids=str)
def test_a_retention_record_of_another_shape_is_a_finding(output: Path, record: bytes) -> None:
    """A record that nobody could have written is damage, and the chain says so."""
    (output / "runs" / RUN_2 / "retention-1.json").write_bytes(record)
    assert any("is damaged" in finding for finding in _broken(verify_output(str(output)))["chain"])


def test_values_of_another_kind_are_findings(output: Path) -> None:
    """Ids that are no texts, and an amount that is none."""
    change_json(output / "latest.json", lambda latest: latest.update(run_id=[1]))
    change_json(output / "runs" / RUN_1 / "manifest.json", lambda manifest: manifest.update(cost_usd="NaN"))
    found = _broken(verify_output(str(output)))
    assert {"latest", "manifests"} <= set(found)


@pytest.mark.parametrize("job", [{}, {"answer": None}, {"answer": {"field": 1}}], ids=str)
def test_a_job_without_its_answer_is_a_finding(output: Path, job: dict[str, Any]) -> None:
    """The job in a manifest says where the answers are."""
    change_json(output / "runs" / RUN_2 / "manifest.json", lambda manifest: manifest.update(job=job))
    assert "no answer.field" in _broken(verify_output(str(output)))["manifests"][0]
