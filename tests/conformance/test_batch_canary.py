"""Secrets, and prompts that audit must not show, are in nothing that a batch leaves behind (P9)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.batch_jobs import KEYS, Asked, Gate, Workshop, assert_all_once, broken_batch_references
from tests.conformance.canary import ODD, PLAIN, leaks, written_in
from tests.conformance.turnstile import Answer

_ROOT = Path(__file__).resolve().parents[2]
_PROMPT = b"Review number"


class _Echo:
    """A provider that says the key wherever it can: in errors, status words, ids of rows, and answers."""

    def __init__(self) -> None:
        self.said: set[str] = set()

    def decide(self, asked: Asked) -> Answer | None:
        """Answer the first request of each kind with an error that names the key."""
        kind = (
            "results"
            if asked.path.endswith(("/content", "/results"))
            else "batches"
            if "batches" in asked.path
            else "files"
        )
        step = f"{asked.method} {kind}"
        if step in self.said or "completions" in asked.path:
            return None
        self.said.add(step)
        status = 429 if asked.method == "POST" else 503
        error = {"message": f"Slow down, {asked.key!r} (Authorization: Bearer {asked.key})", "type": "overloaded_error"}
        headers = {"retry-after": "0", "x-request-id": f"req_{asked.key}", "request-id": f"req_{asked.key}"}
        return Answer(status, {"type": "error", "error": error, "request_id": asked.key}, headers)

    def rewrite(self, asked: Asked, body: bytes) -> bytes:
        """Put the key into what the sandbox says of batches."""
        once = json.dumps(asked.key)[1:-1]
        twice = json.dumps(once)[1:-1]
        words = (b'"request_id":"', b'"message":"', b'"processing_status":"in_', b'"status":"in_')
        for word in words:
            body = body.replace(word, word + once.encode())
        return body.replace(b"positive", twice.encode())


@pytest.mark.parametrize(
    ("provider", "key", "form"),
    [
        pytest.param("openai", ODD, "console", id="openai, console logs, a key with quotes"),
        pytest.param("anthropic", PLAIN, "json", id="anthropic, json logs"),
    ],
)
def test_the_key_is_in_no_file_and_no_output_of_a_batch(workshop: Workshop, provider: str, key: str, form: str) -> None:
    """Debug logs on, payloads in full, faults, and a provider that echoes the key: nothing holds it (P9)."""
    faults = {"missing": 0.05, "malformed_line": 2, "unknown": 0.1, "duplicate": 0.1, "cut_download": 1}
    workshop.sandbox.set_faults(server_error=0.1, refusal=0.1, retry_after_s=0.1, batch=faults)
    echo = _Echo()
    with Gate(workshop.sandbox) as gate:
        gate.decide, gate.rewrite = echo.decide, echo.rewrite
        workshop.write(provider, 60, gate=gate, audit={"payloads": "full"})
        command = [sys.executable, "-m", "pipelines.cli", "run", str(workshop.folder / "job.yaml")]
        done = subprocess.run(
            # One page is searched: drawing its pictures takes longer than the run.
            [*command, "--log-level", "debug", "--log-format", form, "--no-report" if form == "json" else "--report"],
            cwd=_ROOT,
            env={**os.environ, **dict.fromkeys(KEYS, key)},
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert {"POST batches", "GET batches", "GET results"} <= echo.said
    assert done.stderr
    assert leaks(key, done.stdout) == []
    assert [line for line in done.stderr.splitlines() if leaks(key, line)] == []
    files = list(written_in(workshop.folder / "out"))
    assert len(files) > 20
    assert [str(path) for path, data in files if leaks(key, data)] == []
    assert broken_batch_references(workshop.output.folder) == {}
    for call_type in ("HTTP", "LLM"):
        redacted = workshop.output.values(
            "select count(*) from {calls} where call_type = $1"
            " and (response_json like '%[redacted]%' or error_json like '%[redacted]%')",
            call_type,
        )
        assert redacted > [0]


def _tellers(workshop: Workshop) -> list[str]:
    """Return the files of ledger and audit that hold a prompt; what compressed tables hold counts too."""
    tables = [*workshop.folder.glob("out/runs/*/audit"), workshop.folder / "out" / "ledger"]
    files = [file for folder in tables for file in written_in(folder)]
    assert len(files) > 8
    return [str(path) for path, data in files if _PROMPT in data]


@pytest.mark.parametrize(
    ("payloads", "fault"), [("hash", "running"), ("none", "running"), ("hash", "reject"), ("none", "late_token_limit")]
)
def test_prompts_that_audit_must_not_hold_are_gone_after_collecting(
    workshop: Workshop, payloads: str, fault: str
) -> None:
    """While a batch is under way its request file must be kept; afterwards no prompt is anywhere beside the rows (P9)."""
    faults = {"unknown_status": 100_000} if fault == "running" else {fault: 1}
    workshop.sandbox.set_faults(batch=faults)
    workshop.write("openai", audit={"payloads": payloads})
    if fault == "running":
        assert workshop.run("batching.detach=true").exit_code == 5
        workshop.sandbox.set_faults(batch={"missing": 0.1})
    assert_all_once(workshop.run(), 30)
    assert _tellers(workshop) == []
    shown = "select count(*) from {calls} where call_type = 'LLM' and response_json like '%label%'"
    assert workshop.output.values(shown) == [0]
    assert list(workshop.folder.glob("out/runs/*/asked/*")) == []


def test_a_column_that_is_redacted_is_in_no_payload(workshop: Workshop) -> None:
    """audit.redact: rows that this run asks, and those it does not ask any more, don't show the column (P9)."""
    workshop.sandbox.set_faults(batch={"unknown_status": 100_000})
    workshop.write("openai", audit={"redact": ["text"]})
    assert workshop.run("batching.detach=true").exit_code == 5
    workshop.sandbox.set_faults()
    workshop.write_rows([{"id": "r3", "text": "Review number 3: it works."}])
    assert_all_once(workshop.run(), 1)
    assert _tellers(workshop) == []
