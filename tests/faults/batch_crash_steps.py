"""The steps of a provider batch at which a run is killed, and how a run is caught at exactly such a step.

A run is caught by watching what it leaves: the ledger's files, which come in a fixed order, and the sandbox's events,
some of which it holds. Close to a step the run goes in slow motion, stopped and let go in turns, and is looked at only
while it stands still; a kill counts only if the dead run is at the step still.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipelines.sandbox.batch_faults import BatchFaults
from pipelines.sandbox.faults import FaultPlan
from pipelines.sandbox.running import RunningSandbox
from tests.conformance.jobs import Output
from tests.faults.forked_runs import ForkedRuns

PROVIDERS = ("openai", "azure_openai", "anthropic", "openrouter")
_INLINE = {"anthropic": "requests go inline", "openrouter": "requests go inline"}
#: How long a run in slow motion goes between two looks, seconds.
_SLICE_S = 0.0003
#: How long what a killed run had sent may be under way, seconds.
_UNDER_WAY_S = 0.05
_LIMIT_S = 40.0


#: A batch that more than one run has to do with has a line of each of them in the audit.
class MissedError(Exception):
    """The run had passed the step, or never came to it; the case has to be begun again."""


@dataclass(slots=True)
class Scene:
    """One job, its sandbox and its output.

    Attributes:
        loses: creates whose reply is lost, in each run anew.
        row_errors: share of rows that fail in their batch and are asked once more in real time.
    """

    provider: str
    sandbox: RunningSandbox
    forked: ForkedRuns
    job: Path
    loses: int = 0
    row_errors: float = 0.0
    released: int = 0
    _known: set[tuple[str, int, int]] = field(default_factory=set)
    _old_runs: set[str] = field(default_factory=set)
    _last_event: int = 0

    @property
    def output(self) -> Output:
        """The job's output."""
        return Output(self.job.parent / "out")

    def start(self, **faults: int) -> None:
        """Start a run that meets these batch faults."""
        section = BatchFaults.model_validate({"lost_create": self.loses, **faults})
        self.sandbox.set_faults(FaultPlan(server_error=self.row_errors, batch=section))
        self._known = {_identity(path) for path in self._files("*/*") + self._files("*/*/*")}
        self._last_event = max((event["seq"] for event in self.sandbox.events()), default=0)
        self._old_runs = {path.name for path in (self.job.parent / "out" / "runs").glob("*")}
        self.released = 0
        self.forked.start(self.job)

    def made(self, pattern: str) -> int:
        """Count the ledger's files of a pattern that this run made."""
        return sum(_identity(path) not in self._known for path in self._files(pattern))

    def live(self, name: str) -> int:
        """Count the files of a name, whoever made them, of batches that are not closed."""
        return sum(not path.with_name("collected.json").exists() for path in self._files(f"batches/*/{name}"))

    def seen(self, event: str, **facts: Any) -> int:
        """Count the sandbox's events of a name since the run was started."""
        events = [one for one in self.sandbox.events(self._last_event) if one["event"] == event]
        return sum(all(one.get(name) == fact for name, fact in facts.items()) for one in events)

    def is_partly_collected(self) -> bool:
        """Tell whether this run has recorded results of a batch, and some of the batch's are not recorded yet."""
        calls = [call for call in self.output.ledger_calls() if call["call_type"] == "LLM"]
        for path in self._files("batches/*/collecting.json"):
            staged = orjson.loads(path.with_name("staged.json").read_bytes())
            recorded = [call["run_id"] for call in calls if call["batch_id"] == staged["batch_id"]]
            if not self._old_runs.issuperset(recorded) and len(recorded) < staged["request_count"]:
                return True
        return False

    def has_rows(self) -> bool:
        """Tell whether any run has put rows at rest."""
        return any((self.job.parent / "out" / "runs").glob("*/enriched/*.parquet"))

    def _files(self, pattern: str) -> list[Path]:
        found = (self.job.parent / "out" / "ledger").glob(pattern)
        return [path for path in found if not path.name.startswith(".")]


@dataclass(frozen=True, slots=True)
class Step:
    """A step at which a run can be killed.

    Attributes:
        near: the run will be there in a moment.
        here: it is there; asked while the run stands still, and once more when it is dead.
        faults: of the `batch` section, that hold the run there.
        lacking: providers that have no such step, with the reason.
    """

    near: Callable[[Scene], bool]
    here: Callable[[Scene], bool]
    faults: Mapping[str, int] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)


def _held(fault: str) -> Callable[[Scene], bool]:
    return lambda scene: scene.seen("held", fault=fault) > 0


def _made(pattern: str) -> Callable[[Scene], bool]:
    return lambda scene: scene.made(pattern) > 0


def _before_intent(scene: Scene) -> bool:
    is_staged = scene.made("batches/*/staged.json") > 0 == scene.made("intents/*.json")
    return is_staged and scene.seen("upload_begun") == scene.seen("create_begun") == 0


