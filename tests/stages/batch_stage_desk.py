"""One run's batch stages by hand, step by step: real stager, desk, watcher and collector against a scripted server."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.stages.harness import make_request
from tests.unit.batch_server import BatchServer, Step, answer
from transforms._batch_collect import BatchCollector
from transforms._batch_desk import BatchDesk
from transforms._batch_read import Collectable, Unanswered
from transforms._batch_watch import BatchWatcher
from transforms.records.answer import ModelAnswer, PendingRequest
from transforms.records.batch import BatchRef, BatchTurn, Turn
from transforms.records.call import CallRecord, CallType
from transforms.records.request import ModelRequest, pack
from transforms.records.run import CallSettings
from transforms.records.settings import AuditSettings, BatchingSettings, ModelSettings, PoolSettings
from transforms.rules.fingerprint import custom_id
from transforms.stage_batches import _StageBatchDoFn
from transforms.storage.asked_file import AskedWriter, asked_path
from transforms.storage.audit_rows import write_tables
from transforms.storage.batch_entry import BatchEntry
from transforms.storage.batch_ledger import read_entry
from transforms.storage.ledger import segments
from transforms.storage.runs import RunFolder

KEY_ENV = "BATCH_STEPS_API_KEY"
FIRST_RUN, SECOND_RUN = "20261121T053412-3f9a2c", "20261121T063412-4b8d1e"
FILES, BATCHES, BATCH = "/v1/files", "/v1/batches", "/v1/batches/batch_1"
OUTPUT, ERRORS = "/v1/files/out/content", "/v1/files/err/content"
#: OpenAI's own 404.
UNKNOWN = answer(404, {"error": {"message": "No batch found with id 'batch_1'.", "type": "invalid_request_error"}})


class RunDesk:
    """A run's way through the batch stages; back-off between tries of one exchange is not slept.

    Args:
        server: stands in for the provider.
        output: the job's output folder; runs that share it share its ledger.
        run_id: of this run.
        batching: settings beside the mode.
    """

    def __init__(self, server: BatchServer, output: Path, run_id: str = FIRST_RUN, **batching: Any) -> None:
        self.output = output
        self._asked = str(output / "runs" / run_id / "asked")
        Path(self._asked).mkdir(parents=True)
        model = ModelSettings(
            provider="openai", name="gpt-4o-mini", base_url=f"{server.address}/v1", api_key_env=KEY_ENV
        )
        limits = BatchingSettings(mode="provider_batch_api", **{"poll_interval": 0.02, **batching})
        self.settings = CallSettings(
            run_id, str(output / "ledger"), model, None, PoolSettings(), limits, AuditSettings()
        )
        self.desk = BatchDesk(self.settings)
        self.desk.client._exchanger.sleep = lambda seconds: None
        self.watcher = BatchWatcher(self.desk)
        self.collector = BatchCollector(self.desk)

    def stage(self, requests: Iterable[ModelRequest]) -> BatchRef:
        """Stage requests as one batch."""
        stage = _StageBatchDoFn(self.settings, self._asked, 1000)
        stage.setup()
        [ref] = stage.process(("0", [[(request.request_id, pack(request)) for request in requests]]))
        return ref

    def adopt(self, ref: BatchRef, requests: Iterable[ModelRequest]) -> BatchRef:
        """Take up a batch that another run staged, with this run's requests of it."""
        path = asked_path(self._asked, ref.batch_key)
        writer = AskedWriter(path)
        for request in requests:
            writer.add(request.request_id, pack(request))
        writer.close()
        return replace(ref, asked_path=path, is_adopted=True)

    def entry(self, ref: BatchRef) -> BatchEntry:
        """Return the batch as the ledger has it."""
        entry = read_entry(self.settings.ledger, ref.batch_key)
        assert entry is not None
        return entry

    def step(self, ref: BatchRef, times: int = 1) -> BatchTurn:
        """Look so often, at most until the batch need not be watched any more; return where it stands."""
        for _ in range(times):
            turn, _ = self.watcher.step(ref)
            if turn.turn is not Turn.WAITING:
                break
        return turn

    def collect(self, turn: BatchTurn) -> list[Collectable]:
        """Collect a batch to the end."""
        return list(self.collector.finish(turn))

    def audit_batches(self) -> list[dict[str, Any]]:
        """Return this run's rows of the audit table batches, as its ledger makes them; the run must be released."""
        run_id = self.settings.run_id
        folder = RunFolder(str(self.output), run_id)
        return list(write_tables(folder, segments(self.settings.ledger, only_run=run_id)).batch_rows())


