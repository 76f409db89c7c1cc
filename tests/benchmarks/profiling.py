"""Where the CPU goes: every function's own time over all threads, by yappi where it is installed.

A deterministic profiler makes small functions look dearer than they are: read its shares, not its sums.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

_TOP = 60


def can_profile() -> bool:
    """Say whether yappi is installed."""
    return find_spec("yappi") is not None


@contextmanager
def profiled(path: str | None) -> Iterator[None]:
    """Write the dearest functions to `path`, most own CPU time first; None: just run."""
    if path is None:
        yield
        return
    import yappi

    yappi.set_clock_type("cpu")
    yappi.start()
    try:
        yield
    finally:
        yappi.stop()
        stats = yappi.get_func_stats().sort("tsub")
        lines = [
            f"{stat.tsub:10.3f} s {stat.ttot:10.3f} s {stat.ncall:>10}  {stat.full_name}" for stat in list(stats)[:_TOP]
        ]
        Path(path).write_text("\n".join(["   own CPU   with callees      calls  function", *lines, ""]), "utf-8")
