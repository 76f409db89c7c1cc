"""OpenRouter's batches in the sandbox, over real HTTP: key order, whole-batch failure, withheld results, cost, listing."""

import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_inline_builders import MESSAGES, Got, send, until

PATH, MODEL = "/api/v1/batches", "openai/gpt-4o-mini"
TERMINAL = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSandbox]:
    """One sandbox for the whole file; a batch takes a third of a second."""
    with RunningSandbox(seed=5, batch=BatchTiming(0.02, 0.02, 0.3)) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: RunningSandbox) -> RunningSandbox:
    """The sandbox as it was at its start."""
    running.set_faults()
    running.reset()
    return running


def call(sandbox: RunningSandbox, method: str, path: str = "", body: Any = None, key: str = "k") -> Got:
    """Make one exchange with the batch endpoints."""
    return send(sandbox, method, PATH + path, {"Authorization": f"Bearer {key}"}, body)


def row(number: int = 0, **body: Any) -> dict[str, Any]:
    """Return a good row."""
    messages = [{"role": "user", "content": f"Label review {number}."}]
    return {"custom_id": f"r-{number}", "body": {"messages": messages, **body}}


def order(rows: list[Any], **settings: Any) -> dict[str, Any]:
    """Return the body of a create, its keys in the right order."""
    return {"endpoint": "/v1/chat/completions", "model": MODEL, **settings, "requests": rows}


def create(sandbox: RunningSandbox, rows: list[Any], **settings: Any) -> dict[str, Any]:
    """Create a batch and return it."""
    got = call(sandbox, "POST", "", order(rows, **settings))
    assert got.status == 202, got.raw
    return got.json


def ended(sandbox: RunningSandbox, batch_id: str) -> dict[str, Any]:
    """Return the batch when it has ended."""
    return until(lambda: call(sandbox, "GET", f"/{batch_id}"), lambda body: body["status"] in TERMINAL).json


def error_of(got: Got) -> tuple[int, str]:
    """Return status and message of a refusal, whose code is its status."""
    error = got.json["error"]
    assert error["code"] == got.status
    return got.status, error["message"]


def test_a_batch_lives_from_create_to_delete(sandbox: RunningSandbox) -> None:
    """202 and validating at first, results inside the terminal status reply, 409 before the end and 410 after delete."""
    created = create(sandbox, [row(number) for number in range(5)], provider={"only": ["azure"]})
    assert created == {
        "id": created["id"],
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": MODEL,
        "provider": {"only": ["azure"]},
        "status": "validating",
        "completion_window": "24h",
        "created_at": created["created_at"],
        "expires_at": created["created_at"] + 86400,
        "finalized_at": None,
        "request_counts": {"total": 5, "completed": 0, "failed": 0},
        "usage": None,
        "error": None,
        "results": None,
    }
    assert error_of(call(sandbox, "DELETE", f"/{created['id']}"))[0] == 409
    batch = ended(sandbox, created["id"])
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 5, "completed": 5, "failed": 0})
    assert batch["finalized_at"] >= batch["created_at"]
    ids = [result["custom_id"] for result in batch["results"]]
    assert sorted(ids) == [f"r-{number}" for number in range(5)] != ids
    first = batch["results"][0]
    assert (first["error"], first["response"]["status_code"]) == (None, 200)
    assert first["response"]["body"]["id"].startswith("gen-batch-")
    assert call(sandbox, "DELETE", f"/{created['id']}").json == {"id": batch["id"], "object": "batch", "deleted": True}
    assert error_of(call(sandbox, "GET", f"/{created['id']}"))[0] == 410
    assert error_of(call(sandbox, "DELETE", f"/{created['id']}"))[0] == 404
    assert call(sandbox, "GET").json["data"] == []


def test_rows_cost_half_and_add_up(sandbox: RunningSandbox) -> None:
    """Each row costs half of what the same request costs in real time; the batch's usage is the exact sum."""
    rows = [row(number) for number in range(9)]
    batch = ended(sandbox, create(sandbox, rows)["id"])
    costs = {result["custom_id"]: result["response"]["body"]["usage"] for result in batch["results"]}
    path = "/api/v1/chat/completions"
    alone = send(sandbox, "POST", path, {"Authorization": "Bearer k"}, {"model": MODEL, **rows[4]["body"]}).json
    assert 2 * costs["r-4"]["cost"] == alone["usage"]["cost"]
    details = costs["r-4"]["cost_details"]
    parts = details["upstream_inference_prompt_cost"] + details["upstream_inference_completions_cost"]
    assert math.isclose(parts, costs["r-4"]["cost"])
    usage = batch["usage"]
    assert usage["is_byok"] is False
    assert math.isclose(usage["cost"], math.fsum(one["cost"] for one in costs.values()), rel_tol=1e-12)
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert usage[name] == sum(one[name] for one in costs.values())
    assert call(sandbox, "GET").json["data"][0]["usage"] == usage


