"""`rowbeam explain --html`: the page for auditors, and what the command prints."""

import os
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.explain import explain_row
from pipelines.explain_command import explain_to_screen
from pipelines.explain_html import render_story
from pipelines.explain_html_life import life
from pipelines.screen import Screen
from tests.unit.batch_outputs import RUN_3, make_answer, make_ended, make_exchange, make_opened
from tests.unit.batch_outputs import write_run as write_batch_run
from tests.unit.cli_outputs import RUN_1, make_call, request_id, row_end, write_run
from transforms.records.errors import ConfigError
from transforms.records.row import Outcome

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output of one row, whose text and answer try to be HTML."""
    folder = tmp_path / "out"
    end = row_end("R1", "q1", Outcome.ENRICHED, call_id="b1-000000", answered_in_run_id=RUN_1)
    row = {"id": "R1", "text": EVIL, "label": {"label": EVIL}, "label_request_id": request_id("q1")}
    write_run(folder, rows=[end], calls=[make_call(0, "q1", text=EVIL)], enriched=[row])
    return folder


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(output: Path) -> None:
    """No script, no link, no address outside; a row's text stays text."""
    page = render_story(explain_row(str(output), "R1"), str(output))
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|src=|href=|https?://", page)


def test_the_page_tells_the_whole_story(output: Path) -> None:
    """Source, request, hashes, files with their sha256 and cost are on it."""
    story = explain_row(str(output), "R1")
    page = render_story(story, str(output))
    told = [story["source"], story["request"]["request_id"], story["row_hash"]["sha256"], "$0.0000345", "Be brief."]
    told += [file["sha256"] for file in story["proof"]["files"]]
    assert [text for text in told if text not in page] == []


def test_the_page_of_a_pending_row_in_a_batch_is_made(tmp_path: Path) -> None:
    """A row without values, answer or calls has a page too, with its batch's exchanges."""
    records = [make_opened(), make_exchange(0, "upload"), make_exchange(1, "create"), make_ended(RUN_1)]
    write_batch_run(tmp_path, RUN_1, rows=[row_end("R1", "q1", Outcome.PENDING)], records=records)
    page = render_story(explain_row(str(tmp_path), "R1"), "out")
    assert "create of the batch" in page
    assert "nothing yet: a batch is billed by its answers." in page


def test_the_answer_of_a_batch_is_a_moment_when_it_came(tmp_path: Path) -> None:
    """Its call is drawn at its end, without a bar as long as the batch."""
    records = [make_opened(), make_exchange(0, "create"), make_answer(1, "q1", RUN_1), make_ended(RUN_1, "completed")]
    ends = [row_end("R1", "q1", Outcome.ENRICHED, call_id="bbatch1-000001", answered_in_run_id=RUN_1)]
    write_batch_run(tmp_path, RUN_1, rows=ends, records=records)
    moments = life(explain_row(str(tmp_path), "R1")["timeline"])
    (answer,) = [one for one in moments if one["what"].startswith("Question")]
    assert (answer["bar"], "2 h 00 min in the batch" in answer["detail"]) == (None, True)


@pytest.mark.parametrize(
    ("as_json", "html"),
    [
        pytest.param(False, None, id="tree"),
        pytest.param(True, None, id="json"),
        pytest.param(True, "", id="page-and-json"),
    ],
)
def test_the_command_shows_the_story(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool, html: str | None
) -> None:
    """As a tree, as one line of JSON, and as a page named after the row."""
    monkeypatch.chdir(output)
    explain_to_screen(Screen(as_json=as_json), str(output), "R1", None, html)
    printed = capsys.readouterr().out
    if as_json:
        assert orjson.loads(printed).get("html") == ("explain-R1.html" if html == "" else None)
    else:
        assert printed.startswith("Row R1  enriched")
    assert Path("explain-R1.html").is_file() is (html is not None)


def test_the_page_can_be_printed(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With - as the file the page goes to standard output."""
    explain_to_screen(Screen(), str(output), "R1", None, "-")
    assert capsys.readouterr().out.startswith("<!doctype html>")


def test_equal_stories_give_equal_pages(output: Path) -> None:
    """The page has no time of its own."""
    story: dict[str, Any] = explain_row(str(output), "R1")
    assert render_story(story, "out") == render_story(story, "out")
    assert RUN_3 not in render_story(story, "out")


def test_a_device_is_never_replaced_by_the_page(output: Path, tmp_path: Path) -> None:
    """A page is renamed into its place; what stands there as a pipe or a device would be gone for all."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="a folder or a device; give --html a file"):
        explain_to_screen(Screen(), str(output), "R1", None, str(pipe))
    assert pipe.is_fifo()


def test_a_page_on_standard_output_is_not_asked_for_with_json(output: Path) -> None:
    """Programs that read --json are never given a page."""
    with pytest.raises(ConfigError, match="--html - prints the page"):
        explain_to_screen(Screen(as_json=True), str(output), "R1", None, "-")


@pytest.mark.parametrize(
    ("row_id", "told"),
    [
        pytest.param("a\nb", "a row 'a b'; near", id="newline"),
        pytest.param("", "a row ''; near", id="empty"),
        pytest.param("L" * 9_000, "...'; near", id="long"),
    ],
)
def test_an_unknown_row_is_named_on_one_short_line(output: Path, row_id: str, told: str) -> None:
    """Whatever was typed, what is wrong stays one line that can be read."""
    with pytest.raises(ConfigError) as caught:
        explain_row(str(output), row_id)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
