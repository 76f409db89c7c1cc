"""Parts become files all at once: named in order, again after a crash, and nothing else stays."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.storage.parts import drop_pending, name_parts, new_part

_SCHEMA = pa.schema([("id", pa.int64())])


@pytest.fixture
def make_part(tmp_path: Path) -> Callable[..., str]:
    """Write a part of some rows and return its path."""

    def make(*ids: int) -> str:
        path, writer = new_part(str(tmp_path), _SCHEMA)
        for number in ids:
            writer.append({"id": number})
        writer.close()
        return path

    return make


def _ids(folder: Path) -> list[int]:
    return sorted(pq.read_table([str(path) for path in folder.glob("*.parquet")])["id"].to_pylist())


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_parts_get_their_names_and_orphans_go(tmp_path: Path, make_part: Callable[..., str]) -> None:
    """A part that nobody names belongs to a bundle that was thrown away."""
    parts = [make_part(1, 2), make_part(3)]
    make_part(99)
    names = name_parts(str(tmp_path), parts)
    assert [Path(name).name for name in names] == _names(tmp_path) == ["part-00000.parquet", "part-00001.parquet"]
    assert _ids(tmp_path) == [1, 2, 3]


def test_the_same_list_may_be_named_again(tmp_path: Path, make_part: Callable[..., str]) -> None:
    """After a crash in the middle, or after the end, the files are the same."""
    parts = [make_part(1), make_part(2), make_part(3)]
    Path(min(parts)).replace(tmp_path / "part-00000.parquet")
    names = name_parts(str(tmp_path), parts)
    assert name_parts(str(tmp_path), list(reversed(parts))) == names
    assert _ids(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize("empty", [None, _SCHEMA])
def test_another_list_leaves_no_stale_file(
    tmp_path: Path, make_part: Callable[..., str], empty: pa.Schema | None
) -> None:
    """A runner that threw the first closing away closes with the parts of its retry alone."""
    name_parts(str(tmp_path), [make_part(1), make_part(2), make_part(3)])
    name_parts(str(tmp_path), [make_part(4)], empty)
    assert (_names(tmp_path), _ids(tmp_path)) == (["part-00000.parquet"], [4])
    name_parts(str(tmp_path), [], empty)
    assert _names(tmp_path) == ([] if empty is None else ["part-00000.parquet"])


def test_a_part_that_is_gone_is_an_error(tmp_path: Path, make_part: Callable[..., str]) -> None:
    """Rows would be missing; the other parts stay where they are found again."""
    kept, lost = sorted([make_part(1), make_part(2)])
    Path(lost).unlink()
    with pytest.raises(FileNotFoundError, match=r"part-00001\.parquet is not there; run the job again"):
        name_parts(str(tmp_path), [kept, lost])
    assert _ids(tmp_path) == pq.read_table(tmp_path / "part-00000.parquet")["id"].to_pylist()


def test_what_a_dying_worker_writes_meanwhile_does_no_harm(
    tmp_path: Path, make_part: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file vanishes and another comes while orphans are removed: no error, and nobody reads what is left."""
    part = make_part(1)
    orphans = {make_part(98), make_part(99)}
    real = Path.unlink

    def unlink_while_others_work(path: Path, missing_ok: bool = False) -> None:
        if str(path) in orphans:
            real(path)
            (path.parent / "late.parquet").write_bytes(b"half a part")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_while_others_work)
    name_parts(str(tmp_path), [part])
    assert _ids(tmp_path) == [1]
    assert _names(tmp_path) in (["part-00000.parquet"], ["_pending", "part-00000.parquet"])


def test_nothing_pending_is_fine(tmp_path: Path) -> None:
    """A run without failures has no folder of dead letters."""
    drop_pending(str(tmp_path / "dead_letters"))
    assert name_parts(str(tmp_path / "dead_letters"), []) == []