@pytest.mark.parametrize("late", ["endpoint", "model", "provider", "callback_url"])
def test_settings_after_the_rows_are_refused(sandbox: RunningSandbox, late: str) -> None:
    """The parser reads a stream: what comes after `requests` is too late, but for the completion window."""
    body = order([row()], provider={"only": ["azure"]}, callback_url="https://x.example")
    body[late] = body.pop(late)
    assert error_of(call(sandbox, "POST", "", body)) == (400, f"{late}: must be serialized before requests")
    body = order([row()]) | {"completion_window": "24h"}
    assert call(sandbox, "POST", "", body).status == 202


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"endpoint": "/v1/embeddings"}, "endpoint: ", id="endpoint"),
        pytest.param({"model": ""}, "model: ", id="model"),
        pytest.param({"model": "no-such-model"}, "no-such-model is not a valid model ID", id="unknown model"),
        pytest.param({"completion_window": "1h"}, "completion_window: ", id="window"),
        pytest.param({"provider": {"order": ["azure"]}}, "provider: ", id="routing"),
        pytest.param({"callback_url": "http://x.example"}, "callback_url: ", id="callback"),
        pytest.param({"metadata": {}}, "Unrecognized key: metadata", id="metadata"),
        pytest.param({"requests": []}, "requests: must not be empty", id="empty"),
        pytest.param({"requests": [row(n) for n in range(5001)]}, "requests: must be at most 5000", id="many"),
        pytest.param({"requests": [1]}, "Invalid JSON: requests", id="row is no object"),
    ],
)
def test_a_malformed_create_is_refused_at_once(sandbox: RunningSandbox, changes: Any, message: str) -> None:
    """It is 400 and says what to change; nothing is accepted."""
    settings = {name: value for name, value in changes.items() if name != "requests"}
    body = order(changes.get("requests", [row()]), **settings)
    status, said = error_of(call(sandbox, "POST", "", body))
    assert (status, said[: len(message)]) == (400, message)
    assert sandbox.bill()["batch_count"] == 0


def test_keys_and_size_are_checked(sandbox: RunningSandbox) -> None:
    """A missing key is 400, a wrong API key 401, no credit 402, more than 200 MB 413."""
    assert error_of(call(sandbox, "POST", "", {"requests": [row()]})) == (400, "endpoint: Required")
    assert error_of(call(sandbox, "POST", "", order([row()]), key="bad-key"))[0] == 401
    assert error_of(call(sandbox, "POST", "", order([row()]), key="no-credit"))[0] == 402
    large = orjson.dumps(order([row(number, user="x" * 1_000_000) for number in range(200)]))
    assert error_of(call(sandbox, "POST", "", large))[0] == 413


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param(row(1, model="openai/gpt-4o"), "body.model must match", id="other model"),
        pytest.param({"custom_id": "r-1"}, "body must be an object", id="no body"),
        pytest.param({"body": {"messages": MESSAGES}}, "custom_id: must be", id="no id"),
        pytest.param(row(0), "is not unique", id="same id"),
        pytest.param(row(1, messages=[]), "empty array", id="no messages"),
        pytest.param(row(1, stream=True), "stream", id="stream"),
    ],
)
def test_one_bad_row_fails_the_whole_batch(sandbox: RunningSandbox, bad: Any, reason: str) -> None:
    """The create is 202; afterwards the batch fails, names row and reason, runs nothing and costs nothing."""
    batch = ended(sandbox, create(sandbox, [row(0), bad, row(2)])["id"])
    assert (batch["status"], batch["results"], batch["usage"]) == ("failed", None, None)
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert "line 2" in batch["error"]["message"]
    assert reason in batch["error"]["message"]
    assert sandbox.bill()["batch_billed"] == 0


def test_a_row_may_name_the_batchs_model(sandbox: RunningSandbox) -> None:
    """With the model or without it, a row gets the same answer as in real time."""
    batch = ended(sandbox, create(sandbox, [row(1, model=MODEL), row(2)])["id"])
    assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


def test_results_are_withheld_until_there_is_credit(sandbox: RunningSandbox) -> None:
    """402 with the batch, no results and a reason; polled again with credit they are there, and nothing ran twice."""
    batch_id = create(sandbox, [row()])["id"]
    ended(sandbox, batch_id)
    sandbox.set_faults(batch={"withheld": 1})
    for got in (call(sandbox, "GET", f"/{batch_id}"), call(sandbox, "GET", f"/{batch_id}", key="no-credit")):
        body = got.json
        assert (got.status, body["id"], body["status"], body["results"]) == (402, batch_id, "completed", None)
        assert body["error"]["message"].startswith("Insufficient credits")
    assert len(call(sandbox, "GET", f"/{batch_id}").json["results"]) == 1
    assert sandbox.bill()["batch_billed"] == 1


