"""Records of provider batches at rest for the storage tests: valid by default, one thing changed per test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transforms.records.batch import BatchLimits, BatchStatus
from transforms.records.request import Lane
from transforms.rules.fingerprint import batch_key
from transforms.storage import batch_ledger
from transforms.storage.batch_entry import Cancel, Collected, Ended, Handle, Intent, Staged, Void
from transforms.storage.batch_stager import BatchMember, BatchOrigin, BatchStager, StagedFiles

RUN = "20261121T053412-3f9a2c"
KEY = "5e" * 32
NOW = 1_795_000_000.0


def name_batch(request_ids: list[str]) -> str:
    """Return the batch key of the tests' provider and model."""
    return batch_key("openai", "gpt-4o-mini", request_ids)


def make_staged(key: str = KEY, **changes: Any) -> Staged:
    """Return a batch of three requests."""
    values: dict[str, Any] = {
        "batch_key": key,
        "batch_id": "b0123456789",
        "run_id": RUN,
        "nonce": "0a1b2c3d",
        "request_model": "gpt-4o-mini",
        "provider_name": "openai",
        "mode": "provider_batch_api",
        "request_count": 3,
        "byte_count": 2_100,
        "token_estimate": 450,
        "staged_at_s": NOW,
    }
    return Staged(**{**values, **changes})


def make_intent(attempt: int = 0, key: str = KEY, at_s: float = NOW) -> Intent:
    """Return the intent of an attempt."""
    return Intent(key, attempt, RUN, "0a1b2c3d", 3, at_s)


def make_handle(attempt: int = 0, *, proven: bool = True) -> Handle:
    """Return the handle of an attempt."""
    return Handle(f"batch_{attempt}", f"file-{attempt}", NOW + 1, RUN, proven)


def make_void() -> Void:
    """Return the end of an attempt that came to nothing."""
    return Void("the provider's listing has no such batch", "absent", NOW + 2)


def make_cancel() -> Cancel:
    """Return a cancel for the deadline."""
    return Cancel("the deadline passed", NOW + 3)


def make_ended(status: BatchStatus = BatchStatus.COMPLETED) -> Ended:
    """Return a terminal state in which one request of three failed."""
    return Ended(status, str(status), 3, 2, 1, "file-out", None, None, NOW + 4)


def make_collected() -> Collected:
    """Return the close of that batch."""
    return Collected(RUN, NOW + 5, 2, 1, 0)


def make_member(number: int, **changes: Any) -> BatchMember:
    """Return a member whose ids come from its number."""
    values: dict[str, Any] = {
        "custom_id": f"0a1b2c3d-{number:040x}",
        "request_id": f"{number:064x}",
        "root_request_id": f"{number:064x}",
        "lane": Lane.MAIN,
        "prompt_sha256": "a" * 64,
        "template_sha256": "b" * 64,
        "variables_sha256": "c" * 64,
        "lookup_sha256": None,
        "token_estimate": 10 + number,
    }
    return BatchMember(**{**values, **changes})


def make_stager(output: Path, limits: BatchLimits | None = None, run_id: str = RUN) -> BatchStager:
    """Return a stager of one run of an output."""
    return BatchStager(
        str(output / "ledger"),
        str(output / "runs" / run_id / "asked"),
        limits or BatchLimits(max_requests=1_000, max_bytes=1_000_000),
        name_batch,
        BatchOrigin(run_id, "gpt-4o-mini", "openai", "provider_batch_api", "https://api.example.com/v1"),
        clock=lambda: NOW,
    )


def stage(stager: BatchStager, lines: list[bytes]) -> list[StagedFiles]:
    """Stage lines, numbered from 0, each with its number as its packed request."""
    found = [stager.add(make_member(n), line, b"packed %d" % n) for n, line in enumerate(lines)]
    return [files for files in (*found, stager.finish()) if files is not None]


#: Writes the file of a kind for an attempt of the batch KEY.
WRITERS: dict[str, Callable[[str, int], object]] = {
    "uploaded": lambda ledger, n: batch_ledger.record_upload(ledger, KEY, n, f"file-{n}"),
    "intent": lambda ledger, n: batch_ledger.create_intent(ledger, make_intent(n)),
    "handle": lambda ledger, n: batch_ledger.record_handle(ledger, KEY, n, make_handle(n)),
    "cancel": lambda ledger, n: batch_ledger.record_cancel(ledger, KEY, n, make_cancel()),
    "ended": lambda ledger, n: batch_ledger.record_ended(ledger, KEY, n, make_ended()),
    "void": lambda ledger, n: batch_ledger.record_void(ledger, KEY, n, make_void()),
    "collected": lambda ledger, n: batch_ledger.record_collected(ledger, KEY, make_collected()),
}