def _in_upload(scene: Scene) -> bool:
    is_stored = scene.seen("held", fault="hold_upload") == 1 and scene.seen("upload_done") == 1
    return is_stored and scene.made("batches/*/uploaded-*.json") == scene.made("intents/*.json") == 0


def _after_upload(scene: Scene) -> bool:
    return scene.made("batches/*/uploaded-*.json") == 1 and scene.made("intents/*.json") == 0


def _after_intent(scene: Scene) -> bool:
    # With lost replies it is the second intent: the first create is in doubt by then.
    creates = bool(scene.loses)
    return scene.made("intents/*.json") == creates + 1 and scene.seen("create_begun") == creates


def _in_create(scene: Scene) -> bool:
    is_held = scene.seen("held", fault="hold_before_create") == 1
    return is_held and scene.made("intents/*.json") == 1 and scene.seen("create_accepted") == 0


def _after_create(scene: Scene) -> bool:
    is_held = scene.seen("held", fault="hold_create") == 1
    accepted = scene.seen("create_accepted")
    return is_held and accepted == bool(scene.loses) + 1 and scene.made("batches/*/handle-*.json") == 0


def _polling(scene: Scene) -> bool:
    all_sent = scene.live("handle-*.json") == scene.live("staged.json") > 0 == scene.live("ended-*.json")
    return all_sent and scene.seen("status") > 0


def _in_status(scene: Scene) -> bool:
    is_held = scene.seen("held", fault="hold_download") == 1
    return is_held and scene.live("ended-*.json") == 0


def _near_download(scene: Scene) -> bool:
    """Let go what is held before a collection has begun: OpenRouter's status replies hold results, too."""
    if scene.seen("held", fault="hold_download") <= scene.released:
        return False
    if scene.made("batches/*/collecting.json"):
        return True
    scene.released += scene.sandbox.release()
    return False


def _in_download(scene: Scene) -> bool:
    is_held = scene.seen("held", fault="hold_download") == scene.released + 1
    begun, done = scene.seen("results_begun"), scene.seen("results_done")
    return is_held and begun > done and scene.live("collecting.json") > 0 and not scene.is_partly_collected()


def _near_collect(scene: Scene) -> bool:
    return scene.live("collecting.json") > 0 and scene.seen("results_begun") > 0


def _before_sinks(scene: Scene) -> bool:
    all_collected = scene.made("batches/*/collected.json") > 0 == scene.live("staged.json")
    return all_collected and not scene.has_rows()


STEPS: dict[str, Step] = {
    "before_intent": Step(_made("batches/*/staged.json"), _before_intent),
    "in_upload": Step(_held("hold_upload"), _in_upload, {"hold_upload": 1}, _INLINE),
    "after_upload": Step(_made("batches/*/staged.json"), _after_upload, lacking=_INLINE),
    "after_intent": Step(_made("batches/*/staged.json"), _after_intent),
    "in_create": Step(_held("hold_before_create"), _in_create, {"hold_before_create": 1}),
    "after_create": Step(_held("hold_create"), _after_create, {"hold_create": 1}),
    "polling": Step(lambda scene: scene.seen("status") > 0, _polling),
    "in_status": Step(
        _held("hold_download"), _in_status, {"hold_download": 1},
        {name: "status replies hold no results" for name in PROVIDERS if name != "openrouter"},
    ),
    "in_download": Step(_near_download, _in_download, {"hold_download": 50}),
    "in_collect": Step(_near_collect, Scene.is_partly_collected),
    "before_sinks": Step(_made("batches/*/collected.json"), _before_sinks),
}  # fmt: skip


def kill_at(scene: Scene, name: str) -> None:
    """Start a run of the job and SIGKILL it at a step.

    Raises:
        MissedError: it was not there any more when it was dead, or never came there.
    """
    step = STEPS[name]
    scene.start(**step.faults)
    until_s = time.monotonic() + _LIMIT_S
    while scene.forked.is_running() and not step.near(scene):
        _check_time(scene, name, until_s)
        time.sleep(0.004)
    while scene.forked.is_running():
        _check_time(scene, name, until_s)
        pid = scene.forked.pid
        assert pid is not None
        _stand_still(pid)
        if step.here(scene):
            break
        os.kill(pid, signal.SIGCONT)
        time.sleep(_SLICE_S)
    ended = scene.forked.kill()
    time.sleep(_UNDER_WAY_S)
    if ended != -signal.SIGKILL or not step.here(scene):
        raise MissedError(f"the run ended with {ended} and was not {name}")


def _check_time(scene: Scene, name: str, until_s: float) -> None:
    if time.monotonic() > until_s:
        scene.forked.kill()
        raise MissedError(f"the run did not come to {name}")


def _stand_still(pid: int) -> None:
    """Stop a process, and return when all its threads stand still or it is dead."""
    os.kill(pid, signal.SIGSTOP)
    while any(_thread_state(task) not in "TtZX" for task in Path(f"/proc/{pid}/task").iterdir()):
        time.sleep(0.0001)


def _thread_state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "X"


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return str(path), 0, 0
    return str(path), stat.st_ino, stat.st_mtime_ns
