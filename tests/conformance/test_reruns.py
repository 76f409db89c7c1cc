"""Same job, same state: a second run sends nothing; a change re-sends exactly what it changes (P8)."""

from collections.abc import Callable
from pathlib import Path

from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import SCHEMA, Output, answers_by_id, broken_references, merge, plain_rows, run, write_csv

MakeJob = Callable[..., Path]

_OTHER_SCHEMA = merge(
    SCHEMA, {"properties": {"reason": {"type": "string"}}, "required": [*SCHEMA["required"], "reason"]}
)


def test_a_second_run_sends_nothing_and_gives_the_same_rows(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """The rerun, also with other limits, reuses every answer; enriched rows are equal in every column."""
    job = make_job()
    first = run(job, runner=runner)
    bill, requests = sandbox.bill(), sandbox.stats()["requests"]
    again = run(job, "pool.max_in_flight=7", "batching.group_size=3", "name=other", runner=runner)
    assert (sandbox.bill(), sandbox.stats()["requests"]) == (bill, requests)
    assert again.summary["calls"] == {"sent": 0, "succeeded": 0, "failed": 0, "reused": 30}
    assert (again.exit_code, again.summary["cost_usd"]) == (0, "0")
    runs = (first.summary["run_id"], again.summary["run_id"])
    before, after = (answers_by_id(output.enriched(run_id)) for run_id in runs)
    assert after == before
    assert set(output.values("select answered_in_run_id from {rows} where run_id = $1", runs[1])) == {runs[0]}
    assert broken_references(output) == {}


def test_what_answered_at_another_address_is_not_reused(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """A rehearsal's answers never pass for the provider's; each address keeps its own."""
    job = make_job()
    first = run(job, runner=runner)
    with RunningSandbox() as other:
        there = run(job, f"model.base_url={other.base_url('openai')}", runner=runner)
        assert there.summary["calls"] == {"sent": 30, "succeeded": 30, "failed": 0, "reused": 0}
        assert other.bill()["accepted"] == 30
    here = run(job, runner=runner)
    assert here.summary["calls"] == {"sent": 0, "succeeded": 0, "failed": 0, "reused": 30}
    asked = [set(output.values("select request_id from {rows} where run_id = $1", one.summary["run_id"]))
             for one in (first, there, here)]  # fmt: skip
    assert asked[0] == asked[2]
    assert not asked[0] & asked[1]
    assert sandbox.bill()["accepted"] == 30


def test_a_crowd_of_equal_rows_is_asked_once(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """A hundred rows share one call, and all are enriched; so they are when the answer is already known."""
    rows = [{"id": f"r{number}", "text": "It works."} for number in range(100)]
    job = make_job(rows)
    first = run(job, runner=runner)
    again = run(job, runner=runner)
    assert [one.summary["calls"]["sent"] for one in (first, again)] == [1, 0]
    assert sandbox.bill()["accepted"] == 1
    ends = {row["id"]: "enriched" for row in rows}
    for one in (first, again):
        assert one.summary["rows"] == {"in": 100, "enriched": 100, "dead_lettered": 0, "pending": 0}
        assert len(answers_by_id(output.enriched(one.summary["run_id"]))) == 100
        assert set(output.row_ends(one.summary["run_id"]).values()) == set(ends.values())
    assert broken_references(output) == {}


_CHANGES = {
    "prompt.template={{ row.text }} Positive or not?": 30,
    "prompt.system=You are brief.": 30,
    "model.params.max_output_tokens=150": 30,
    "model.name=gpt-4o-2024-08-06": 30,
    f"answer.schema={_OTHER_SCHEMA}": 30,
    "answer.flatten=true": 0,
}


def test_a_change_of_the_job_re_sends_what_it_changes(make_job: MakeJob, sandbox: RunningSandbox, runner: str) -> None:
    """Template, system prompt, params, model and schema are part of a request; what is only output is not."""
    job = make_job()
    run(job, runner=runner)
    sent = {change: run(job, change, runner=runner).summary["calls"]["sent"] for change in _CHANGES}
    assert sent == _CHANGES
    assert sandbox.bill()["distinct"] == sandbox.bill()["accepted"] == 6 * 30


def test_a_change_that_concerns_some_rows_re_sends_those(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str, workdir: Path
) -> None:
    """One changed text and four new rows cost five calls; a template that differs for two rows costs two."""
    template = "{{ row.text }}{% if row.id in lookup.strict %} Be strict.{% endif %}"
    strict = workdir / "strict.yaml"
    strict.write_text("[]")
    job = make_job(prompt={"template": template, "lookup": {"strict": "strict.yaml"}})
    run(job, runner=runner)
    rows = plain_rows(34)
    rows[3]["text"] = "Not what I ordered."
    write_csv(job.parent / "reviews.csv", rows)
    more = run(job, runner=runner)
    assert more.summary["calls"] == {"sent": 5, "succeeded": 5, "failed": 0, "reused": 29}
    assert len(answers_by_id(output.enriched(more.summary["run_id"]))) == 34
    strict.write_text("[r7, r30]")
    stricter = run(job, runner=runner)
    assert stricter.summary["calls"] == {"sent": 2, "succeeded": 2, "failed": 0, "reused": 32}
    assert sandbox.bill()["accepted"] == 37


def test_failures_that_time_may_cure_are_asked_again_and_others_are_not(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """After a run with time-outs, refusals and truncations the next run sends the timed-out requests only."""
    job = make_job(plain_rows(60), pool={"timeout": "500ms", "max_attempts": 1})
    sandbox.set_faults(hang=0.2, refusal=0.2, truncation=0.2, sticky=["hang", "refusal", "truncation"])
    first = run(job, runner=runner)
    letters = {letter["row_id"]: letter for letter in output.dead_letters(first.summary["run_id"])}
    timed_out = {row_id for row_id, letter in letters.items() if letter["kind"] == "timeout"}
    assert {letter["kind"] for letter in letters.values()} == {"timeout", "refusal", "truncated"}
    assert {row_id for row_id, letter in letters.items() if letter["retryable"]} == timed_out

    sandbox.set_faults()
    second = run(job, runner=runner)
    assert second.summary["calls"]["sent"] == len(timed_out)
    still = {letter["row_id"]: letter for letter in output.dead_letters(second.summary["run_id"])}
    assert set(still) == set(letters) - timed_out
    assert all((letter["kind"], letter["call_id"]) == (letters[row_id]["kind"], letters[row_id]["call_id"])
               for row_id, letter in still.items())  # fmt: skip
    assert timed_out <= set(answers_by_id(output.enriched(second.summary["run_id"])))
    assert broken_references(output) == {}
