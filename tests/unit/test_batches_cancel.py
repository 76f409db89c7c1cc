"""`rowbeam batches --cancel`: real batches of the sandbox are ended, and nobody else's ever are."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.running import RunningSandbox
from tests.unit.batch_desk import FACTS
from tests.unit.batch_phase_ledgers import (
    ADDRESS,
    JOB,
    key_of,
    provider_id_of,
    write_all_phases,
    write_job_run,
    write_submitted,
)
from tests.unit.batch_server import answer, serving
from transforms.providers import make_batch_api, make_provider
from transforms.providers.batch_client import BatchClient
from transforms.providers.batch_http import BatchHttp
from transforms.records.batch import BatchState, BatchStatus
from transforms.records.settings import ModelSettings
from transforms.storage.batch_ledger import read_entry
from transforms.storage.lease import Lease

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-canary-0123456789abcdef"
LATER_RUN = "20261122T053412-3f9a2c"
MODELS: dict[str, dict[str, Any]] = {
    "openai": {},
    "anthropic": {"name": "claude-haiku-4-5", "params": {"max_output_tokens": 64}},
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("OPENAI", "ANTHROPIC", "OPENROUTER"):
        monkeypatch.setenv(f"{provider}_API_KEY", SECRET)


@pytest.fixture(scope="module")
def slow() -> Iterator[RunningSandbox]:
    """Give a sandbox whose batches run for a minute."""
    with RunningSandbox(batch=BatchTiming(0.0, 0.0, 60.0)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def quick() -> Iterator[RunningSandbox]:
    """Give a sandbox whose batches end at once."""
    with RunningSandbox(batch=BatchTiming(0.0, 0.0, 0.0)) as sandbox:
        yield sandbox


class Provider:
    """A provider's batch API in a sandbox, as a run uses it."""

    def __init__(self, sandbox: RunningSandbox, name: str, http: BatchHttp) -> None:
        self.model = {"provider": name, "name": "gpt-4o-mini", "base_url": sandbox.base_url(name), **MODELS[name]}
        settings = ModelSettings.model_validate(self.model)
        self.provider = make_provider(settings, None)
        api = make_batch_api(settings, None, self.provider)
        assert api is not None
        self.api = api
        self.client = BatchClient(api, SECRET, http, lambda _: None)

    def submit(self, folder: Path) -> str:
        """Create a batch of three requests and return the provider's id of it."""
        path = folder / "requests.jsonl"
        body = {"model": self.api.request_model, "max_tokens": 9, "messages": [{"role": "user", "content": "Q"}]}
        path.write_bytes(b"\n".join(self.api.line(f"r7f3a4b5-{n}", body) for n in range(3)))
        file_id = self.client.upload(FACTS, str(path)) if self.api.uses_files else None
        assert file_id is None or isinstance(file_id, str)
        created = self.client.create(FACTS, file_id, str(path))
        assert isinstance(created, BatchState)
        return created.provider_batch_id

    def status(self, provider_batch_id: str) -> BatchStatus:
        """Return what the sandbox says of it."""
        state = self.client.status(provider_batch_id)
        assert isinstance(state, BatchState)
        return state.status


@pytest.fixture
def http() -> Iterator[BatchHttp]:
    """Give connections."""
    http = BatchHttp()
    yield http
    http.close()


def at_work(output: Path, provider: Provider) -> str:
    """Submit a batch and put a run and the batch on record; return the provider's id."""
    provider_batch_id = provider.submit(output)
    write_job_run(output, **provider.model)
    facts = {"provider_name": provider.provider.name, "address": provider.provider.base_url}
    write_submitted(output, provider_batch_id=provider_batch_id, **facts)
    return provider_batch_id


def cancel(output: Path, *names: str, as_json: bool = False) -> Any:
    """Run the command."""
    options = [part for name in names for part in ("--cancel", name)]
    return CliRunner().invoke(app, ["batches", str(output), *options, *(["--json"] if as_json else [])])


