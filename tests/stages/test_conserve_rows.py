"""ConserveRows through the runner."""

import apache_beam as beam

from tests.stages.harness import run_stage
from transforms.conserve_rows import MAX_NAMED, ConserveRows
from transforms.records.row import Outcome, RowOutcome


def conserve(read, *parts):
    """Run the stage over positions (lines) and lists of (line, outcome); return its one dict."""

    def build(root):
        outcomes = [
            root | f"Ended{n}" >> beam.Create([RowOutcome(f"r{line}", "a.csv", line, end) for line, end in part])
            for n, part in enumerate(parts)
        ]
        return root | "Read" >> beam.Create([("a.csv", line) for line in read]) | ConserveRows(outcomes)

    (verdict,) = run_stage(build)["main"]
    return verdict


def test_rows_that_end_once_add_up():
    """Each outcome is counted; nothing is broken."""
    ended = [(1, Outcome.ENRICHED), (2, Outcome.ENRICHED)], [(3, Outcome.DEAD_LETTERED), (4, Outcome.PENDING)]
    assert conserve([1, 2, 3, 4], *ended) == {
        "in": 4, "enriched": 2, "dead_lettered": 1, "pending": 1, "broken": 0, "broken_ids": [],
    }  # fmt: skip


def test_lost_doubled_and_invented_rows_are_named():
    """Even where the totals agree: proof is by identity (P1)."""
    ended = [(1, Outcome.ENRICHED), (1, Outcome.PENDING), (3, Outcome.ENRICHED), (9, Outcome.ENRICHED)]
    verdict = conserve([1, 2, 3, 3], ended)
    assert (verdict["in"], verdict["enriched"], verdict["broken"]) == (4, 0, 4)
    assert verdict["broken_ids"] == [
        "a.csv:1: read 1 time(s), ended with enriched and pending",
        "a.csv:2: read 1 time(s), ended with no outcome",
        "a.csv:3: read 2 time(s), ended with enriched",
        "a.csv:9: read 0 time(s), ended with enriched",
    ]


def test_very_many_broken_rows_are_all_counted_and_some_named():
    """The list stays short enough to read."""
    verdict = conserve(range(50), [])
    assert (verdict["broken"], len(verdict["broken_ids"])) == (50, MAX_NAMED)


def test_no_rows_are_nothing_broken():
    """An input without rows has counts, too."""
    assert conserve([], []) == {
        "in": 0, "enriched": 0, "dead_lettered": 0, "pending": 0, "broken": 0, "broken_ids": [],
    }  # fmt: skip
