"""The report: one page that needs nothing else, true to the facts, safe whatever rows and providers say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines import report
from pipelines.report_plots import (
    answer_plot,
    cost_plot,
    histogram_plot,
    outcome_plot,
    timeline_plot,
    traffic_plot,
)
from tests.unit.cli_outputs import RUN_1
from tests.unit.facts_outputs import answered, died, facts_job, write_facts_run
from transforms.records.call import CostSource
from transforms.records.failure import FailureKind

LABELS = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}}
EVIL = '<script>alert("x")</script>'


class Page(HTMLParser):
    """What a page loads and runs, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = [value or "" for name, value in attrs if name in ("src", "href")]
        self.outside += [value for value in found if not value.startswith("data:image/svg+xml;base64,")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    """The report of a run with answers, a dead letter that quotes HTML, and an unknown cost."""
    output = tmp_path_factory.mktemp("out")
    unknown = {"cost_usd": None, "cost_source": CostSource.UNKNOWN, "cost_reason": "the price table has no such model"}
    made = [answered(RUN_1, f"r{n}", {"label": "good" if n % 3 else "bad"}, n, latency_ms=100.0 + n) for n in range(6)]
    made += [answered(RUN_1, "r6", {"label": "bad"}, 6, **unknown)]
    cut, cut_end, letter = died(RUN_1, "r7", FailureKind.TRUNCATED, 7)
    letter["reason"] = EVIL
    calls, rows, enriched = (list(part) for part in zip(*made, strict=True))
    estimate = {
        "method": "characters",
        "input_tokens_per_request": {"estimated": 90.0, "actual": 100.0, "error": -0.1},
        "usd_per_request": {"estimated": None, "actual": "0.0001", "error": None},
    }
    budget = {"max_usd": "1", "per": "output", "charged_usd": "0.25", "left_usd": "0.75"}
    write_facts_run(
        output, job=facts_job(LABELS), calls=[*calls, cut], rows=[*rows, cut_end], enriched=enriched,
        letters=[letter], summary={"estimate": estimate, "budget": budget},
    )  # fmt: skip
    made_report = report.write_report(str(output))
    return Page(Path(made_report["report"]).read_text(encoding="utf-8"))


def test_it_needs_no_network_and_runs_no_script(page):
    """Nothing is loaded from outside, nothing is run, and what a row says is text."""
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.outside == []
    assert EVIL in page.text


@pytest.mark.parametrize(
    "words",
    [
        "dead letters",
        "raise model.params.max_output_tokens",
        "the price table has no such model",
        "and 1 of unknown cost",
        "$0.2500 of $1.00",
        "-10%",
        "rowbeam verify",
    ],
)
def test_it_tells(page, words):
    """Outcomes, what to do, unknown costs with their reason, budget, estimate against actual, and how to check."""
    assert words.replace("$1.00", "$1.0000") in re.sub(r"\s+", " ", page.text)


def test_it_is_the_same_for_the_same_run(tmp_path):
    """Writing it again gives the same bytes."""
    end = answered(RUN_1, "a", {"label": "good"}, 0)
    write_facts_run(tmp_path, job=facts_job(LABELS), calls=[end[0]], rows=[end[1]], enriched=[end[2]])
    first = Path(report.write_report(str(tmp_path))["report"]).read_bytes()
    assert Path(report.write_report(str(tmp_path))["report"]).read_bytes() == first


@pytest.mark.parametrize(
    "picture",
    [
        pytest.param(lambda: outcome_plot({"enriched": 0, "dead_lettered": 0, "pending": None}), id="no rows"),
        pytest.param(lambda: cost_plot([{"model": "m", "mode": "auto", "cost_usd": None}]), id="no known cost"),
        pytest.param(lambda: histogram_plot("ms", None), id="no calls"),
        pytest.param(lambda: timeline_plot([]), id="no batches"),
        pytest.param(lambda: traffic_plot([]), id="no traffic"),
        pytest.param(
            lambda: answer_plot({"kind": "category", "values": [], "field": "f", "count": 0}), id="no answers"
        ),
    ],
)
def test_there_is_no_picture_of_nothing(picture):
    """Where there is nothing to draw, nothing is drawn."""
    assert picture() is None


def test_a_value_that_looks_like_a_formula_is_drawn_as_it_is():
    """Dollar signs would start mathematics, and a broken formula would break the report."""
    answer = {"kind": "category", "field": "f", "count": 3, "values": [{"value": "$x_{$ \\frac", "count": 3}]}
    assert answer_plot(answer).startswith(b"<?xml")
