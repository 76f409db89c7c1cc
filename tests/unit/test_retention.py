"""Forget drops the payloads of old runs, keeps hashes, and leaves a record by which the output still verifies."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from pipelines import forget_command
from pipelines.explain import explain_row
from pipelines.forget_command import forget, forget_to_screen
from pipelines.screen import Screen
from pipelines.verify import verify_output
from tests.unit.verify_outputs import KEY, KILLED, PROMPT, RUN_1, RUN_2, change_json, make_output
from transforms.records.errors import ConfigError, OutputBusyError
from transforms.rules.retention import drop_message, drop_payload, parse_age
from transforms.storage.lease import Lease
from transforms.storage.ledger import read_answers, segments

#: The runs of verify_outputs ended in October 2026; whatever today is, it is later.
_OLD = "0.001m"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output as runs leave it."""
    return make_output(tmp_path_factory.mktemp("retention") / "out")


@pytest.fixture
def output(pristine: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it to work on."""
    shutil.copytree(pristine, tmp_path / "out")
    return tmp_path / "out"


def _forget(output: Path, older_than: str = _OLD, **flags: bool) -> dict[str, Any]:
    return forget(str(output), older_than, **({"answers": False, "dead_letters": False, "dry_run": False} | flags))


def _files(output: Path) -> dict[str, bytes]:
    paths = [path for path in output.rglob("*") if path.is_file() and path.name != "lease.lock"]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}


def _tellers(output: Path) -> list[str]:
    """Return the files that hold the prompt, tables unpacked."""
    found = []
    for name, data in _files(output).items():
        shown = repr(pq.read_table(output / name).to_pylist()).encode() if name.endswith(".parquet") else data
        found += [name] if PROMPT.encode() in shown else []
    return sorted(found)


def _calls(output: Path, run_id: str) -> list[dict[str, Any]]:
    return pq.read_table(output / "runs" / run_id / "audit" / "calls").to_pylist()


def _texts(output: Path) -> dict[str, str | None]:
    return {one.call_id: one.text for path in segments(str(output / "ledger")) for one in read_answers(path)}


@pytest.mark.parametrize(
    ("age", "seconds"),
    [("90m", 5400.0), ("12h", 43_200.0), ("30d", 2_592_000.0), (" 1.5d ", 129_600.0), ("8w", 4_838_400.0),
     ("30", None), ("", None), ("-1d", None), ("1 month", None), ("1y", None)],
)  # fmt: skip
def test_an_age_needs_its_unit(age: str, seconds: float | None) -> None:
    """A plain number could be meant as days and taken as seconds."""
    assert parse_age(age) == seconds


def test_what_is_dropped_stays_as_it_is_the_second_time() -> None:
    """Payloads keep hash and size; errors keep kind, code and wait."""
    dropped = drop_payload("a text")
    assert orjson.loads(dropped or "") == {"sha256": hashlib.sha256(b"a text").hexdigest(), "bytes": 6}
    assert (drop_payload(dropped), drop_payload(None)) == (dropped, None)
    error = drop_message('{"kind":"timeout","message":"no reply to: a text","code":null,"retry_after_s":2.5}')
    assert error == '{"kind":"timeout","code":null,"retry_after_s":2.5}'
    assert (drop_message(error), drop_message(None)) == (error, None)
    assert "a text" not in (drop_message("a text") or "")
    assert "a text" not in (drop_message('["a text"]') or "")


def test_payloads_go_and_their_hashes_stay(output: Path) -> None:
    """In table calls and in the ledger, request file and torn line included; answers and rows stay."""
    before, texts = _calls(output, RUN_1), _texts(output)
    facts = _forget(output)
    assert [run["run_id"] for run in facts["runs"]] == [RUN_1, KILLED, RUN_2]
    after = _calls(output, RUN_1)
    for old, new in zip(before, after, strict=True):
        for name in ("request_json", "response_json"):
            digest = hashlib.sha256(old[name].encode()).hexdigest()
            assert orjson.loads(new[name]) == {"sha256": digest, "bytes": len(old[name])}
        kept = old.keys() - {"request_json", "response_json", "error_json"}
        assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
    assert [call["error_json"] for call in after] == [None, '{"kind":"refusal"}', None]
    assert _tellers(output) == [f"runs/{run_id}/dead_letters/part-00000.jsonl" for run_id in (RUN_1, RUN_2)]
    assert not (output / "ledger" / "requests" / f"{KEY}.jsonl").exists()
    assert (output / "ledger" / "requests" / f"{KEY}.members.jsonl").exists()
    assert _texts(output) == texts
    assert verify_output(str(output))["ok"]


def test_the_record_names_each_file_with_its_old_and_new_hash(output: Path) -> None:
    """The manifest stays as it is, byte for byte, and the record is a link of the chain."""
    before, head = _files(output), verify_output(str(output))["head"]["sha256"]
    _forget(output)
    after = _files(output)
    assert {name: data for name, data in after.items() if name.endswith(("manifest.json", "summary.json"))} == {
        name: data for name, data in before.items() if name.endswith(("manifest.json", "summary.json"))
    }
    record = orjson.loads(after[f"runs/{RUN_2}/retention-1.json"])
    assert record.keys() == {"run_id", "forgotten_at", "rule", "rowbeam", "files", "previous"}
    assert record["rule"] | {"ended_before": ""} == {
        "older_than": _OLD, "ended_before": "", "answers": False, "dead_letters": False,
    }  # fmt: skip
    assert len(record["files"]) == 3
    for file in record["files"]:
        was = before[file["path"]]
        assert (file["was"]["sha256"], file["was"]["bytes"]) == (hashlib.sha256(was).hexdigest(), len(was))
        if file["path"].startswith("ledger/requests"):
            assert (file["now"], file["path"] in after) == (None, False)
        else:
            now = after[file["path"]]
            assert (file["now"]["sha256"], file["now"]["bytes"]) == (hashlib.sha256(now).hexdigest(), len(now))
    assert record["previous"]["retention"] == f"runs/{KILLED}/retention-1.json"
    facts = verify_output(str(output), expect=head)
    assert (facts["ok"], facts["noted"]) == (True, {"name": f"run {RUN_2}", "after": 3})
    assert facts["head"]["sha256"] == hashlib.sha256(after[f"runs/{RUN_2}/retention-1.json"]).hexdigest()


def test_forgetting_again_changes_nothing(output: Path) -> None:
    """And says so; a stricter rule then drops what is left and leaves a second record."""
    _forget(output)
    once = _files(output)
    assert (_forget(output)["runs"], _files(output)) == ([], once)
    facts = _forget(output, answers=True, dead_letters=True)
    assert [run["record"] for run in facts["runs"]] == [
        f"runs/{RUN_1}/retention-2.json", f"runs/{KILLED}/retention-2.json", f"runs/{RUN_2}/retention-2.json",
    ]  # fmt: skip
    assert _tellers(output) == []
    assert verify_output(str(output))["ok"]
    assert _forget(output, answers=True)["runs"] == []


def test_answers_go_only_when_asked_for(output: Path) -> None:
    """Then nothing that was answered can be reused; what was refused for good is still known."""
    _forget(output, answers=True)
    assert _texts(output) == {"b1-000001": None}
    assert verify_output(str(output))["ok"]


def test_rows_of_dead_letters_go_only_when_asked_for(output: Path) -> None:
    """The row becomes a hash, and the reason, which may quote it, its kind."""
    path = output / "runs" / RUN_1 / "dead_letters" / "part-00000.jsonl"
    old = orjson.loads(path.read_bytes())
    _forget(output, dead_letters=True)
    row = orjson.dumps(old["row"])
    hashed = {"sha256": hashlib.sha256(row).hexdigest(), "bytes": len(row)}
    assert orjson.loads(path.read_bytes()) == old | {"row": hashed, "reason": "refusal"}
    assert verify_output(str(output))["ok"]


def test_only_runs_that_ended_long_ago_are_due(output: Path) -> None:
    """Each by its own end; what is newer stays byte for byte."""
    before = _files(output)
    assert (_forget(output, "5000w")["newer"], _files(output)) == (3, before)
    for run_id in (RUN_1, RUN_2):
        change_json(output / "runs" / run_id / "manifest.json", lambda m: m.update(ended_at="2999-01-01T00:00:00Z"))
    facts = _forget(output)
    assert ([run["run_id"] for run in facts["runs"]], facts["newer"]) == ([KILLED], 2)


def test_a_run_whose_batch_is_not_collected_has_to_wait(output: Path) -> None:
    """Its request file is still needed; other runs don't wait for it."""
    (output / "ledger" / "batches" / KEY / "collected.json").unlink()
    facts = _forget(output)
    assert [run["run_id"] for run in facts["runs"]] == [RUN_1, KILLED]
    assert facts["waiting"] == [{"run_id": RUN_2, "why": f"batch {KEY[:12]} is not collected yet"}]
    assert (output / "ledger" / "requests" / f"{KEY}.jsonl").exists()


def test_a_run_that_is_not_closed_has_to_wait(output: Path) -> None:
    """Under the lease such a run was killed; the next run seals it from what forget must not touch."""
    change_json(output / "runs" / KILLED / "manifest.json", lambda m: m.update(status="running"))
    facts = _forget(output)
    assert [run["run_id"] for run in facts["runs"]] == [RUN_1, RUN_2]
    assert "killed" in facts["waiting"][0]["why"]


def test_an_output_in_use_is_left_alone(output: Path) -> None:
    """A run that holds the lease is named; a dry run needs none."""
    before = _files(output)
    with Lease(str(output / "ledger"), "20261005T000000-000009"):
        with pytest.raises(OutputBusyError, match="20261005T000000-000009"):
            _forget(output)
        assert _forget(output, dry_run=True)["dropped"] > 0
    assert _files(output) == before


def test_a_dry_run_says_what_would_go(output: Path) -> None:
    """The same counts as the real one, and no file changed."""
    before = _files(output)
    dry = _forget(output, dry_run=True, answers=True, dead_letters=True)
    assert _files(output) == before
    real = _forget(output, answers=True, dead_letters=True)
    counted = [[run[name] for name in ("run_id", "files", "dropped", "bytes_before")] for run in dry["runs"]]
    assert counted == [[run[name] for name in ("run_id", "files", "dropped", "bytes_before")] for run in real["runs"]]


def test_explain_still_proves_what_happened(output: Path) -> None:
    """Hashes, counts, costs, attempts: all but the texts."""
    before = explain_row(str(output), "row-q1", RUN_1)
    _forget(output)
    after = explain_row(str(output), "row-q1", RUN_1)
    assert PROMPT in str(before["prompt"])
    assert PROMPT not in str(after)
    same = ("row_id", "run_id", "outcome", "source", "answer", "cost_usd", "history", "batches")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert [call["cost_usd"] for call in after["calls"]] == [call["cost_usd"] for call in before["calls"]]
    refused = explain_row(str(output), "row-q2", RUN_1)
    assert refused["calls"][0]["outcome"] == "refusal"


def test_the_command_says_what_went_and_what_stays(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people and as JSON; a bad age and a folder without runs are refused."""
    assert forget_to_screen(Screen(), str(output), _OLD, dry_run=True) == 0
    assert "would go (dry run: nothing was changed)" in capsys.readouterr().out
    assert forget_to_screen(Screen(), str(output), _OLD) == 0
    shown = capsys.readouterr().out
    assert "of 3 runs dropped" in shown
    assert "--answers drops them" in shown
    assert forget_to_screen(Screen(as_json=True), str(output), _OLD, answers=True) == 0
    facts = orjson.loads(capsys.readouterr().out)
    assert (facts["answers"], facts["dropped"]) == (True, 5)
    with pytest.raises(ConfigError, match="'30' is no age"):
        forget_to_screen(Screen(), str(output), "30")
    with pytest.raises(ConfigError, match="holds no run"):
        forget_to_screen(Screen(), str(output / "ledger"), _OLD)


def test_a_lease_lost_on_the_way_stops_it(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run may be at work: no further run is touched."""

    class _Lost(Lease):
        lost = True

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.lost = True

    monkeypatch.setattr(forget_command, "Lease", _Lost)
    with pytest.raises(OutputBusyError, match="run forget again"):
        _forget(output)


def test_an_age_beyond_the_calendar_is_refused(tmp_path: Path) -> None:
    """Not an internal error: the person wrote too many days."""
    (tmp_path / "runs").mkdir()
    with pytest.raises(ConfigError, match="there was no calendar"):
        forget(str(tmp_path), "99999999999d", answers=False, dead_letters=False, dry_run=True)


def test_the_report_goes_too_and_can_be_drawn_anew(output: Path) -> None:
    """It quotes errors and answers; drawn again it is no secret that the record says to be gone."""
    report = output / "runs" / RUN_1 / "report.html"
    report.write_text(f"<p>{PROMPT}</p>", encoding="utf-8")
    _forget(output)
    assert not report.exists()
    report.write_text("<p>nothing</p>", encoding="utf-8")
    assert verify_output(str(output))["ok"]
    _forget(output)
    assert report.exists()


def test_a_lost_record_is_never_taken_for_written(output: Path) -> None:
    """Its number is not given again: what is dropped after it has a record of its own."""
    _forget(output)
    first = output / "runs" / RUN_1 / "retention-1.json"
    first.rename(first.with_name("retention-2.json"))
    done = _forget(output, answers=True)
    assert [run["record"] for run in done["runs"] if run["run_id"] == RUN_1] == [f"runs/{RUN_1}/retention-3.json"]