def operator_lines(output: Path, phase: str = "submitted") -> list[dict[str, Any]]:
    """Return what is on record of a person's doings."""
    path = output / "ledger" / "batches" / key_of(phase) / "operator.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_running_batch_is_cancelled_while_a_run_waits_for_it(
    tmp_path: Path, slow: RunningSandbox, http: BatchHttp, name: str
) -> None:
    """The provider ends it, runs see it in the ledger, the exchange is on record without the key."""
    provider = Provider(slow, name, http)
    provider_batch_id = at_work(tmp_path, provider)
    with Lease(str(tmp_path / "ledger"), LATER_RUN):
        done = cancel(tmp_path, key_of("submitted")[:12])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"5b317d5b317d  {provider_batch_id} is cancelling at {provider.provider.name}.\n")
    assert "kept and charged" in " ".join(done.stdout.split())
    assert "batching.retry_failed: real_time" in " ".join(done.stdout.split())
    assert provider.status(provider_batch_id) in (BatchStatus.CANCELLING, BatchStatus.CANCELLED)
    entry = read_entry(str(tmp_path / "ledger"), key_of("submitted"))
    assert entry is not None
    assert entry.cancel is not None
    assert entry.cancel.why == "operator"
    [line] = operator_lines(tmp_path)
    assert (line["what"], line["status"], line["error"]) == ("cancel", 200, None)
    assert line["request"]["url"].endswith(f"/{provider_batch_id}/cancel")
    assert SECRET not in repr(line)


def test_cancelling_again_is_no_fault(tmp_path: Path, slow: RunningSandbox, http: BatchHttp) -> None:
    """The provider's own id names it too, and the first cancel stays on record."""
    provider_batch_id = at_work(tmp_path, Provider(slow, "openai", http))
    first = orjson.loads(cancel(tmp_path, provider_batch_id, as_json=True).stdout)
    again = cancel(tmp_path, provider_batch_id, key_of("submitted"), as_json=True)
    assert again.exit_code == 0
    assert list(first) == ["output", "cancelled"]
    assert list(first["cancelled"][0]) == [
        "key", "short_key", "batch_id", "provider", "provider_batch_id", "outcome", "says", "next",
    ]  # fmt: skip
    assert [batch["outcome"] for batch in orjson.loads(again.stdout)["cancelled"]] == ["cancelling"]


def test_a_batch_that_has_ended_meanwhile_says_so(tmp_path: Path, quick: RunningSandbox, http: BatchHttp) -> None:
    """The provider refuses, its status tells why, and no cancel is on record; both exchanges are."""
    provider = Provider(quick, "openai", http)
    provider_batch_id = at_work(tmp_path, provider)
    until_s = time.monotonic() + 30
    while provider.status(provider_batch_id) is not BatchStatus.COMPLETED:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    done = cancel(tmp_path, key_of("submitted"))
    assert done.exit_code == 0, done.stderr
    assert f"nothing left to cancel: {provider_batch_id} is completed at openai." in done.stdout
    assert [line["what"] for line in operator_lines(tmp_path)] == ["cancel", "status"]
    entry = read_entry(str(tmp_path / "ledger"), key_of("submitted"))
    assert entry is not None
    assert entry.cancel is None


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        pytest.param(401, {"error": {"message": f"bad key {SECRET}"}}, 6, "(auth): ", id="key"),
        pytest.param(500, {"error": {"message": "oh no"}}, 2, "(server_error): oh no; try again", id="trouble"),
    ],
)
def test_a_refusal_is_told_without_the_key(tmp_path: Path, status: int, body: Any, code: int, said: str) -> None:
    """Nothing is recorded as cancelled; the exit code tells an account's fault from a passing one."""
    with serving() as server:
        address = f"{server.address}/v1"
        write_job_run(tmp_path, base_url=address)
        write_submitted(tmp_path, address=address)
        server.on("POST", f"/v1/batches/{provider_id_of('submitted')}/cancel", answer(status, body))
        running = {"id": "batch_1", "status": "in_progress"}
        server.on("GET", f"/v1/batches/{provider_id_of('submitted')}", answer(200, running))
        done = cancel(tmp_path, key_of("submitted"))
    assert (done.exit_code, done.stdout) == (code, "")
    assert f"rowbeam: openai did not cancel {provider_id_of('submitted')} {said}" in done.stderr
    assert SECRET not in done.stderr + repr(operator_lines(tmp_path))
    assert not list(tmp_path.rglob("cancel-*.json"))
    assert operator_lines(tmp_path)[0]["status"] == status


