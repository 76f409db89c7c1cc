"""Files are whole or absent, and exactly one creator wins."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from transforms.storage import objects

_RACER = """
import sys
from transforms.storage.objects import create_if_absent
print("ready", flush=True)
sys.stdin.readline()
wins = [n for n in range(40) if create_if_absent(f"{sys.argv[1]}/{n}.json", sys.argv[2].encode() * 1000)]
print(*wins)
"""


def test_exactly_one_of_many_processes_creates_a_file(tmp_path: Path) -> None:
    """Eight processes race for forty files: each has one winner, and holds the winner's bytes whole."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(tmp_path), str(name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(objects.__file__).parents[2])},
        )
        for name in range(8)
    ]
    for racer in racers:
        racer.stdout.readline()
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    winners = {}
    for name, racer in enumerate(racers):
        out, _ = racer.communicate(timeout=60)
        for number in map(int, out.split()):
            assert number not in winners
            winners[number] = name
    assert sorted(winners) == list(range(40))
    for number, name in winners.items():
        assert (tmp_path / f"{number}.json").read_text() == str(name) * 1000
    assert len(list(tmp_path.iterdir())) == 40


def test_create_if_absent_keeps_what_is_there(tmp_path: Path) -> None:
    """The second creation says False and changes nothing; missing folders are made."""
    path = str(tmp_path / "a" / "b" / "x.json")
    assert objects.create_if_absent(path, b"one")
    assert not objects.create_if_absent(path, b"two")
    assert objects.read_bytes(path) == b"one"


def test_write_atomic_replaces(tmp_path: Path) -> None:
    """The last write counts, and no temporary file stays."""
    path = str(tmp_path / "x.json")
    objects.write_atomic(path, b"one")
    objects.write_atomic(path, b"two")
    assert objects.read_bytes(path) == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where the target is a folder, the error comes through and the temporary file is gone."""
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        objects.write_atomic(str(tmp_path / "x"), b"one")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_list_files_is_sorted_and_leaves_out_hidden_files_and_folders(tmp_path: Path) -> None:
    """What a killed process left half-done starts with a dot and is never listed."""
    for name in ("b.jsonl", "a.jsonl", "c.json", ".a.jsonl.123.tmp", ".d.jsonl"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    assert objects.list_files(str(tmp_path), ".jsonl") == [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    assert objects.list_files(str(tmp_path / "absent"), ".jsonl") == []


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_file_agrees_with_hashing_at_once(tmp_path: Path, size: int) -> None:
    """Reading in pieces gives the same digest, on both sides of the piece size."""
    data = b"r" * size
    (tmp_path / "x").write_bytes(data)
    assert objects.sha256_file(str(tmp_path / "x")) == (hashlib.sha256(data).hexdigest(), size)
