"""pipelines/summary.py: what a run's counts come to, and with which exit code it ends."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipelines.batch_summary import count_batches
from pipelines.run_text import draw_run
from pipelines.summary import check_files, summarise
from tests.unit.batch_file_builders import make_handle, make_intent, make_staged
from transforms.records.call import BatchEnded, BatchOpened
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind
from transforms.records.settings import Job
from transforms.storage.arrow_types import BATCHES
from transforms.storage.audit_rows import batch_row
from transforms.storage.batch_ledger import create_intent, record_handle, write_staged
from transforms.storage.runs import RunFolder
from transforms.storage.tables import ParquetWriter

REFUSED = {"kind": "quota_exhausted", "reason": "openai refused the run: no money", "requests": 3}
DEAD = {
    "kind": None,
    "reason": "openai has given no answer for 300 s; run the job again when it is back",
    "requests": 2,
}
WAITING = {"kind": None, "reason": "batch b0 is running at openai", "requests": 2}
WITHHELD = {
    "kind": "results_withheld",
    "reason": "the results of batch b0 are withheld, not lost: no credits; add credits",
    "requests": 2,
}

CUT = [{"stage": "read", "kind": str(FailureKind.DAMAGED_FILE), "rows": 1}]


def prepared(folder="out", *, ratio=0.05, keep=False, file_format="parquet"):
    """Return what the summary needs of a prepared job."""
    job = Job.model_validate(
        {
            "name": "reviews",
            "input": {"path": "a.csv"},
            "output": str(folder),
            "prompt": {"template": "x"},
            "answer": {"field": "label"},
            "model": {"provider": "openai", "name": "m"},
            "limits": {"max_dead_letter_ratio": ratio},
        }
    )
    run = RunFolder(str(folder), "run-1")
    ledger = str(Path(folder) / "ledger")
    return SimpleNamespace(job=job, run=run, run_id="run-1", ledger=ledger, keep=keep, enriched_format=file_format)


def totals(enriched=0, dead=0, pending=0, *, broken=0, reasons=(), letters=None, **calls):
    """Return what a pipeline leaves."""
    counts = {"sent": 5, "succeeded": 4, "failed": 1, "input_tokens": 50, "output_tokens": 10, "cost_usd": "0.25"}
    counts |= {"unknown_cost": 0, "failures": {"timeout": 1}, "cost_reasons": {}, **calls}
    return {
        "rows": {
            "in": enriched + dead + pending + broken, "enriched": enriched, "dead_lettered": dead, "pending": pending,
            "broken": broken, "broken_ids": [f"a.csv:{n}: lost" for n in range(broken)],
        },
        "calls": counts,
        "pending": list(reasons),
        "dead_letters": letters or [{"stage": "call", "kind": "timeout", "rows": dead}] * bool(dead),
        "reused": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "ratio", "code", "status", "words"),
    [
        pytest.param(totals(10), 0.05, 0, "done", "", id="all enriched"),
        pytest.param(totals(), 0.0, 0, "done", "", id="no rows at all"),
        pytest.param(totals(95, 5), 0.05, 0, "done", "", id="as many dead letters as allowed"),
        pytest.param(totals(94, 6), 0.05, 1, "too_many_dead_letters", "6 of 100 rows (6.0%)", id="one too many"),
        pytest.param(totals(0, 1), 0.0, 1, "too_many_dead_letters", "max_dead_letter_ratio (0.0%)", id="none allowed"),
        pytest.param(totals(0, 9), 1.0, 0, "done", "", id="all may fail"),
        pytest.param(totals(5, 0, 2, reasons=[DEAD]), 0.05, 5, "pending", "2 row(s) wait: openai has given", id="dead"),
        pytest.param(totals(5, 0, 2), 0.05, 5, "pending", "2 row(s) wait: the run stopped", id="pending, no reason"),
        pytest.param(totals(5, 0, 3, reasons=[REFUSED]), 0.05, 6, "refused", "no money. 3 row(s) wait", id="refused"),
        pytest.param(totals(5, 0, 5, reasons=[DEAD, REFUSED]), 0.05, 6, "refused", "no money", id="refusal first"),
        pytest.param(totals(1, 9, 1, reasons=[DEAD]), 0.05, 5, "pending", "1 row(s) wait", id="pending before letters"),
        pytest.param(totals(1, 9, 3, reasons=[REFUSED]), 0.05, 6, "refused", "no money", id="refusal before letters"),
        pytest.param(totals(9, broken=2), 0.05, 3, "broken", "for 2 row(s): a.csv:0: lost; a.csv:1: lost", id="broken"),
        pytest.param(totals(1, 9, 3, broken=1, reasons=[REFUSED]), 0.05, 3, "broken", "broken", id="broken before all"),
    ],
)
def test_exit_code_status_and_sentence(found, ratio, code, status, words):
    """3 before 6 before 5 before 1 before 0; the sentence says what happened, and is empty when all is well."""
    result = summarise(prepared(ratio=ratio), found, 1.0)
    assert (result.exit_code, result.summary["status"]) == (code, status)
    assert words in result.sentence
    assert bool(result.sentence) == (code != 0)


@pytest.mark.parametrize(
    ("found", "code", "status"),
    [
        pytest.param(totals(99_999, 1, letters=CUT), 1, "incomplete_input", id="one letter among many rows"),
        pytest.param(totals(0, 9, letters=CUT), 1, "incomplete_input", id="before too many letters"),
        pytest.param(totals(9, 1, 3, letters=CUT, reasons=[DEAD]), 5, "pending", id="pending before it"),
    ],
)
def test_a_file_that_could_not_be_read_to_its_end_is_never_done(tmp_path, found, code, status):
    """One dead letter stands for any number of lost rows, so the ratio says nothing; the file is named."""
    job = prepared(tmp_path, ratio=1.0)
    letters = Path(job.run.dead_letters)
    letters.mkdir(parents=True)
    (letters / "part-00000.jsonl").write_text(
        '{"kind":"malformed_row","reason":"\\"damaged_file\\"","source":{"path":"sound.csv","line":1}}\n'
        '{"kind":"damaged_file","reason":"x","source":{"path":"rows.csv.gz","line":7}}\n'
    )
    result = summarise(job, found, 1.0)
    assert (result.exit_code, result.summary["status"]) == (code, status)
    if code == 1:
        assert result.sentence.startswith("rows.csv.gz could not be read to the end")


def test_the_summary_has_the_stable_keys():
    """As DESIGN section 6 fixes them; outputs name where things are."""
    summary = summarise(prepared(), totals(8, 1), 1.23456).summary
    assert {key: summary[key] for key in ("run_id", "rows", "calls", "tokens", "cost_usd", "duration_s")} == {
        "run_id": "run-1",
        "rows": {"in": 9, "enriched": 8, "dead_lettered": 1, "pending": 0},
        "calls": {"sent": 5, "succeeded": 4, "failed": 1, "reused": 7},
        "tokens": {"input": 50, "output": 10},
        "cost_usd": "0.25",
        "duration_s": 1.235,
    }
    assert summary["outputs"]["dead_letters"].endswith("dead_letters")
    assert summarise(prepared(), totals(9), 1.0).summary["outputs"]["dead_letters"] is None


@pytest.mark.parametrize(
    ("calls", "cost"),
    [
        pytest.param({"unknown_cost": 0}, "0.25", id="all known"),
        pytest.param({"unknown_cost": 2}, "0.25", id="some known"),
        pytest.param({"unknown_cost": 5}, None, id="none known"),
        pytest.param({"sent": 0, "unknown_cost": 0, "cost_usd": "0"}, "0", id="no calls"),
    ],
)
def test_an_unknown_cost_is_never_shown_as_nothing(calls, cost):
    """Null when no call's cost is known; how many are not known is told beside it."""
    summary = summarise(prepared(), totals(5, **calls), 1.0).summary
    assert (summary["cost_usd"], summary["calls_of_unknown_cost"]) == (cost, calls["unknown_cost"])


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        pytest.param({}, "$0.2500", id="all known"),
        pytest.param({"unknown_cost": 2, "cost_reasons": {"lost": 2}}, "at least $0.2500: 2 calls of unknown cost (lost)",
                     id="some known"),
        pytest.param({"unknown_cost": 5, "cost_reasons": {"lost": 2, "no price": 3}}, "unknown (no price)", id="none known"),
    ],
)  # fmt: skip
def test_a_partial_sum_is_told_as_one(calls, words):
    """People read "at least" where a call's cost is not known, and why."""
    console = Console(file=StringIO(), width=160, color_system=None)
    summary = summarise(prepared(), totals(5, **calls), 1.0).summary
    draw_run({"summary": summary, "sample": [], "field": "a", "example": None, "output": "o", "dry_run": True}, console)
    line = next(line for line in console.file.getvalue().splitlines() if "Cost" in line)
    assert line.replace("Cost", "").strip() == words


