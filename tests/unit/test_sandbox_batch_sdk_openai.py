"""The official openai SDK drives files and batches of the sandbox's OpenAI and Azure through a whole life cycle."""

import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import orjson
import pytest
from openai.types import Batch

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_batches import CHAT, body_for, lines_for

DATED = "2024-10-21"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RunningSandbox]:
    """One sandbox for the whole file."""
    with RunningSandbox(seed=5, batch=BatchTiming(validating_s=0.02, queue_s=0.02, duration_s=0.3)) as sandbox:
        yield sandbox


def _openai(sandbox: RunningSandbox) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=sandbox.base_url("openai"), max_retries=0)


def _azure_v1(sandbox: RunningSandbox) -> openai.OpenAI:
    url = f"{sandbox.base_url('azure_openai')}/openai/v1"
    return openai.OpenAI(api_key="k", base_url=url, max_retries=0)


def _azure_dated(sandbox: RunningSandbox) -> openai.OpenAI:
    endpoint = sandbox.base_url("azure_openai")
    return openai.AzureOpenAI(api_key="k", azure_endpoint=endpoint, api_version=DATED, max_retries=0)


@pytest.fixture(params=[_openai, _azure_v1, _azure_dated])
def client(request: pytest.FixtureRequest, sandbox: RunningSandbox) -> Iterator[openai.OpenAI]:
    """An SDK client of each provider and URL family, on an emptied sandbox."""
    sandbox.set_faults()
    sandbox.reset()
    make: Callable[[RunningSandbox], openai.OpenAI] = request.param
    with make(sandbox) as client:
        yield client


def _start(client: openai.OpenAI, count: int, **fields: Any) -> Batch:
    file = client.files.create(file=("rows.jsonl", io.BytesIO(lines_for(count))), purpose="batch")
    client.files.wait_for_processing(file.id, poll_interval=0.02)
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h", **fields)


def _wait(client: openai.OpenAI, batch: Batch) -> Batch:
    until_s = time.monotonic() + 20
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < until_s, batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def _rows(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    content = client.files.content(file_id).content if file_id else b""
    return [orjson.loads(line) for line in content.splitlines()]


def test_upload_create_retrieve_list_and_content(client: openai.OpenAI, sandbox: RunningSandbox) -> None:
    """The SDK's own types come back at every step, and each row's answer is that of the SDK's real-time call."""
    batch = _start(client, 4, metadata={"batch_key": "k1"})
    assert batch.metadata == {"batch_key": "k1"}
    batch = _wait(client, batch)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (4, 4, 0)
    rows = _rows(client, batch.output_file_id)
    assert sorted(row["custom_id"] for row in rows) == ["r-0", "r-1", "r-2", "r-3"]
    assert _rows(client, batch.error_file_id) == []
    assert sandbox.bill()["paid_twice"] == 0
    reply = client.chat.completions.create(**body_for(2))
    body = next(row["response"]["body"] for row in rows if row["custom_id"] == "r-2")
    assert reply.choices[0].message.content == body["choices"][0]["message"]["content"]
    assert reply.usage is not None
    assert reply.usage.total_tokens == body["usage"]["total_tokens"]
    assert sandbox.bill()["paid_twice"] == 1


def test_cancel_keeps_what_is_done(client: openai.OpenAI, sandbox: RunningSandbox) -> None:
    """Rows that had run are in the output file, the others say that they were cancelled."""
    sandbox.set_faults(batch={"stuck": 1})
    batch = _start(client, 10)
    time.sleep(0.4)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = _wait(client, batch)
    assert batch.status == "cancelled"
    assert len(_rows(client, batch.output_file_id)) == 5
    assert {row["error"]["code"] for row in _rows(client, batch.error_file_id)} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_listing_pages_through_all_batches(client: openai.OpenAI) -> None:
    """The SDK's pages give every batch once, newest first."""
    ids = [_start(client, 1, metadata={"part": str(part)}).id for part in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]


def test_files_are_retrieved_listed_and_deleted(client: openai.OpenAI) -> None:
    """A file is what was uploaded until it is deleted."""
    file = client.files.create(file=("rows.jsonl", io.BytesIO(lines_for(2))), purpose="batch")
    assert client.files.retrieve(file.id).bytes == len(lines_for(2))
    assert client.files.content(file.id).content == lines_for(2)
    assert [listed.id for listed in client.files.list(purpose="batch")] == [file.id]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_failures_are_the_sdks_own_errors(client: openai.OpenAI, sandbox: RunningSandbox) -> None:
    """A rejected batch tells its line; a refused create, an unavailable API and a lost reply are typed errors."""
    sandbox.set_faults(batch={"reject": 1, "reject_line": 2})
    batch = _wait(client, _start(client, 3))
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].code == "invalid_json_line"
    assert int(batch.errors.data[0].line or 0) == 2
    file_id = batch.input_file_id
    for faults, error in (
        ({"create_error": 1}, openai.InternalServerError),
        ({"unavailable": 404}, openai.NotFoundError),
        ({"unavailable": 403}, openai.PermissionDeniedError),
        ({"lost_create": 1}, openai.APIConnectionError),
    ):
        sandbox.set_faults(batch=faults)
        with pytest.raises(error):
            client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    assert len(client.batches.list().data) == 2
