"""Creates whose reply was lost: the batch is found, never guessed, and never paid twice (P2)."""

from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from tests.conformance.batch_jobs import KEY, PROVIDERS, Gate, Workshop, assert_all_once, assert_paid
from tests.conformance.turnstile import refusal

_NOT_LISTED = refusal(403, "You have no permission to list batches.", "permission_error", None)
#: Providers whose batches carry no metadata: only the ids in the results tell whose one is.
_WITHOUT_METADATA = ("anthropic", "openrouter")


def _create_strangers(workshop: Workshop, provider: str, count: int) -> None:
    """Create somebody else's batch of as many requests in the same account."""
    said = [{"role": "user", "content": "A stranger's question."}]
    if provider == "anthropic":
        params = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": said}
        body = {"requests": [{"custom_id": f"theirs-{n}", "params": params} for n in range(count)]}
        path, headers = "/v1/messages/batches", {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    else:
        rows = [{"custom_id": f"theirs-{n}", "body": {"messages": said}} for n in range(count)]
        head: dict[str, Any] = {
            "endpoint": "/v1/chat/completions",
            "model": "openai/gpt-4o-mini",
            "completion_window": "24h",
        }
        body = {**head, "requests": rows}
        path, headers = "/batches", {"Authorization": f"Bearer {KEY}"}
    url = urlsplit(workshop.sandbox.base_url(provider))
    connection = HTTPConnection(url.netloc, timeout=10)
    connection.request("POST", url.path + path, orjson.dumps(body), {**headers, "Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status in {200, 202}, response.read()
    connection.close()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_batch_whose_create_got_no_reply_is_adopted(workshop: Workshop, provider: str) -> None:
    """Accepted, then the connection drops: the listing shows it, and one batch is on the bill (P2)."""
    workshop.sandbox.set_faults(batch={"lost_create": 1})
    workshop.write(provider)
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=30)
    [entry] = workshop.entries()
    assert entry.handle is not None
    assert (entry.attempt, entry.handle.proven) == (0, provider not in _WITHOUT_METADATA)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_create_that_never_arrived_is_repeated_when_the_listing_proves_it(workshop: Workshop, provider: str) -> None:
    """A 500 leaves it open; when the listing shows no such batch twice, another attempt is made (P2)."""
    workshop.sandbox.set_faults(batch={"create_error": 1})
    workshop.write(provider)
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=30)
    [entry] = workshop.entries()
    assert [void.kind for void in entry.voids] == ["absent"]


@pytest.mark.parametrize("provider", _WITHOUT_METADATA)
@pytest.mark.parametrize("fault", ["lost_create", "create_error"])
def test_a_strangers_batch_of_the_same_size_is_not_taken_for_ours(
    workshop: Workshop, provider: str, fault: str
) -> None:
    """Somebody else's batch of the same second and size fits by all that a listing says; its results tell (P2).

    Whether our create was accepted or not: in the end there is one batch of ours, and every row has its own answer.
    """
    workshop.write(provider)
    _create_strangers(workshop, provider, 30)
    workshop.sandbox.set_faults(batch={fault: 1})
    assert_all_once(workshop.run(), 30)
    batches = workshop.sandbox.bill(entries=True)["batches"]
    assert len(batches) == 2
    [own] = [batch for batch in batches if len(set(batch["request_hashes"])) == 30]
    assert own["billed"] == 30
    [entry] = workshop.entries()
    assert entry.handle is not None
    assert entry.handle.provider_batch_id == own["id"]
    assert workshop.sandbox.stats()["requests"] == 0


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_where_the_listing_fails_rows_wait_and_the_operator_is_told(workshop: Workshop, provider: str) -> None:
    """Nobody knows whether the batch exists: exit 5 names the command; the next run finds the batch (P1, P2)."""
    workshop.sandbox.set_faults(batch={"lost_create": 1})
    with Gate(workshop.sandbox) as gate:
        gate.decide = lambda asked: _NOT_LISTED if asked.method == "GET" and "batches" in asked.path else None
        workshop.write(provider, gate=gate)
        lost = workshop.run("batching.poll_interval=5ms")
        assert (lost.exit_code, lost.summary["status"], lost.summary["rows"]["pending"]) == (5, "pending", 30)
        [entry] = workshop.entries()
        assert f"rowbeam batches OUTPUT --resolve {entry.key[:12]}" in lost.sentence
        assert workshop.output.values("select status from {batches}") == ["unresolved"]
        gate.decide = lambda _asked: None
        assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=30)
