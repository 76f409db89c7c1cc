"""storage.objects on a local disk and in a bucket: the same promises; and what only a bucket has."""

import os
import threading
from pathlib import Path

import pytest

from transforms.records.errors import ConfigError
from transforms.storage import gcs, objects
from transforms.storage.mirror import local_view

_BIG = os.urandom(1 << 20) * 9


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    """A folder on the disk, and one in a bucket."""
    if request.param == "disk":
        return str(tmp_path / "out")
    request.getfixturevalue("bucket")
    return "gs://bucket/out"


# -- the same on both ------------------------------------------------------------------------------------------------


def test_what_was_created_is_read_and_listed(folder):
    """A file is there whole, under its name, with its size and digest; hidden ones and folders below are not listed."""
    path = objects.join(folder, "b.json")
    assert objects.list_files(folder) == []
    assert not objects.exists(path)
    assert objects.create_if_absent(path, b"one\ntwo\n")
    objects.write_atomic(objects.join(folder, "a.json"), b"")
    objects.write_atomic(objects.join(folder, ".hidden"), b"x")
    objects.write_atomic(objects.join(folder, "below", "c.json"), b"x")
    objects.write_atomic(objects.join(folder, "d.txt"), b"x")
    assert objects.read_bytes(path) == b"one\ntwo\n"
    assert objects.exists(path)
    assert (objects.size(path), objects.size(objects.join(folder, "a.json"))) == (8, 0)
    names = [found.removeprefix(folder) for found in objects.list_files(folder, ".json")]
    assert names == ["/a.json", "/b.json"]
    tree = [found.removeprefix(folder) for found in objects.list_tree(folder)]
    assert tree == ["/a.json", "/b.json", "/below/c.json", "/d.txt"]
    assert objects.sha256_file(path)[1] == 8
    assert objects.parent(path) == folder
    assert next(found.removeprefix(folder) for found in objects.list_all(folder)) == "/.hidden"
    assert objects.list_folders(folder) == ["below"]
    assert [found.removeprefix(folder) for found in objects.list_level(folder, ".json")] == ["/below/c.json"]
    objects.remove_tree(objects.join(folder, "below"))
    objects.remove_tree(objects.join(folder, "below"))
    assert objects.list_folders(folder) == objects.list_folders(objects.join(folder, "nothing")) == []


def test_only_the_first_creates(folder):
    """A second creation changes nothing and says so."""
    path = objects.join(folder, "intent.json")
    assert objects.create_if_absent(path, b"first")
    assert not objects.create_if_absent(path, b"second")
    assert objects.read_bytes(path) == b"first"


