"""The command `diff`: sets two runs of an output side by side."""

from pipelines.screen import Screen
from pipelines.summary import EXIT_DONE
from transforms.storage.mirror import local_view

#: Rows of each kind of change that --json tells one by one, at most: tens of MB where answers are long.
MOST_ROWS = 10_000


def diff_to_screen(screen: Screen, output: str, run_a: str, run_b: str) -> int:
    """Show what differs between two runs; return the exit code.

    Args:
        screen: where to; with JSON up to MOST_ROWS rows of each kind of change, else the first 20.
        output: the job's output folder.
        run_a: a run's id, the beginning of it, "latest" or "previous".
        run_b: likewise; told as the newer.

    Raises:
        ConfigError: a run is not known, or has nothing to compare.
    """
    from pipelines.diff import EXAMPLES, diff_runs
    from pipelines.diff_text import draw_diff

    with local_view(output) as view:
        facts = diff_runs(view, run_a, run_b, MOST_ROWS if screen.as_json else EXAMPLES) | {"output": output}
    screen.show(facts, draw_diff)
    return EXIT_DONE
