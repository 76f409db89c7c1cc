"""Forget when it is killed, when its records are tampered with, and when what it reads is damaged."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.forget_command import forget
from pipelines.verify import verify_output
from tests.unit.verify_outputs import RUN_1, change_json, make_output
from transforms.records.errors import InternalError
from transforms.storage import retention
from transforms.storage.ledger import segments

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


class _KilledError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("puts", [0, 1, 4, 6, 7])
def test_a_kill_on_the_way_is_made_good_by_another_try(
    output: Path, monkeypatch: pytest.MonkeyPatch, puts: int
) -> None:
    """After each step the output verifies, and the second try ends where an undisturbed one does."""
    calm = output.parent / "calm"
    shutil.copytree(output, calm)
    _forget(calm)
    left = puts
    real = retention.put

    def put_or_die(rewritten: Any) -> None:
        nonlocal left
        if left == 0:
            raise _KilledError
        left -= 1
        real(rewritten)

    monkeypatch.setattr(retention, "put", put_or_die)
    if puts < 7:
        with pytest.raises(_KilledError):
            _forget(output)
    assert verify_output(str(output))["ok"]
    monkeypatch.undo()
    _forget(output)
    names = {name for name in _files(output) if "retention-" not in name}
    assert {name: _files(output)[name] for name in names} == {name: _files(calm)[name] for name in names}
    assert not list(output.rglob(".forgetting-*"))
    assert len(list(output.rglob("retention-*.json"))) == 3
    assert verify_output(str(output))["ok"]


def test_a_kill_before_the_record_leaves_everything_as_it_was(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written beside is hidden, and removed by the next try."""

    def die(*_: object) -> None:
        raise _KilledError

    before = _files(output)
    monkeypatch.setattr(retention, "_record", die)
    with pytest.raises(_KilledError):
        _forget(output)
    shown = {name: data for name, data in _files(output).items() if "/." not in name}
    assert shown == before
    assert verify_output(str(output))["ok"]
    monkeypatch.undo()
    half = output / "runs" / RUN_1 / "audit" / "calls" / "..forgetting-sealed.parquet.ab12.tmp"
    for path in (half, output / "ledger" / "answers" / ".draft.ab12.tmp"):
        path.write_bytes(b"half a file")
    _forget(output)
    assert not list(output.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        pytest.param(f"runs/{RUN_1}/retention-1.json", "was changed after", id="a record edited"),
        pytest.param(f"runs/{RUN_1}/audit/calls/sealed.parquet", "files", id="a rewritten file changed"),
    ],
)
def test_a_change_after_forgetting_is_found(output: Path, name: str, named: str) -> None:
    """Records don't excuse a hash that none of them names, nor one that was edited afterwards."""
    _forget(output)
    path = output / name
    if path.suffix == ".json":
        change_json(path, lambda record: record.update(rule={}))
    else:
        path.write_bytes(path.read_bytes() + b"x")
    facts = verify_output(str(output))
    told = [f"{check['name']}: {example}" for check in facts["checks"] for example in check["examples"]]
    assert any(named in one for one in told), told


def test_a_record_that_was_put_in_is_in_no_chain(output: Path) -> None:
    """A forged record could explain a changed file; it is in no chain, or it moves the head."""
    _forget(output)
    forged = output / "runs" / RUN_1 / "retention-7.json"
    shutil.copy(output / "runs" / RUN_1 / "retention-1.json", forged)
    facts = verify_output(str(output))
    assert [check["name"] for check in facts["checks"] if not check["ok"]] == ["chain"]
    assert f"runs/{RUN_1}/retention" in facts["checks"][1]["examples"][0]


def test_a_damaged_file_stops_forgetting_before_the_run_is_touched(output: Path) -> None:
    """It is named, with what to do."""
    (segment,) = segments(str(output / "ledger"), only_run=RUN_1)
    Path(segment).write_bytes(Path(segment).read_bytes().replace(b'"request_json"', b'"request', 1))
    with pytest.raises(InternalError, match="line 3, is damaged"):
        _forget(output)
    assert not list(output.rglob("retention-*.json"))
