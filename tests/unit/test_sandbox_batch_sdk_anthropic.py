"""The official anthropic SDK drives the sandbox's Message Batches through whole life cycles."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import anthropic
import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative", "neutral"]}},
    "required": ["label"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSandbox]:
    """One sandbox for the whole file; a batch takes half a second."""
    with RunningSandbox(seed=5, batch=BatchTiming(0.05, 0.05, 0.4)) as sandbox:
        yield sandbox


@pytest.fixture
def client(running: RunningSandbox) -> Iterator[anthropic.Anthropic]:
    """The SDK against the sandbox as it was at its start, without its own retries."""
    running.set_faults()
    running.reset()
    with anthropic.Anthropic(api_key="k", base_url=running.base_url("anthropic"), max_retries=0) as client:
        yield client


def requests(count: int, **params: Any) -> list[Any]:
    """Return the requests of a batch, r-0, r-1 ..."""
    return [
        {
            "custom_id": f"r-{number}",
            "params": {
                "model": "claude-haiku-4-5-20251001",
                "max_tokens": 64,
                "messages": [{"role": "user", "content": f"Label review {number}:\u2028 a line, and another."}],
                "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
                **params,
            },
        }
        for number in range(count)
    ]


def ended(client: anthropic.Anthropic, batch_id: str) -> MessageBatch:
    """Poll until the batch has ended."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        batch = client.messages.batches.retrieve(batch_id)
        if batch.processing_status == "ended":
            return batch
        time.sleep(0.02)
    raise TimeoutError(batch_id)


def by_id(results: Iterator[MessageBatchIndividualResponse]) -> dict[str, Any]:
    """Return the results under their custom ids."""
    return {line.custom_id: line.result for line in results}


def test_the_sdk_takes_a_batch_from_create_to_delete(client: anthropic.Anthropic, running: RunningSandbox) -> None:
    """Create, retrieve, list, results and delete give the SDK's own types, and the bill has each row once."""
    created = client.messages.batches.create(requests=requests(7))
    assert (created.type, created.processing_status) == ("message_batch", "in_progress")
    assert created.request_counts.model_dump() == {
        "processing": 7, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0,
    }  # fmt: skip
    assert created.ended_at is created.results_url is created.cancel_initiated_at is created.archived_at is None
    assert abs(created.expires_at - created.created_at - timedelta(hours=24)) < timedelta(milliseconds=1)
    with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
        client.messages.batches.results(created.id)

    batch = ended(client, created.id)
    assert batch.request_counts.model_dump() == {
        "processing": 0, "succeeded": 7, "errored": 0, "canceled": 0, "expired": 0,
    }  # fmt: skip
    assert batch.results_url == f"{running.url}/v1/messages/batches/{batch.id}/results"
    assert batch.ended_at is not None
    assert batch.created_at < batch.ended_at < batch.expires_at
    assert [item.id for item in client.messages.batches.list()] == [batch.id]

    results = by_id(client.messages.batches.results(batch.id))
    assert set(results) == {f"r-{number}" for number in range(7)}
    for result in results.values():
        assert result.type == "succeeded"
        assert result.message.stop_reason == "end_turn"
        assert result.message.usage.service_tier == "batch"
        assert result.message.model == "claude-haiku-4-5-20251001"
    assert (running.bill()["batch_billed"], running.bill()["paid_twice"]) == (7, 0)

    deleted = client.messages.batches.delete(batch.id)
    assert (deleted.id, deleted.type) == (batch.id, "message_batch_deleted")
    assert list(client.messages.batches.list()) == []
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)


def test_a_cancelled_batch_keeps_what_is_done(client: anthropic.Anthropic, running: RunningSandbox) -> None:
    """Cancel goes over `canceling` to `ended`; rows that ran have succeeded, all others are canceled."""
    running.set_faults(batch={"stuck": 1})
    created = client.messages.batches.create(requests=requests(10))
    with pytest.raises(anthropic.BadRequestError, match="cannot be deleted"):
        client.messages.batches.delete(created.id)
    time.sleep(0.5)
    canceling = client.messages.batches.cancel(created.id)
    assert canceling.processing_status == "canceling"
    assert canceling.request_counts.processing == 10
    assert canceling.cancel_initiated_at is not None
    assert client.messages.batches.cancel(created.id).cancel_initiated_at == canceling.cancel_initiated_at
    batch = ended(client, created.id)
    assert (batch.request_counts.succeeded, batch.request_counts.canceled) == (5, 5)
    results = by_id(client.messages.batches.results(batch.id))
    assert sorted(result.type for result in results.values()) == ["canceled"] * 5 + ["succeeded"] * 5
    assert running.bill()["batch_billed"] == 5
    with pytest.raises(anthropic.BadRequestError, match="already ended"):
        client.messages.batches.cancel(batch.id)


def test_an_expired_batch_keeps_what_is_done(client: anthropic.Anthropic, running: RunningSandbox) -> None:
    """A batch whose window ends at 60 % has six rows and four that expired."""
    running.set_faults(batch={"expire_at": 0.6})
    batch = ended(client, client.messages.batches.create(requests=requests(10)).id)
    assert (batch.request_counts.succeeded, batch.request_counts.expired) == (6, 4)
    kinds = [line.result.type for line in client.messages.batches.results(batch.id)]
    assert sorted(kinds) == ["expired"] * 4 + ["succeeded"] * 6


def test_bad_params_become_errored_rows(client: anthropic.Anthropic) -> None:
    """The create takes them; their errors are two levels deep and the other rows are answered."""
    bad = requests(4)
    bad[1]["params"]["temperature"] = 0.5
    bad[2]["params"]["model"] = "no-such-model"
    bad[3]["params"]["stream"] = True
    batch = ended(client, client.messages.batches.create(requests=bad).id)
    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 3)
    results = by_id(client.messages.batches.results(batch.id))
    errors = {name: result.error.error.type for name, result in results.items() if result.type == "errored"}
    assert errors == {"r-1": "invalid_request_error", "r-2": "not_found_error", "r-3": "invalid_request_error"}
    assert results["r-1"].error.request_id.startswith("req_")


def test_the_sdk_pages_in_both_directions(client: anthropic.Anthropic) -> None:
    """Its own pager finds all batches, newest first, and from an older one back to the newest."""
    ids = [client.messages.batches.create(requests=requests(1)).id for _ in range(5)]
    newest_first = ids[::-1]
    assert [batch.id for batch in client.messages.batches.list(limit=2)] == newest_first
    assert {batch.id for batch in client.messages.batches.list(limit=2, before_id=ids[0])} == set(ids[1:])
    page = client.messages.batches.list(limit=2, after_id=newest_first[1])
    assert ([batch.id for batch in page.data], page.has_more) == (newest_first[2:4], True)