def test_what_is_over_needs_no_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended and closed batches say so, with no key and no exchange."""
    write_all_phases(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY")
    done = cancel(tmp_path, "e4de", "c013", "9be4")
    assert done.exit_code == 0
    assert "nothing to cancel: it is ended (completed)." in done.stdout
    assert "nothing to cancel: it is collected, by run " in done.stdout
    assert "nothing to cancel: it is given up, by run " in done.stdout
    assert not list(tmp_path.rglob("operator.jsonl"))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        pytest.param(["57a9"], "is staged, not submitted: there is nothing to cancel", id="staged"),
        pytest.param(["d0b7"], "--resolve d0b7edd0b7ed --as absent, or --as ID", id="in-doubt"),
        pytest.param(["nonsense"], "no batch goes by 'nonsense'", id="unknown"),
        pytest.param([""], "no batch goes by ''", id="empty"),
        pytest.param(["5b31", "d0b7"], "is in doubt", id="one-of-two"),
    ],
)
def test_what_can_not_be_cancelled_is_one_line(tmp_path: Path, names: list[str], said: str) -> None:
    """All names are looked at before anything is sent."""
    write_all_phases(tmp_path)
    done = cancel(tmp_path, *names)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr
    assert not list(tmp_path.rglob("operator.jsonl"))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        pytest.param({"base_url": "http://127.0.0.1:1/v1"}, f"is at openai ({ADDRESS}), but the newest run of this "
                     "output asks openai (http://127.0.0.1:1/v1)", id="address"),
        pytest.param({"provider": "openai_compatible"}, "asks openai_compatible", id="provider"),
    ],
)  # fmt: skip
def test_only_the_newest_runs_provider_is_asked(tmp_path: Path, model: dict[str, Any], said: str) -> None:
    """The key of one provider never goes to another."""
    write_all_phases(tmp_path)
    write_job_run(tmp_path, LATER_RUN, **model)
    done = cancel(tmp_path, "5b31")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_a_provider_without_cancel_is_told(tmp_path: Path) -> None:
    """OpenRouter's batches run to their end."""
    write_job_run(tmp_path, provider="openrouter")
    write_submitted(tmp_path, provider_name="openrouter")
    done = cancel(tmp_path, "5b31")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "openrouter's batch API can't cancel" in done.stderr


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere else."""
    write_all_phases(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY")
    done = cancel(tmp_path, "5b31")
    assert done.exit_code == 2
    assert "the environment variable OPENAI_API_KEY is not set" in done.stderr


def test_a_found_batch_is_cancelled_by_the_providers_id_alone(
    tmp_path: Path, slow: RunningSandbox, http: BatchHttp
) -> None:
    """Time and size may have led to somebody else's batch; who names that very one knows."""
    provider = Provider(slow, "openai", http)
    provider_batch_id = provider.submit(tmp_path)
    write_job_run(tmp_path, **provider.model)
    write_submitted(tmp_path, provider_batch_id=provider_batch_id, proven=False, address=provider.provider.base_url)
    refused = cancel(tmp_path, key_of("submitted"))
    assert refused.exit_code == 2
    assert f"--cancel {provider_batch_id}" in refused.stderr
    assert cancel(tmp_path, provider_batch_id).exit_code == 0


def test_a_detached_run_leaves_batches_that_are_listed_and_cancelled(tmp_path: Path, slow: RunningSandbox) -> None:
    """`run --detach` exits 5, its manifest shows the override, and what it wrote is what the command reads."""
    (tmp_path / "rows.csv").write_text("id,text\nA,good\nB,bad\n", encoding="utf-8")
    model = {"provider": "openai", "name": "gpt-4o-mini", "base_url": slow.base_url("openai")}
    (tmp_path / "job.yaml").write_bytes(orjson.dumps(JOB | {"model": model}))
    command = [sys.executable, "-m", "pipelines.cli", "run", str(tmp_path / "job.yaml")]
    command += ["--detach", "--json", "--no-report"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 5, done.stderr
    run_id = orjson.loads(done.stdout)["run_id"]
    manifest = orjson.loads((tmp_path / "out" / "runs" / run_id / "manifest.json").read_bytes())
    assert manifest["job"]["batching"]["detach"] is True
    listed = orjson.loads(cancel(tmp_path / "out", as_json=True).stdout)
    assert {(batch["phase"], batch["submitted_by"]) for batch in listed["batches"]} == {("submitted", run_id)}
    ended = cancel(tmp_path / "out", *(batch["provider_batch_id"] for batch in listed["batches"]), as_json=True)
    assert {batch["outcome"] for batch in orjson.loads(ended.stdout)["cancelled"]} == {"cancelling"}
