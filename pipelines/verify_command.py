"""The command `verify`: an output checked from its files alone, one line for each finding."""

from pipelines.screen import Screen
from pipelines.summary import EXIT_BROKEN, EXIT_DONE
from transforms.storage.mirror import local_view


def verify_to_screen(screen: Screen, output: str, run_id: str | None = None, expect: str | None = None) -> int:
    """Check an output and show what was found; return the exit code: 0 all holds, 3 something does not.

    Args:
        screen: where to.
        output: the job's output folder.
        run_id: check the files of this run only.
        expect: a head's sha256 that was noted earlier.

    Raises:
        ConfigError: there is no such output, or no such run.
    """
    from pipelines.verify import verify_output
    from pipelines.verify_text import draw_verified

    with local_view(output) as view:
        facts = verify_output(view, run_id, expect) | {"output": output}
    screen.show(facts, draw_verified)
    if facts["ok"]:
        return EXIT_DONE
    if not screen.as_json:
        for check in facts["checks"]:
            for example in check["examples"]:
                screen.complain(f"{check['name']}: {example}")
    return EXIT_BROKEN