def test_failed_rows_say_so_in_one_of_two_places(sandbox: RunningSandbox) -> None:
    """A row that failed has a response with its status or an error with a type, never both; it costs nothing."""
    sandbox.set_faults(overloaded=1.0)
    batch = ended(sandbox, create(sandbox, [row(number) for number in range(20)])["id"])
    assert batch["request_counts"] == {"total": 20, "completed": 0, "failed": 20}
    places = Counter()
    for result in batch["results"]:
        response, error = result["response"], result["error"]
        assert (response is None) != (error is None)
        kind = error["error_type"] if error else response["body"]["error"]["metadata"]["error_type"]
        places["error" if error else response["status_code"]] += 1
        assert kind == "provider_overloaded"
    assert set(places) == {"error", 503}
    assert batch["usage"]["cost"] == 0


def test_an_expired_batch_has_what_is_done(sandbox: RunningSandbox) -> None:
    """Rows that ran have responses, the others an error that says that the window ended; only the first cost."""
    sandbox.set_faults(batch={"expire_at": 0.6})
    batch = ended(sandbox, create(sandbox, [row(number) for number in range(10)])["id"])
    assert (batch["status"], batch["request_counts"]) == ("expired", {"total": 10, "completed": 6, "failed": 0})
    errors = [result["error"]["type"] for result in batch["results"] if result["error"]]
    assert errors == ["batch_expired"] * 4
    assert sandbox.bill()["batch_billed"] == 6


def test_flawed_results_keep_the_reply_readable(sandbox: RunningSandbox) -> None:
    """Missing, double and broken results, and strangers among them, stand in an array that is JSON all the same."""
    sandbox.set_faults(
        batch={"missing": 0.1, "duplicate": 0.1, "unknown": 0.1, "status_zero": 0.1, "malformed_line": 1}
    )
    batch = ended(sandbox, create(sandbox, [row(number) for number in range(10)])["id"])
    ids = Counter(result.get("custom_id") for result in batch["results"])
    assert (ids[None], max(ids.values()), len([name for name in ids if str(name).startswith("nobody")])) == (1, 2, 1)
    zero = [
        result for result in batch["results"] if result.get("response", {}) and result["response"]["status_code"] == 0
    ]
    assert [result["response"]["body"] for result in zero] == [None]
    good = {
        result["custom_id"]: result["response"]["body"]["usage"]["total_tokens"]
        for result in batch["results"]
        if result.get("custom_id", "nobody").startswith("r-") and result["response"]["status_code"] == 200
    }
    assert (len(good), sandbox.bill()["batch_billed"]) == (7, 7)
    assert batch["usage"]["total_tokens"] == sum(good.values())


def test_a_status_nobody_knows_holds_no_results(sandbox: RunningSandbox) -> None:
    """Neither does a 503, and a batch that is gone is 410; there is no cancel at all."""
    batch_id = create(sandbox, [row()])["id"]
    ended(sandbox, batch_id)
    sandbox.set_faults(batch={"unknown_status": 1, "status_error": 1})
    assert error_of(call(sandbox, "GET", f"/{batch_id}"))[0] == 503
    strange = call(sandbox, "GET", f"/{batch_id}").json
    assert (strange["status"], strange["results"]) == ("reticulating", None)
    sandbox.set_faults(batch={"gone": True})
    assert error_of(call(sandbox, "GET", f"/{batch_id}"))[0] == 410
    assert error_of(call(sandbox, "GET", "/batch_x"))[0] == 404
    assert error_of(call(sandbox, "POST", f"/{batch_id}/cancel"))[0] == 404


def test_a_listing_is_filtered_and_paged(sandbox: RunningSandbox) -> None:
    """Newest first, by status (repeated), by time and by place; without results; a bad filter is 400."""
    ids = [create(sandbox, [row(number)])["id"] for number in range(3)]
    for batch_id in ids:
        ended(sandbox, batch_id)
    failed = create(sandbox, [row(0), row(0)])["id"]
    ended(sandbox, failed)
    newest_first = [failed, *ids[::-1]]

    def page(**query: Any) -> tuple[list[str], bool]:
        body = call(sandbox, "GET", f"?{urlencode(query, doseq=True)}").json
        found = [batch["id"] for batch in body["data"]]
        assert body["object"] == "list"
        assert all(batch["results"] is None for batch in body["data"])
        assert (body["first_id"], body["last_id"]) == ((found[0], found[-1]) if found else (None, None))
        return found, body["has_more"]

    assert page() == (newest_first, False)
    assert page(limit=3) == (newest_first[:3], True)
    assert page(limit=3, after=newest_first[2]) == (newest_first[3:], False)
    assert page(status="failed") == ([failed], False)
    assert page(status=["failed", "completed"]) == (newest_first, False)
    assert page(status="expired") == ([], False)
    now = datetime.now(UTC)
    assert page(created_after=now.isoformat()) == ([], False)
    assert page(created_after="2026-01-01T00:00:00Z", created_before=now.isoformat()) == (newest_first, False)
    assert page(created_before="2026-01-01") == ([], False)
    for query in ("limit=0", "limit=101", "status=finalizing", "status=x", "after=batch_x", "created_after=soon"):
        assert call(sandbox, "GET", f"?{query}").status == 400
