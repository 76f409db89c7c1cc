"""How a run ends when it can't just be done: exit codes, one sentence, and nothing lost (P1, P2, P3)."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.job import load_job
from pipelines.mishaps import judge
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, answers_by_id, beam_args, broken_references, plain_rows, run
from tests.conformance.turnstile import Answer, Turnstile, refusal
from transforms.records.errors import OutputBusyError
from transforms.storage.lease import Lease
from transforms.storage.runs import new_run_id

MakeJob = Callable[..., Path]

_ROWS = 60
_LET_IN = 20
_IN_FLIGHT = 5

_BAD_KEY = refusal(401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key")
_NO_CREDIT = refusal(429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota")
_DEAD = refusal(503, "The server is currently overloaded.", "service_unavailable_error", "server_is_overloaded")


@pytest.mark.parametrize(
    ("said", "exit_code", "words"),
    [
        pytest.param(_BAD_KEY, 6, ("openai", "401", "Incorrect API key"), id="key refused"),
        pytest.param(_NO_CREDIT, 6, ("openai", "429", "quota"), id="no credit left"),
        pytest.param(_DEAD, 5, ("openai has given no answer", "run the job again"), id="provider dead"),
    ],
)
def test_a_provider_that_stops_in_mid_run_leaves_the_rest_pending(
    make_job: MakeJob,
    sandbox: RunningSandbox,
    output: Output,
    runner: str,
    said: Answer,
    exit_code: int,
    words: tuple[str],
) -> None:
    """What was answered is written, nothing becomes a dead letter, and the next run asks only for the rest."""
    job = make_job(
        plain_rows(_ROWS),
        pool={"max_in_flight": _IN_FLIGHT, "breaker_after": 5, "give_up_after": 1.0, "max_attempts": 50},
    )
    with Turnstile(sandbox, lambda number, _: said if number >= _LET_IN else None) as turnstile:
        at_turnstile = f"model.base_url={turnstile.base_url}"
        stopped = run(job, at_turnstile, runner=runner)
        assert stopped.exit_code == exit_code
        assert all(word in stopped.sentence for word in words)
        assert "\n" not in stopped.sentence
        rows = stopped.summary["rows"]
        assert rows == {"in": _ROWS, "enriched": _LET_IN, "dead_lettered": 0, "pending": _ROWS - _LET_IN}
        assert len(answers_by_id(output.enriched(stopped.summary["run_id"]))) == _LET_IN
        if exit_code == 6:
            assert turnstile.requests <= _LET_IN + _IN_FLIGHT

        turnstile.decide = lambda _number, _key: None
        done = run(job, at_turnstile, runner=runner)
    assert (done.exit_code, done.summary["rows"]["enriched"]) == (0, _ROWS)
    assert done.summary["calls"] == {
        "sent": _ROWS - _LET_IN,
        "succeeded": _ROWS - _LET_IN,
        "failed": 0,
        "reused": _LET_IN,
    }
    bill = sandbox.bill()
    assert bill["accepted"] == bill["distinct"] == _ROWS
    assert broken_references(output) == {}


def test_a_key_that_is_refused_from_the_start_costs_nothing(
    make_job: MakeJob, sandbox: RunningSandbox, runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong key ends the run at once with exit 6, and every row waits."""
    job = make_job()
    monkeypatch.setenv("OPENAI_API_KEY", "bad-key")
    refused = run(job, runner=runner)
    assert (refused.exit_code, refused.summary["status"]) == (6, "refused")
    assert refused.summary["rows"]["pending"] == 30
    assert sandbox.bill()["accepted"] == 0


def test_too_many_dead_letters_is_exit_1(make_job: MakeJob, sandbox: RunningSandbox, runner: str) -> None:
    """Above limits.max_dead_letter_ratio the run ends with exit 1 and says how many; at the ratio it is done."""
    job = make_job(limits={"max_dead_letter_ratio": 0.05})
    sandbox.set_faults(refusal=0.4)
    result = run(job, runner=runner)
    dead = result.summary["rows"]["dead_lettered"]
    assert (result.exit_code, result.summary["status"]) == (1, "too_many_dead_letters")
    assert f"{dead} of 30 rows" in result.sentence
    allowed = run(job, f"limits.max_dead_letter_ratio={dead / 30}", runner=runner)
    assert (allowed.exit_code, allowed.summary["calls"]["sent"]) == (0, 0)


def test_a_second_run_is_told_who_holds_the_output(make_job: MakeJob, sandbox: RunningSandbox, runner: str) -> None:
    """While a run holds the lease another one sends nothing, ends with exit 2 and names the holder."""
    job = make_job()
    holder = new_run_id(datetime.now(UTC))
    with Lease(str(job.parent / "out" / "ledger"), holder), pytest.raises(OutputBusyError) as caught:
        run(job, runner=runner)
    mishap = judge(caught.value)
    assert mishap.exit_code == 2
    assert holder in mishap.sentence
    assert sandbox.stats()["requests"] == 0


def test_identical_requests_are_sent_once_and_fanned_out(
    make_job: MakeJob, sandbox: RunningSandbox, output: Output, runner: str
) -> None:
    """Rows that ask the same share one call, and each gets the answer (P2)."""
    rows = [{"id": f"r{n}", "text": f"text {n % 7}"} for n in range(70)]
    result = run(make_job(rows), runner=runner)
    assert result.summary["rows"]["enriched"] == 70
    assert result.summary["calls"]["sent"] == sandbox.bill()["accepted"] == 7
    found = answers_by_id(output.enriched(result.summary["run_id"]))
    by_text = {row["text"]: row["sentiment"] for row in found.values()}
    assert all(row["sentiment"] == by_text[row["text"]] for row in found.values())
    assert broken_references(output) == {}


def test_a_dry_run_sends_and_keeps_nothing(make_job: MakeJob, sandbox: RunningSandbox, runner: str) -> None:
    """Everything but the calls is done, every row is counted, and no output appears."""
    from pipelines.run import RunRequest, run_job

    job = make_job()
    request = RunRequest(load_job(str(job)), beam_args(runner))
    result = run_job(dataclasses.replace(request, dry_run=True))
    assert (result.exit_code, result.summary["rows"]["pending"]) == (0, 30)
    assert sandbox.stats()["requests"] == 0
    assert not (job.parent / "out").exists()
