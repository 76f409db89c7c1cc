"""SIGKILL at every step of a provider batch: the same rows in the end, and each request paid once (P1, P2, P3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.running import RunningSandbox
from tests.conformance.jobs import Output, answers_by_id, broken_references, plain_rows, write_csv, write_job
from tests.faults.batch_crash_steps import PROVIDERS, STEPS, MissedError, Scene, kill_at
from tests.faults.forked_runs import ForkedRuns

#: Two batches, each of more rows than are recorded by one write.
_ROWS, _PER_BATCH = 280, 260
#: Rows that fail in their batch and are asked once more in real time.
_ROW_ERRORS = 0.05
_TIMING = BatchTiming(validating_s=0.0, queue_s=0.05, duration_s=0.3)
_TRIES = 4
#: A provider with files and metadata; the others, in `make soak`, which continuous integration runs too.
_ALWAYS = ("openai",)
_TWINS = 3  # batches of one row
_MODELS: dict[str, dict[str, Any]] = {
    "openai": {},
    "azure_openai": {"provider": "azure_openai", "deployment": "d", "batch_deployment": "db"},
    "anthropic": {"provider": "anthropic", "name": "claude-haiku-4-5"},
    "openrouter": {"provider": "openrouter", "name": "openai/gpt-4o-mini"},
}


class Case(NamedTuple):
    """A job whose runs are killed at these steps, one run at each, and which is then let run to its end.

    loses: creates whose reply is lost, in every run anew; twins: every batch is of one request, so that time and
    count can't tell batches apart.
    """

    provider: str
    steps: tuple[str, ...]
    loses: int = 0
    twins: bool = False


class Ending(NamedTuple):
    """What is there in the end; broken: references that do not resolve; recorded: ids of requests, once per answer."""

    rows: dict[str, Any]
    bill: dict[str, Any]
    statuses: list[str]
    broken: dict[str, list[Any]]
    recorded: list[str]


@dataclass(frozen=True, slots=True)
class Bench:
    """A sandbox and a place for runs; rows: of undisturbed runs, by provider."""

    folder: Path
    sandbox: RunningSandbox
    forked: ForkedRuns
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def undisturbed(self, provider: str) -> dict[str, Any]:
        """Return the rows that a run gives which nothing befalls."""
        if provider not in self.rows:
            self.rows[provider] = _play(Case(provider, ()), self, self.folder / provider).rows
        return self.rows[provider]


@pytest.fixture(scope="module")
def bench(_closed_world: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A sandbox with short batches, and cheap processes for runs, with keys."""
    folder = tmp_path_factory.mktemp("crashes")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "OPENROUTER"):
            patch.setenv(f"{name}_API_KEY", "sk-sandbox-key-0123456789")
        with RunningSandbox(batch=_TIMING) as sandbox, ForkedRuns(folder / "runs.log") as forked:
            yield Bench(folder, sandbox, forked)


def _play(case: Case, bench: Bench, folder: Path) -> Ending:
    for number in range(_TRIES):
        scene = _scene(case, bench, folder / str(number))
        try:
            for step in case.steps:
                kill_at(scene, step)
        except MissedError:
            continue
        scene.start()
        assert scene.forked.wait() == 0
        return _ending(scene.output, bench.sandbox)
    raise AssertionError(f"no run of {_TRIES} was caught at {', '.join(case.steps)}")


def _scene(case: Case, bench: Bench, folder: Path) -> Scene:
    """Write the job into a new folder and let the sandbox forget what was."""
    folder.mkdir(parents=True)
    write_csv(folder / "reviews.csv", plain_rows(_TWINS if case.twins else _ROWS))
    bench.sandbox.reset()
    batching = {"mode": "provider_batch_api", "max_requests": 1} if case.twins else {"max_requests": _PER_BATCH}
    job = write_job(
        folder,
        bench.sandbox.base_url(case.provider),
        model=_MODELS[case.provider],
        batching={"mode": "auto", "poll_interval": "0.1s", "settle": "0.2s"} | batching,
    )
    return Scene(case.provider, bench.sandbox, bench.forked, job, case.loses, 0.0 if case.twins else _ROW_ERRORS)


