"""Secrets are never written: a canary key in the environment appears in no file and in no output (P9)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines.enrich import EnrichRows
from pipelines.job import load_job
from pipelines.prepare import prepare
from pipelines.sandbox.server import RunningSandbox
from tests.conformance.canary import ODD, PLAIN, leaks, written_in
from tests.conformance.jobs import Output, plain_rows
from tests.conformance.turnstile import Answer, Turnstile, refusal
from tests.unit.secret_service import NAME, serving_secrets
from transforms.storage.lease import Lease

MakeJob = Callable[..., Path]

_ROOT = Path(__file__).resolve().parents[2]


def _echo(number: int, key: str) -> Answer | None:
    """Go wrong in many ways, the key in every word: in messages, headers, answers."""
    choice = number % 6
    if choice == 1:
        return refusal(500, f"Internal error near {key}", "server_error", None)
    if choice == 2:
        return refusal(400, f"Invalid request of {key!r} (Authorization: Bearer {key})", "invalid_request_error", None)
    if choice == 3:
        return Answer(503, {"error": {"message": json.dumps({"key": key}), "type": "overloaded"}}, {"retry-after": "0"})
    if choice == 4:
        said = {"role": "assistant", "content": f"Your key is {key}.", "refusal": None}
        choices = [{"index": 0, "message": said, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        return Answer(200, {"id": "x", "object": "chat.completion", "model": key, "choices": choices, "usage": usage},
                      {"x-request-id": f"req_{key}".encode("latin-1").decode("latin-1")})  # fmt: skip
    return None


def _refuse(_number: int, key: str) -> Answer | None:
    return refusal(401, f"Incorrect API key provided: {key}.", "invalid_request_error", "invalid_api_key")


@pytest.mark.parametrize(
    ("key", "form", "decide", "is_secret", "exit_code"),
    [
        pytest.param(PLAIN, "console", _echo, False, 0, id="faults, console logs"),
        pytest.param(ODD, "json", _echo, False, 0, id="faults, json logs, a key with quotes"),
        pytest.param(ODD, "console", _refuse, True, 6, id="a key from Secret Manager, refused"),
        pytest.param(ODD, "console", _refuse, False, 6, id="key refused", marks=pytest.mark.soak),
        pytest.param(ODD, "console", _echo, True, 0, id="faults, a key from Secret Manager", marks=pytest.mark.soak),
    ],
)
def test_the_key_is_in_no_file_and_no_output(
    make_job: MakeJob,
    sandbox: RunningSandbox,
    key: str,
    form: str,
    decide: Callable[[int, str], Answer | None],
    is_secret: bool,
    exit_code: int,
) -> None:
    """Debug logs on, payloads in full, a provider that echoes the key wherever it can: nothing holds it."""
    job = make_job(plain_rows(40), audit={"payloads": "full"}, pool={"max_in_flight": 4, "max_attempts": 4})
    with Turnstile(sandbox, decide) as turnstile, serving_secrets() as service:
        service.values[NAME] = key.encode()
        where = {"SECRET_MANAGER_EMULATOR_HOST": service.address} if is_secret else {"OPENAI_API_KEY": key}
        command = [sys.executable, "-m", "pipelines.cli", "run", str(job), "--log-level", "debug", "--log-format", form]
        done = subprocess.run(
            # One page is searched: drawing its pictures takes longer than the run.
            [
                *command,
                "--set",
                f"model.base_url={turnstile.base_url}",
                "--report" if form == "json" else "--no-report",
                *(["--set", f"model.api_key_secret={NAME}"] if is_secret else []),
            ],
            cwd=_ROOT,
            env={**os.environ, **where},
            capture_output=True,
            check=False,
        )
    assert done.returncode == exit_code, done.stderr.decode()[-3000:]
    assert turnstile.requests > 0
    assert done.stderr
    assert leaks(key, done.stdout) == []
    assert [line for line in done.stderr.splitlines() if leaks(key, line)] == []
    files = list(written_in(job.parent / "out"))
    assert len(files) > 8
    assert [str(path) for path, data in files if leaks(key, data)] == []
    if exit_code == 0:
        output = Output(job.parent / "out")
        assert output.values("select count(*) from {calls} where response_json like '%[redacted]%'") > [0]
        assert output.values("select count(*) from {calls} where request_json is null") == [0]


@pytest.mark.parametrize("mode", ["per_request", "provider_batch_api"])
def test_the_pickled_pipeline_does_not_hold_the_key(
    make_job: MakeJob, sandbox: RunningSandbox, runner: str, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Neither the transform nor any stage of the serialised pipeline carries the key to the workers' disks."""
    monkeypatch.setenv("OPENAI_API_KEY", PLAIN)
    prepared = prepare(load_job(str(make_job(batching={"mode": mode}))), "20261121T000000-0000bb")
    assert leaks(PLAIN, cloudpickle.dumps(EnrichRows(prepared))) == []

    pipeline = beam.Pipeline()
    with Lease(prepared.ledger, prepared.run_id):
        _ = pipeline | "EnrichRows" >> EnrichRows(prepared)
    proto = pipeline.to_runner_api()
    assert leaks(PLAIN, proto.SerializeToString()) == []
    specs = [
        beam_runner_api_pb2.ParDoPayload.FromString(one.spec.payload).do_fn
        for one in proto.components.transforms.values()
        if one.spec.urn == "beam:transform:pardo:v1"
    ]
    stages = [spec.payload for spec in specs if spec.urn == python_urns.PICKLED_DOFN_INFO]
    assert len(stages) > 20
    # Beam compresses what it pickles: opened and pickled again without compression, the text shows.
    assert not any(leaks(PLAIN, cloudpickle.dumps(pickler.loads(stage))) for stage in stages)
