"""SIGKILL at any moment: what is re-sent was in flight, nothing is lost, no row is written twice (P1, P2, P4)."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.sandbox.server import RunningSandbox
from tests.conformance.jobs import Output, answers_by_id, broken_references, plain_rows, write_csv, write_job
from tests.faults.forked_runs import ForkedRuns

#: Outcomes of calls that the sandbox was paid for, with the faults used here.
_PAID = {"ok", "refusal", "truncated"}
_FAULTS = "server_error=0.05,refusal=0.04,truncation=0.03,wrong_json=0.04"


@pytest.fixture(scope="module")
def forked(_closed_world: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedRuns]:
    """Cheap processes for runs, with a key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-sandbox-key-0123456789")
        with ForkedRuns(tmp_path_factory.mktemp("forked") / "runs.log") as runs:
            yield runs


def _answered(sandbox: RunningSandbox) -> dict[str, Any]:
    """Return the bill when nobody is being answered any more."""
    while (bill := sandbox.bill())["in_flight"] or sandbox.stats()["concurrency"]:
        time.sleep(0.02)
    return bill


def _paid_calls(output: Output) -> list[dict[str, Any]]:
    return [call for call in output.ledger_calls() if call["kind"] in _PAID]


def _wait_for(forked: ForkedRuns, sandbox: RunningSandbox, accepted: int, limit_s: float) -> None:
    """Wait until the bill has so many entries, the run has ended or the time is over."""
    until = time.monotonic() + limit_s
    while forked.is_running() and time.monotonic() < until and sandbox.bill()["accepted"] < accepted:
        time.sleep(0.01)


def _kill_and_restart(
    forked: ForkedRuns, sandbox: RunningSandbox, job: Path, *, rows: int, kills: int, draw: random.Random
) -> list[int]:
    """Kill that many runs of the job; return what was in flight at each kill."""
    output, in_flight, lost = Output(job.parent / "out"), [], 0
    while len(in_flight) < kills:
        done = sandbox.bill()["accepted"]
        forked.start(job)
        if len(in_flight) % 5 == 0:
            time.sleep(draw.uniform(0.0, 1.0))  # before the first call
        else:
            share = 1.7 * (rows - done) / (kills - len(in_flight))
            _wait_for(forked, sandbox, done + 1 + int(draw.uniform(0, share)), limit_s=30)
            time.sleep(draw.uniform(0.0, 0.3))
        if forked.kill() != -9:
            continue  # it had ended by itself
        missing = _answered(sandbox)["accepted"] - len(_paid_calls(output))
        in_flight.append(missing - lost)
        lost = missing
    return in_flight


def _finish(forked: ForkedRuns, job: Path) -> str:
    """Run the job to its end and return the run's id."""
    forked.start(job)
    assert forked.wait() == 0
    latest = orjson.loads((job.parent / "out" / "latest.json").read_bytes())
    run_id: str = latest["run_id"]
    return run_id


def _ends(output: Output, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the enriched rows and the dead letters' kinds, by id.

    Without request ids: the undisturbed run asks a sandbox at another address, which is part of a request's identity.
    """
    letters = {letter["row_id"]: letter["kind"] for letter in output.dead_letters(run_id)}
    assert len(letters) == len(output.dead_letters(run_id))
    rows = [
        {name: value for name, value in row.items() if name != "sentiment_request_id"}
        for row in output.enriched(run_id)
    ]
    return answers_by_id(rows), letters


def _check_kills(
    forked: ForkedRuns, tmp_path: Path, *, rows: int, kills: int, max_in_flight: int, latency_s: float, faults: str
) -> None:
    draw = random.Random(rows)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    jobs = {}
    pool = {"max_in_flight": max_in_flight}
    with RunningSandbox(faults=faults) as quick, RunningSandbox(latency_s=latency_s, faults=faults) as sandbox:
        for folder, provider in ((calm, quick), (killed, sandbox)):
            folder.mkdir()
            write_csv(folder / "reviews.csv", plain_rows(rows))
            jobs[folder] = write_job(folder, provider.base_url("openai"), pool=pool)
        undisturbed = _ends(Output(calm / "out"), _finish(forked, jobs[calm]))

        in_flight = _kill_and_restart(forked, sandbox, jobs[killed], rows=rows, kills=kills, draw=draw)
        last = _finish(forked, jobs[killed])
        bill, requests = _answered(sandbox), sandbox.stats()["requests"]

        output = Output(killed / "out")
        assert all(0 <= count <= max_in_flight for count in in_flight)
        assert bill["accepted"] - bill["distinct"] <= sum(in_flight)
        asked = [call["request_id"] for call in _paid_calls(output)]
        assert len(asked) == len(set(asked)) == bill["distinct"]
        assert _ends(output, last) == undisturbed
        assert len(undisturbed[0]) + len(undisturbed[1]) == rows

        statuses = output.values("select status from {runs} order by started_at")
        assert statuses[-1] == "done"
        assert set(statuses[:-1]) <= {"crashed"}
        assert broken_references(output) == {}
        assert len(output.values("select call_id from {calls}")) == len(output.ledger_calls())

        again = _finish(forked, jobs[killed])
        assert (sandbox.bill()["accepted"], sandbox.stats()["requests"]) == (bill["accepted"], requests)
        assert _ends(output, again) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_kills_of_a_faulty_run_re_send_only_what_was_in_flight(forked: ForkedRuns, tmp_path: Path) -> None:
    """Three SIGKILLs over 300 rows with faults: paid twice is what was in flight; the output is the undisturbed one."""
    _check_kills(forked, tmp_path, rows=300, kills=3, max_in_flight=25, latency_s=0.2, faults=_FAULTS)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_twenty_kills_of_2000_rows_re_send_only_what_was_in_flight(forked: ForkedRuns, tmp_path: Path) -> None:
    """Twenty SIGKILLs over 2,000 rows: paid twice is what was in flight; the output is the undisturbed one."""
    _check_kills(forked, tmp_path, rows=2000, kills=20, max_in_flight=50, latency_s=0.3, faults="")


def test_a_retried_bundle_sends_only_what_was_in_flight(forked: ForkedRuns, tmp_path: Path) -> None:
    """A bundle whose worker dies half-way is tried again in the same run: settled calls are read, the rest is sent."""
    write_csv(tmp_path / "reviews.csv", plain_rows(80))
    with RunningSandbox(latency_s=0.3) as sandbox:
        job = write_job(tmp_path, sandbox.base_url("openai"), pool={"max_in_flight": 10})
        forked.start(job, group_run_id="20261121T000000-000001")
        _wait_for(forked, sandbox, 45, limit_s=60)
        assert forked.kill() == -9
        accepted = _answered(sandbox)["accepted"]
        output = Output(tmp_path / "out")
        recorded = len(_paid_calls(output))
        assert 0 < recorded < accepted <= recorded + 10

        from tests.faults.one_group import ask_group

        answers = []
        for answer in ask_group(str(job), "20261121T000000-000001"):
            # On record before any later stage sees it (P4).
            assert answer.call_id in {call["call_id"] for call in output.ledger_calls()}
            answers.append(answer)
        bill = _answered(sandbox)
    assert len({answer.request.request_id for answer in answers}) == len(answers) == 80
    assert sum(answer.reused for answer in answers) == recorded
    assert bill["accepted"] - bill["distinct"] <= accepted - recorded
    calls = output.ledger_calls()
    assert len({call["batch_id"] for call in calls}) == 1
    assert sorted(call["call_index"] for call in calls) == list(range(80))
