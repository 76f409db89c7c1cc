"""One bad row harms no other: every kind of bad input line, among good ones (P1, P7)."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, answers_by_id, broken_references, plain_rows, run

MakeJob = Callable[..., Path]

_CSV = (
    b"id,text,stars\n",
    b"a,good,1\n",
    b"b,bad bytes \xff\xfe,2\n",  # line 3
    b"c,too,3,many\n",  # line 4
    b"d,too few\n",  # line 5
    b"e,fine,5\n",
    b"f,no number,five\n",  # line 7
    b",no key,8\n",  # line 8
    b"twin,one,9\n",  # line 9
    b"twin,another,10\n",  # line 10
    b'g,"good, over\ntwo lines",11\n',
    b"h,no stars,\n",
    b'i,"never closed,13\n',  # line 14
)
_CSV_BAD = {
    3: ("read", "undecodable"),
    4: ("read", "malformed_row"),
    5: ("read", "malformed_row"),
    7: ("read", "wrong_type"),
    8: ("identify", "missing_key"),
    9: ("identify", "duplicate_key"),
    10: ("identify", "duplicate_key"),
    14: ("read", "malformed_row"),
}
_CSV_GOOD = {"a", "e", "g", "h"}

_JSONL = (
    b'{"id": "a", "text": "good", "by": {"name": "ann"}}\n',
    b'{"id": "b", "text": \n',  # line 2
    b'{"id": "c", "text": "good"}\n',  # line 3: no key that the template names
    b'["no", "object"]\n',  # line 4
    b'{"text": "no key"}\n',  # line 5
    b'{"id": "d", "text": "good", "by": {"name": "dan"}, "note": "has a default"}\n',
    b'{"id": "e", "text": "bad \xff"}\n',  # line 7
)
_JSONL_BAD = {
    2: ("read", "malformed_row"),
    3: ("render", "missing_column"),
    4: ("read", "malformed_row"),
    5: ("identify", "missing_key"),
    7: ("read", "undecodable"),
}
_JSONL_GOOD = {"a", "d"}


@pytest.mark.parametrize("on_failure", ["dead_letter", "keep"])
@pytest.mark.parametrize(
    ("name", "lines", "bad", "good"),
    [
        pytest.param("reviews.csv", _CSV, _CSV_BAD, _CSV_GOOD, id="csv"),
        pytest.param("reviews.jsonl", _JSONL, _JSONL_BAD, _JSONL_GOOD, id="jsonl"),
    ],
)
def test_each_bad_row_is_a_dead_letter_with_its_line_and_all_others_are_enriched(
    make_job: MakeJob,
    sandbox: RunningSandbox,
    output: Output,
    runner: str,
    name: str,
    lines: tuple[bytes, ...],
    bad: dict[int, tuple[str, str]],
    good: set[str],
    on_failure: str,
) -> None:
    """Every bad line is told with its stage, kind, place and text; only good rows are asked about."""
    types = {"stars": "integer"} if name.endswith("csv") else {}
    template = (
        "{{ row.text }}" if name.endswith("csv") else "{{ row.text }} By {{ row.by.name }} {{ row.note | default('') }}"
    )
    job = make_job(input={"path": name, "types": types}, prompt={"template": template}, on_failure=on_failure)
    (job.parent / name).write_bytes(b"".join(lines))
    result = run(job, runner=runner)

    letters = output.dead_letters(result.summary["run_id"])
    assert {letter["source"]["line"]: (letter["stage"], letter["kind"]) for letter in letters} == bad
    assert len(letters) == len(bad)
    for letter in letters:
        assert letter["source"]["path"].endswith(name)
        assert letter["attempts"] == 0
        assert not letter["retryable"]
        assert letter["reason"]
        assert isinstance(letter["row"], str) == (letter["kind"] in {"undecodable", "malformed_row"})
    assert result.summary["rows"] == {
        "in": len(good) + len(bad), "enriched": len(good), "dead_lettered": len(bad), "pending": 0
    }  # fmt: skip
    assert sandbox.bill()["accepted"] == len(good)

    rows = output.enriched(result.summary["run_id"])
    answered = answers_by_id([row for row in rows if row["sentiment"] is not None])
    assert set(answered) == good
    # Kept are failed rows that could be read; a line that can't be read has no columns to keep.
    kept = [row for row in rows if row["sentiment"] is None]
    readable = [letter for letter in letters if letter["stage"] != "read"]
    assert len(kept) == (len(readable) if on_failure == "keep" else 0)
    assert {row["sentiment_error"].partition(":")[0] for row in kept} <= {letter["kind"] for letter in readable}
    assert broken_references(output) == {}


def test_kept_rows_carry_the_error_of_their_call(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """With on_failure keep a refused row is a dead letter and an enriched row with a null answer and its error."""
    job = make_job(plain_rows(30), on_failure="keep", answer={"flatten": True})
    sandbox.set_faults(refusal=0.3)
    result = run(job, runner=runner)
    letters = {letter["row_id"] for letter in output.dead_letters(result.summary["run_id"])}
    rows = answers_by_id(output.enriched(result.summary["run_id"]))
    assert 0 < len(letters) < 30
    assert len(rows) == 30
    for row_id, row in rows.items():
        failed = row_id in letters
        assert (row["sentiment"] is None) == (row["sentiment_label"] is None) == failed
        assert (row["sentiment_error"] or "").startswith("refusal: ") == failed
    ends = output.row_ends(result.summary["run_id"])
    assert ends == {row_id: "dead_lettered" if row_id in letters else "enriched" for row_id in rows}


def test_the_whole_row_is_in_its_dead_letter(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """A dead letter holds every column of its row, as it was read."""
    rows = [{"id": f"r{n}", "text": f"text {n}", "note": orjson.dumps({"n": n}).decode()} for n in range(5)]
    job = make_job(rows)
    sandbox.set_faults(truncation=1.0)
    result = run(job, runner=runner)
    assert {letter["row_id"]: letter["row"] for letter in output.dead_letters(result.summary["run_id"])} == {
        row["id"]: row for row in rows
    }