@pytest.mark.parametrize(
    ("written", "found", "keep", "is_right"),
    [
        pytest.param(3, totals(3), False, True, id="as counted"),
        pytest.param(2, totals(3), False, False, id="one lost"),
        pytest.param(4, totals(3), False, False, id="one twice"),
        pytest.param(5, totals(3, 2), True, True, id="failed rows kept"),
        pytest.param(3, totals(3, 2), True, False, id="failed rows not kept"),
        pytest.param(3, totals(3, 2, letters=[{"stage": "read", "kind": "undecodable", "rows": 2}]), True, True,
                     id="an unreadable line can't be kept"),
    ],
)  # fmt: skip
def test_the_files_are_checked_against_the_counts(tmp_path, written, found, keep, is_right):
    """A file with a row too few or too many is not passed off as the run's output (P1)."""
    job = prepared(tmp_path, keep=keep)
    Path(job.run.enriched).mkdir(parents=True)
    pq.write_table(pa.table({"id": list(range(written))}), Path(job.run.enriched) / "part-00000.parquet")
    if is_right:
        check_files(job, found)
    else:
        with pytest.raises(InternalError, match=f"holds {written} rows where"):
            check_files(job, found)


def with_batches(folder, *statuses):
    """Return a job whose run left batches with these statuses; the ledger knows none of them."""
    job = prepared(folder)
    opened = [
        BatchOpened(f"b{n}", f"k{n}", "run-1", "provider_batch_api", "openai", "m", 1, (), 10)
        for n, _ in enumerate(statuses)
    ]
    pool = BatchOpened("p", "kp", "run-1", "per_request", "openai", "m", 1, ())
    rows = [batch_row(one, 10, BatchEnded(one.batch_id, "run-1", status, 2, 0, 0, 0))
            for one, status in zip(opened, statuses, strict=True)]  # fmt: skip
    with ParquetWriter(f"{job.run.table('batches')}/part.parquet", BATCHES) as writer:
        writer.extend([*rows, batch_row(pool, 3, None)])
    return job


