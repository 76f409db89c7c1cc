"""The report where answers are in scripts that fonts lack, and where there are hundreds of fields."""

from pathlib import Path
from typing import Any

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from pipelines import report_plots
from pipelines.report import PICTURED_FIELDS, write_report
from pipelines.report_plots import answer_plot, cost_plot, histogram_plot, is_drawable
from tests.unit.facts_outputs import facts_job, write_answers

#: Letters that no font has: Unicode keeps them free for ever.
_NOBODYS = "\ufdd0\ufdd1"
_LETTER = "\ufdd5"
_FIELDS = 24
_MANY_FIELDS = 200


def _forget() -> None:
    for known in (report_plots._font_with, report_plots._fonts, report_plots._letters):
        known.cache_clear()


@pytest.fixture
def font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A font on the machine that has one letter which others lack."""
    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 700)), (pen.lineTo, (700, 0))):
        move(point)
    pen.closePath()
    glyph, builder = pen.glyph(), FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({ord(_LETTER): "letter"})
    builder.setupGlyf({".notdef": glyph, "letter": glyph})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "letter": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Left Letters", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800)
    builder.setupPost()
    path = tmp_path / "letters.ttf"
    builder.save(path)
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    manager.addfont(path)
    _forget()
    yield "Left Letters"
    _forget()


def _category(*values: str) -> dict[str, Any]:
    shown = [{"value": value, "count": 5 + place, "share": 0.5} for place, value in enumerate(values)]
    return {"kind": "category", "field": "label", "count": 20, "values": shown}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("gut, bien, хорошо, καλό, טוב, جيد ✓ → …", id="the usual font has it"),
        pytest.param("on\ntwo lines", id="a line break"),
    ],
)
def test_what_the_usual_font_has_is_drawn(text: str) -> None:
    """Without a look at other fonts."""
    assert is_drawable(text)
    assert report_plots._style([text])["font.family"] == ["DejaVu Sans"]


def test_no_box_is_ever_drawn() -> None:
    """What no font has is named by its number; a box would come with a warning, which fails this test."""
    for text in (_NOBODYS, "\x07", "\ud800", f"$ {_NOBODYS}"):
        assert not is_drawable(text)
        assert answer_plot(_category("fine", text)).startswith(b"<?xml")
    assert answer_plot(_category("fine", _NOBODYS)) == answer_plot(_category("fine", "no. 2 (see the table)"))
    by = [{"model": name, "mode": "auto", "cost_usd": "1"} for name in ("a", _NOBODYS)]
    assert cost_plot(by).startswith(b"<?xml")
    stats = {"histogram": [{"low": 0, "high": 1, "count": 2}], "p50": 0.5}
    assert histogram_plot(f"label.{_NOBODYS}", stats) == histogram_plot("values", stats)


def test_a_font_of_the_machine_is_used_where_the_usual_one_lacks_a_letter(font: str) -> None:
    """Then the letter itself is drawn, and no table is needed."""
    assert is_drawable(f"so {_LETTER}")
    assert report_plots._style([f"so {_LETTER}", "more"])["font.family"] == ["DejaVu Sans", font]
    drawn = answer_plot(_category("fine", f"so {_LETTER}"))
    assert drawn not in (answer_plot(_category("fine", "so ")), answer_plot(_category("fine", "no. 2 (see the table)")))


def _page(output: Path) -> str:
    return Path(write_report(str(output))["report"]).read_text(encoding="utf-8")


def test_values_that_cannot_be_drawn_are_in_a_table(tmp_path: Path) -> None:
    """Numbered as in the picture."""
    write_answers(tmp_path, ["other" if number % 4 else _NOBODYS for number in range(20)])
    assert f'<td class="n">2</td><td>{_NOBODYS}</td>' in _page(tmp_path)


def test_a_job_with_hundreds_of_fields_has_a_small_page(tmp_path: Path) -> None:
    """The first fields have pictures, each of the others a line in a table, of some bytes, and the page says so."""
    kinds: list[Any] = [
        {"enum": ["yes", "no", "perhaps"]},
        {"type": "integer"},
        {"type": "boolean"},
        {"type": "string"},
    ]
    fields = {f"field_{number}": kinds[number % 4] for number in range(_FIELDS)}

    def answer(row: int) -> dict[str, Any]:
        made = [("yes", "no", "perhaps")[row % 3], row, row % 2 == 0, f"words of row {row}"]
        return {name: made[number % 4] for number, name in enumerate(fields)}

    job = facts_job({"type": "object", "properties": fields})
    write_answers(tmp_path, [answer(row) for row in range(40)], job=job)
    page = _page(tmp_path)
    listed = page.partition("Other fields")[2].partition("</table>")[0]
    further = _MANY_FIELDS - _FIELDS
    assert len(page) + further * len(listed) / (_FIELDS - PICTURED_FIELDS) < 500_000
    assert page.count("Distribution of label.") == PICTURED_FIELDS * 3 // 4
    assert f"pictures are of the first {PICTURED_FIELDS} fields only" in page
    assert all(f"label.field_{number}" in page for number in range(_FIELDS))
    assert "0 to 39, median" in page
    assert "true (50.0%), false (50.0%)" in page or "false (50.0%), true (50.0%)" in page