def _ending(output: Output, sandbox: RunningSandbox) -> Ending:
    run_id = orjson.loads((output.folder / "latest.json").read_bytes())["run_id"]
    # Without request ids: the undisturbed run may have asked a sandbox at another address, which is part of them.
    rows = [{name: row[name] for name in row if name != "sentiment_request_id"} for row in output.enriched(run_id)]
    assert output.dead_letters(run_id) == []
    assert sorted(output.row_ends(run_id).values()) == ["enriched"] * len(rows)
    return Ending(
        answers_by_id(rows),
        sandbox.bill(),
        output.values("select status from {runs} order by started_at"),
        broken_references(output),
        [call["request_id"] for call in output.ledger_calls() if call["kind"] == "ok" and call["call_type"] == "LLM"],
    )


def _check(bench: Bench, folder: Path, case: Case) -> None:
    undisturbed = bench.undisturbed(case.provider)
    killed = _play(case, bench, folder)
    bill, count = killed.bill, _TWINS if case.twins else _ROWS
    assert len(undisturbed) == _ROWS
    assert len(killed.rows) == count
    assert killed.rows == {name: undisturbed[name] for name in killed.rows}
    assert bill["paid_twice"] == 0
    assert bill["batch_rows"] <= count
    assert bill["batch_billed"] + bill["accepted"] == count
    assert len(killed.recorded) == len(set(killed.recorded)) == count
    assert killed.statuses == ["crashed"] * len(case.steps) + ["done"]
    assert killed.broken == {}


def _param(case: Case) -> Any:
    lacking = [STEPS[step].lacking[case.provider] for step in case.steps if case.provider in STEPS[step].lacking]
    marks = [pytest.mark.skip(reason=f"{case.provider} has no step {case.steps[0]}: {lacking[0]}")] if lacking else []
    if case.provider not in _ALWAYS and not case.twins:
        marks.append(pytest.mark.soak)
    return pytest.param(case, id="-".join((case.provider, *case.steps)), marks=marks)


@pytest.mark.parametrize("case", [_param(Case(name, (step,), loses=1)) for name in PROVIDERS for step in STEPS])
def test_a_kill_at_any_step_costs_nothing(bench: Bench, tmp_path: Path, case: Case) -> None:
    """After a SIGKILL the next run ends with the undisturbed rows, and all is paid once; the first create is lost."""
    _check(bench, tmp_path, case)


def _steps_of(provider: str, steps: Sequence[str]) -> tuple[str, ...]:
    return tuple(step for step in steps if provider not in STEPS[step].lacking)


#: Killed twice in a row, also while adopting what runs before have left.
_IN_A_ROW = (
    "before_intent",
    "before_intent",
    "after_create",
    "in_download",
    "in_download",
    "in_collect",
    "before_sinks",
)
#: Again and again before there is a batch.
_NEVER_SENT = ("in_upload", "after_upload", "after_upload", "after_intent", "in_create", "in_create", "after_create")


@pytest.mark.soak
@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(Case(name, _IN_A_ROW, loses=1), id=f"{name}-with-lost-replies") for name in PROVIDERS),
        *(
            pytest.param(Case(name, _steps_of(name, _NEVER_SENT)), id=f"{name}-never-sent")
            for name in ("openai", "openrouter")
        ),
    ],
)
def test_kills_of_run_after_run_cost_nothing(bench: Bench, tmp_path: Path, case: Case) -> None:
    """Killed twice at one step, then in the runs that adopt the batches: the same rows, and all is paid once."""
    _check(bench, tmp_path, case)


@pytest.mark.parametrize(
    "case",
    [
        _param(Case(name, (step,), loses=1, twins=True))
        for name in ("anthropic", "openrouter")
        for step in ("after_intent", "after_create")
    ],
)
def test_batches_in_doubt_that_look_alike_are_told_apart(bench: Bench, tmp_path: Path, case: Case) -> None:
    """Where listings hold no metadata: of creates of one size without reply, some accepted, none is sent in vain."""
    _check(bench, tmp_path, case)