def test_the_summary_counts_the_provider_s_batches(tmp_path):
    """By how the run left each; groups of the pool are none of them."""
    statuses = ["completed", "expired", "submitted", "held_back", "unresolved", "not_taken"]
    summary = summarise(with_batches(tmp_path, *statuses), totals(9), 1.0).summary
    assert summary["batches"] == {"submitted": 0, "collected": 2, "left": 3, "not_taken": 1}
    assert summarise(prepared(), totals(9), 1.0).summary["batches"] == dict.fromkeys(summary["batches"], 0)


def test_a_batch_is_submitted_by_the_run_that_brought_it_to_the_provider(tmp_path):
    """The run that adopts it later collects it and submits nothing."""
    job = with_batches(tmp_path, "completed")
    write_staged(job.ledger, make_staged("k0"))
    create_intent(job.ledger, make_intent(key="k0"))
    record_handle(job.ledger, "k0", 0, replace(make_handle(), run_id="run-0"))
    assert count_batches(job.run, job.ledger)["submitted"] == 0
    assert count_batches(RunFolder(str(tmp_path), "run-0"), job.ledger)["submitted"] == 0
    Path(tmp_path / "runs" / "run-1").rename(tmp_path / "runs" / "run-0")
    assert count_batches(RunFolder(str(tmp_path), "run-0"), job.ledger)["submitted"] == 1


@pytest.mark.parametrize(
    ("statuses", "reasons", "code", "words"),
    [
        pytest.param(["submitted"], [WAITING], 5, "2 row(s) wait: batch b0 is running at openai. Run the same job again",
                     id="one"),
        pytest.param(["submitted", "held_back"], [WAITING], 5, "2 batches are left for the next run; the first: batch b0",
                     id="two"),
        pytest.param(["submitted"], [WITHHELD], 6, "add credits with the provider and run the job again: nothing is lost",
                     id="withheld"),
    ],
)  # fmt: skip
def test_rows_that_wait_in_batches_say_how_to_get_them(tmp_path, statuses, reasons, code, words):
    """A person, or whoever reads cron's mail, learns that the same command collects them."""
    result = summarise(with_batches(tmp_path, *statuses), totals(1, 0, 2, reasons=reasons), 1.0)
    assert result.exit_code == code
    assert words in result.sentence
    console = Console(file=StringIO(), width=120, color_system=None)
    draw_run(
        {"summary": result.summary, "sample": [], "field": "a", "example": None, "output": "o", "dry_run": True},
        console,
    )
    shown = console.file.getvalue()
    assert f"{len(statuses)} left for the next run" in shown
    assert reasons[0]["reason"] in shown
    assert ("nothing is lost" if code == 6 else "Run the same job again") in shown
