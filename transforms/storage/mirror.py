"""A whole output on this machine, for commands that search it: as it lies, or copied from its bucket.

Tables are searched with DuckDB and by memory map, which want files. The copy is made afresh by each command and lasts
as long as its process: what was forgotten in the bucket is nowhere else.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from transforms.records.errors import RowbeamError
from transforms.storage import gcs
from transforms.storage.objects import is_remote
from transforms.storage.scratch import scratch_path

_THREADS = 16
#: Folders that only a run under way looks at.
_PASSING = frozenset({"_pending", "asked"})


@contextmanager
def local_view(output: str, wanted: Callable[[str], bool] = lambda _name: True) -> Iterator[str]:
    """Give a local folder that holds what an output holds: itself where it is local.

    Objects that come or go while they are copied are there or not; a run under way does not disturb. Errors of ours
    that leave the block name the output, not the copy.

    Args:
        output: the output folder.
        wanted: says of a file's path in the output whether it is copied; of a local output all is there anyway.

    Raises:
        OSError: the bucket refuses or can't be reached, or the disk is full.
    """
    if not is_remote(output):
        yield output
        return
    view = _copied(output.rstrip("/"), wanted)
    try:
        yield view
    except RowbeamError as error:
        raise type(error)(str(error).replace(view, output)) from error


def _copied(output: str, wanted: Callable[[str], bool]) -> str:
    view = Path(scratch_path(output))
    view.mkdir(parents=True)
    names = [path.removeprefix(f"{output}/") for path, _ in gcs.listed(output, deep=True)]
    copied = [name for name in names if not _is_passing(name) and wanted(name)]
    for folder in {(view / name).parent for name in copied}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="rowbeam-copy") as threads:
        for _ in threads.map(lambda name: _copy(f"{output}/{name}", view / name), copied):
            pass
    return str(view)


def _is_passing(name: str) -> bool:
    folders = name.split("/")
    return folders[-1].startswith(".") or not _PASSING.isdisjoint(folders)


def _copy(path: str, target: Path) -> None:
    try:
        gcs.get_file(path, str(target))
    except FileNotFoundError:
        target.unlink(missing_ok=True)
