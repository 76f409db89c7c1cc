"""A whole output on this machine, for commands that search it: as it lies, or copied from its bucket.

Tables are searched with DuckDB and by memory map, which want files. The copy is made afresh by each command and lasts
as long as its process: what was forgotten in the bucket is nowhere else.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transforms.storage import gcs
from transforms.storage.objects import is_remote
from transforms.storage.scratch import scratch_path

_THREADS = 16
#: Folders that only a run under way looks at.
_PASSING = frozenset({"_pending", "asked"})


def local_view(output: str) -> str:
    """Return a local folder that holds what an output holds: itself where it is local.

    Objects that come or go while they are copied are there or not; a run under way does not disturb.

    Raises:
        OSError: the bucket refuses or can't be reached, or the disk is full.
    """
    if not is_remote(output):
        return output
    view = Path(scratch_path(output))
    view.mkdir(parents=True)
    names = [path.removeprefix(f"{output.rstrip('/')}/") for path, _ in gcs.listed(output, deep=True)]
    wanted = [
        name for name in names if not _PASSING & set(name.split("/")) and not name.rpartition("/")[2].startswith(".")
    ]
    for folder in {(view / name).parent for name in wanted}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="rowbeam-copy") as threads:
        for _ in threads.map(lambda name: _copy(f"{output.rstrip('/')}/{name}", view / name), wanted):
            pass
    return str(view)


def _copy(path: str, target: Path) -> None:
    try:
        gcs.get_file(path, str(target))
    except FileNotFoundError:
        target.unlink(missing_ok=True)