#: Makes a run of one job; takes the settings of `RunDesk`.
MakeRun = Callable[..., RunDesk]


@contextmanager
def open_runs(server: BatchServer, output: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRun]:
    """Give the maker of runs that share an output; they are released at the end."""
    monkeypatch.setenv(KEY_ENV, "sk-canary-0123456789abcdef")
    runs: list[RunDesk] = []

    def make(**settings: Any) -> RunDesk:
        runs.append(RunDesk(server, output, **settings))
        return runs[-1]

    try:
        yield make
    finally:
        for run in runs:
            run.desk.release()


def make_requests(count: int) -> list[ModelRequest]:
    """Return so many requests."""
    return [make_request(f"q{number:03d}") for number in range(count)]


def state(status: str, total: int, completed: int = 0, failed: int = 0, **changes: Any) -> Step:
    """Answer with a batch object."""
    counts = {"total": total, "completed": completed, "failed": failed}
    body = {"id": "batch_1", "object": "batch", "created_at": time.time(), "status": status, "request_counts": counts}
    return answer(200, {**body, **changes})


def take_batch(server: BatchServer, total: int) -> None:
    """Have uploads and creates succeed."""
    server.on("POST", FILES, answer(200, {"id": "file-in", "status": "processed"}))
    server.on("POST", BATCHES, state("validating", total))


def finish_batch(server: BatchServer, lines: list[bytes], failed: int = 0, total: int | None = None) -> None:
    """Have the batch complete with these lines in its output."""
    take_batch(server, total or len(lines))
    done = len(lines) - failed
    server.on("GET", BATCH, state("completed", total or len(lines), done, failed, output_file_id="out"))
    server.on("GET", OUTPUT, answer(200, b"".join(lines)))


def ok_line(request: ModelRequest, run_id: str = FIRST_RUN) -> bytes:
    """Return a result with an answer."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    body = {"id": "c", "object": "chat.completion", "model": "gpt-4o-mini", "choices": [choice], "usage": usage}
    return _line(request, run_id, response={"status_code": 200, "request_id": "r", "body": body}, error=None)


def error_line(request: ModelRequest, status: int, code: str | None = None, run_id: str = FIRST_RUN) -> bytes:
    """Return a result with an HTTP error."""
    body = {"error": {"message": "no answer", "type": code or "server_error", "code": code}}
    return _line(request, run_id, response={"status_code": status, "request_id": "r", "body": body}, error=None)


def expired_line(request: ModelRequest, run_id: str = FIRST_RUN) -> bytes:
    """Return a result of a request that the batch did not get to."""
    return _line(request, run_id, response=None, error={"code": "batch_expired", "message": "not run in time"})


def _line(request: ModelRequest, run_id: str, **fields: Any) -> bytes:
    return orjson.dumps({"id": "x", "custom_id": custom_id(run_id, request.request_id), **fields}) + b"\n"


def ends(items: Iterable[Collectable]) -> Counter[str]:
    """Return how often each kind of end is there: a failure kind, "pending", "real_time" or "batch"."""
    return Counter(_end(item) for item in items if not isinstance(item, CallRecord))


def _end(item: Collectable) -> str:
    if isinstance(item, Unanswered):
        return "batch" if item.by_batch else "real_time"
    assert isinstance(item, ModelAnswer | PendingRequest)
    return str(item.kind) if isinstance(item, ModelAnswer) else "pending"


def pending(items: Iterable[Collectable]) -> list[PendingRequest]:
    """Return the requests that wait."""
    return [item for item in items if isinstance(item, PendingRequest)]


def unanswered(items: Iterable[Collectable]) -> set[str]:
    """Return the ids of the requests that are to be asked again."""
    return {item.request_id for item in items if isinstance(item, Unanswered)}


def calls(items: Iterable[Collectable], call_type: CallType) -> list[CallRecord]:
    """Return the records of one type."""
    return [item for item in items if isinstance(item, CallRecord) and item.call_type is call_type]