def test_of_many_racing_writers_exactly_one_creates(folder):
    """Whoever wins, the file is the winner's."""
    objects.ensure_folder(folder)
    path, won, start = objects.join(folder, "intent.json"), [], threading.Barrier(8)

    def race(name):
        start.wait()
        if objects.create_if_absent(path, name):
            won.append(name)

    threads = [threading.Thread(target=race, args=(b"writer %d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [objects.read_bytes(path)]


def test_a_published_file_replaces_what_was_there(folder):
    """A large file goes up in pieces, and its temporary one is gone."""
    path = objects.join(folder, "part.parquet")
    objects.write_atomic(path, b"old")
    temporary = objects.temporary_path(path)
    Path(temporary).write_bytes(_BIG)
    objects.publish(temporary, path)
    assert not Path(temporary).exists()
    assert objects.read_bytes(path) == _BIG
    assert Path(objects.local_copy(path)).read_bytes() == _BIG


def test_reading_goes_line_by_line_and_anywhere(folder):
    """A reader gives lines, seeks, and ends."""
    path, lines = objects.join(folder, "lines.jsonl"), [b"line %d\n" % number for number in range(1000)]
    objects.write_atomic(path, b"".join(lines))
    with objects.open_read(path) as file:
        assert list(file) == lines
        file.seek(len(lines[0]))
        assert file.readline() == lines[1]
        file.seek(-len(lines[-1]), os.SEEK_END)
        assert file.read() == lines[-1]
        assert file.read() == b""


def test_files_are_moved_and_removed(folder):
    """A name that was given away is free; removing nothing is no error."""
    old, new = objects.join(folder, "old"), objects.join(folder, "new")
    objects.write_atomic(old, b"x")
    objects.write_atomic(new, b"y")
    objects.move(old, new)
    assert not objects.exists(old)
    assert objects.read_bytes(new) == b"x"
    objects.remove(new)
    objects.remove(new)
    assert objects.list_files(folder) == []


@pytest.mark.parametrize("act", ["read_bytes", "open_read", "size", "sha256_file"])
def test_what_is_absent_is_a_file_not_found(folder, act):
    """The same exception for both kinds of place."""
    with pytest.raises(FileNotFoundError):
        getattr(objects, act)(objects.join(folder, "nothing"))


# -- a bucket alone --------------------------------------------------------------------------------------------------


def test_a_creation_whose_reply_is_lost_is_known_as_ours(bucket):
    """Tried again it meets its own object; a rival's later try still fails."""
    bucket.lost_replies = 1
    assert objects.create_if_absent("gs://bucket/intent.json", b"ours")
    assert not objects.create_if_absent("gs://bucket/intent.json", b"theirs")
    assert bucket.data("intent.json") == b"ours"
    assert bucket.counts["stored"] == 1


def test_a_busy_bucket_is_asked_again(bucket):
    """A 503 costs a moment, not the run."""
    bucket.troubles = 1
    objects.write_atomic("gs://bucket/x", b"x")
    assert bucket.names() == ["x"]


@pytest.mark.parametrize(
    ("path", "refusal", "words"),
    [
        pytest.param("gs://bucket/x", 403, "grant this account roles/storage.objectUser", id="no right"),
        pytest.param("gs://bucket/x", 401, "no credentials for Google Cloud Storage", id="no account"),
        pytest.param("gs://bucket/x", 400, "the bucket answered 400", id="anything else"),
        pytest.param("gs://nobodys/x", None, "the bucket nobodys does not exist; create it", id="no bucket"),
        pytest.param("gs://", None, "is no place in a bucket; write gs://bucket/name", id="nothing"),
        pytest.param("gs:///x", None, "is no place in a bucket", id="no bucket's name"),
    ],
)
def test_refusals_say_what_to_do(bucket, path, refusal, words):
    """They are OSErrors that name the object, like those of a disk."""
    bucket.refusal = refusal
    for act in (objects.read_bytes, lambda at: objects.create_if_absent(at, b""), objects.list_files):
        with pytest.raises(gcs.StorageError, match=words) as caught:
            act(path)
        assert isinstance(caught.value, OSError)
        assert str(caught.value).startswith(path)


def test_a_bucket_that_is_not_there_at_all_is_an_error_soon(monkeypatch):
    """Nobody listens: one sentence, not a traceback."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setattr(gcs, "_retry", lambda: None)
    with pytest.raises(gcs.StorageError, match="can't be reached"):
        objects.read_bytes("gs://bucket/x")


def test_long_listings_come_in_pages(bucket):
    """All of them are there, by name."""
    bucket.page = 7
    for number in range(20):
        bucket.store("bucket", f"ledger/{number:03d}.json", b"")
    assert objects.list_files("gs://bucket/ledger", ".json") == [f"gs://bucket/ledger/{n:03d}.json" for n in range(20)]
    assert bucket.counts["listings"] == 3


@pytest.mark.parametrize("knows_globs", [True, False], ids=["as the real one", "a stand-in that lists all"])
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        pytest.param("in/*.csv", ["in/a.csv", "in/b1.csv", "in/b2.csv"], id="star"),
        pytest.param("in/b?.csv", ["in/b1.csv", "in/b2.csv"], id="question mark"),
        pytest.param("in/b[13].csv", ["in/b1.csv"], id="one of"),
        pytest.param("in/b[!1].csv", ["in/b2.csv"], id="none of"),
        pytest.param("*/deep/c.csv", ["in/deep/c.csv"], id="a folder"),
        pytest.param("in/**", ["in/a.csv", "in/b1.csv", "in/b2.csv", "in/deep/c.csv"], id="below"),
        pytest.param("in/c.csv", [], id="none"),
    ],
)
def test_globs_name_what_they_would_on_a_disk(bucket, pattern, names, knows_globs):
    """A star ends at a slash, two do not."""
    bucket.knows_globs = knows_globs
    for name in ("in/a.csv", "in/b1.csv", "in/b2.csv", "in/deep/c.csv", "out/a.csv", "in/a"):
        bucket.store("bucket", name, b"")
    found = [path.removeprefix("gs://bucket/") for path in gcs.matching(f"gs://bucket/{pattern}")]
    assert [name for name in found if name != "in/a"] == names


def test_a_swap_needs_the_generation_it_read(bucket):
    """Replace and delete go by what was read; who comes second is told."""
    path = "gs://bucket/lease.json"
    assert gcs.swap(path, b"a", 0)
    assert not gcs.swap(path, b"b", 0)
    data, generation = gcs.get_versioned(path)
    assert data == b"a"
    bucket.lost_replies = 1
    assert gcs.swap(path, b"c", generation)
    assert not gcs.swap(path, b"d", generation)
    assert not gcs.swap(path, None, generation)
    assert gcs.swap(path, None, gcs.get_versioned(path)[1])
    assert bucket.names() == []


def test_a_local_copy_is_made_once_for_each_generation(bucket):
    """What changed is fetched again."""
    path = "gs://bucket/x.parquet"
    objects.write_atomic(path, b"one")
    first = objects.local_copy(path)
    assert objects.local_copy(path) == first
    assert bucket.counts["reads"] == 1
    objects.write_atomic(path, b"two")
    assert Path(objects.local_copy(path)).read_bytes() == b"two"
    with pytest.raises(FileNotFoundError):
        objects.local_copy("gs://bucket/nothing")


def test_a_fork_has_its_own_connections(bucket):
    """The child reads and writes beside its parent, and leaves the parent's scratch folder alone."""
    objects.write_atomic("gs://bucket/x", b"x")
    kept = objects.local_copy("gs://bucket/x")
    pid = os.fork()
    if pid == 0:
        try:
            objects.create_if_absent("gs://bucket/child", objects.read_bytes("gs://bucket/x"))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert bucket.data("child") == b"x"
    assert Path(kept).exists()


def test_a_whole_output_is_copied_for_those_who_search_it(bucket, tmp_path):
    """As it lies there, but for what only a run under way looks at; a local output is itself."""
    for number in range(30):
        bucket.store("bucket", f"out/ledger/answers/{number}.jsonl", b"%d\n" % number)
    for name in (
        "out/runs/r/manifest.json",
        "out/runs/r/enriched/_pending/x.parquet",
        "out/runs/r/asked/k.asked",
        "outer/x",
    ):
        bucket.store("bucket", name, b"x")
    with local_view("gs://bucket/out/") as view:
        found = sorted(str(path.relative_to(view)) for path in Path(view).rglob("*") if path.is_file())
        assert found == sorted([*(f"ledger/answers/{number}.jsonl" for number in range(30)), "runs/r/manifest.json"])
        assert Path(view, "ledger/answers/7.jsonl").read_bytes() == b"7\n"
    with local_view("gs://bucket/out", lambda name: name.startswith("runs/")) as view:
        assert [path.name for path in Path(view).iterdir()] == ["runs"]
    with local_view(str(tmp_path)) as view:
        assert view == str(tmp_path)


def test_errors_over_a_copy_name_the_bucket(bucket):
    """Nobody is told of a folder that only this command knows."""
    bucket.store("bucket", "out/runs/r/manifest.json", b"x")
    with pytest.raises(ConfigError, match=r"^gs://bucket/out has no run"), local_view("gs://bucket/out") as view:
        raise ConfigError(f"{view} has no run")
