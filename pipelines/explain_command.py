"""`rowbeam explain`: a row's story on the screen, and as a page for auditors where one is asked for."""

import re
import sys
from pathlib import Path

from pipelines.explain import explain_row
from pipelines.screen import Screen
from transforms.records.errors import ConfigError
from transforms.storage.mirror import local_view
from transforms.storage.objects import write_atomic

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME_CHARS = 80


def explain_to_screen(screen: Screen, output: str, row_id: str, run_id: str | None, html: str | None) -> None:
    """Show a row's story: as a tree, as JSON, or as a page.

    Args:
        screen: where to; with as_json the story is one line of JSON, with the page's path as `html` where there is one.
        output: the job's output folder.
        row_id: the row.
        run_id: the run whose outcome to tell; None takes the latest.
        html: the page's file; "" names it after the row, in the current folder, "-" prints the page; None makes none.

    Raises:
        ConfigError: the output, the run or the row is not known, or the page can't be written.
    """
    if html == "-" and screen.as_json:
        raise ConfigError("--html - prints the page, and --json prints JSON; give --html a file, or leave one out")
    with local_view(output) as view:
        story = explain_row(view, row_id, run_id)
    if html is None and screen.as_json:
        screen.print_json(story)
        return
    if html is None:
        from pipelines.explain_tree import draw_story

        screen.show(story, draw_story)
        return
    from pipelines.explain_html import render_story

    page = render_story(screen.redactor.value(story), output)
    if html == "-":
        sys.stdout.write(page)
        return
    path = html or f"explain-{_UNSAFE.sub('-', row_id)[:_NAME_CHARS]}.html"
    if Path(path).exists() and not Path(path).is_file():
        # What is put in a device's place is gone for the whole machine.
        raise ConfigError(f"{path} is a folder or a device; give --html a file, or - to print the page")
    try:
        write_atomic(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror}; give --html another file") from error
    if screen.as_json:
        screen.print_json({**story, "html": path})
    else:
        screen.console.print(f"Row {story['row_id']} is told in {path}", soft_wrap=True)
