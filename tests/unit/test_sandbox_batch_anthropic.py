"""Anthropic's Message Batches in the sandbox, over real HTTP: versions, refusals, counters, flaws, listing."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_inline_builders import MESSAGES, Got, send, until

PATH = "/v1/messages/batches"
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


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


def call(
    sandbox: RunningSandbox, method: str, path: str, body: Any = None, version: str | None = "2026-10-21", key: str = "k"
) -> Got:  # fmt: skip
    """Make one exchange as a client of Anthropic's."""
    headers = {"x-api-key": key, **({"anthropic-version": version} if version else {})}
    return send(sandbox, method, path, headers, body)


def row(custom_id: Any = "r-0", **params: Any) -> dict[str, Any]:
    """Return a good row; a param of None is left out."""
    whole = {"model": "m", "max_tokens": 64, "messages": MESSAGES, **params}
    return {"custom_id": custom_id, "params": {name: value for name, value in whole.items() if value is not None}}


def create(sandbox: RunningSandbox, rows: list[Any], **how: Any) -> dict[str, Any]:
    """Create a batch and return it."""
    got = call(sandbox, "POST", PATH, {"requests": rows}, **how)
    assert got.status == 200, got.raw
    return got.json


def ended(sandbox: RunningSandbox, batch_id: str) -> dict[str, Any]:
    """Return the batch when it has ended."""
    seen = until(lambda: call(sandbox, "GET", f"{PATH}/{batch_id}"), lambda body: body["processing_status"] == "ended")
    return seen.json


def results(sandbox: RunningSandbox, batch_id: str) -> Got:
    """Return the results of a batch, once it has ended."""
    ended(sandbox, batch_id)
    return call(sandbox, "GET", f"{PATH}/{batch_id}/results")


def counts(batch: dict[str, Any]) -> tuple[int, ...]:
    """Return processing, succeeded, errored, canceled, expired."""
    return tuple(batch["request_counts"][name] for name in COUNTS)


def error_of(got: Got) -> tuple[int, str, str]:
    """Return status, type and message of a refusal."""
    return got.status, got.json["error"]["type"], got.json["error"]["message"]


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_both_versions_are_spoken(sandbox: RunningSandbox, version: str) -> None:
    """A row with a temperature is answered under the old version and errored under the new one."""
    batch = create(sandbox, [row(temperature=0.2), row("r-1")], version=version)
    kinds = {line["custom_id"]: line["result"]["type"] for line in results(sandbox, batch["id"]).lines}
    assert kinds == {"r-0": "succeeded" if version == "2023-06-01" else "errored", "r-1": "succeeded"}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", PATH), ("GET", PATH), ("GET", f"{PATH}/x"), ("GET", f"{PATH}/x/results")]
)
def test_version_and_key_are_asked_for_everywhere(sandbox: RunningSandbox, method: str, path: str) -> None:
    """Without a version or with a strange one it is 400, with a wrong key 401."""
    assert error_of(call(sandbox, method, path, b"", version=None))[0] == 400
    assert error_of(call(sandbox, method, path, b"", version="2025-01-01"))[0] == 400
    assert error_of(call(sandbox, method, path, b"", key="bad-key"))[:2] == (401, "authentication_error")


def test_counters_stay_still_until_the_end(sandbox: RunningSandbox) -> None:
    """While a batch is in progress all its rows are processing, half-way through as well."""
    sandbox.set_faults(batch={"stuck": 1})
    batch = create(sandbox, [row(f"r-{number}") for number in range(6)])
    sandbox.wait_for_event("create_replied")
    seen = set()
    for _ in range(15):
        seen.add(counts(call(sandbox, "GET", f"{PATH}/{batch['id']}").json))
    assert seen == {(6, 0, 0, 0, 0)}
    assert call(sandbox, "GET", f"{PATH}/{batch['id']}/results").status == 400


def test_results_are_lines_in_an_order_of_their_own(sandbox: RunningSandbox) -> None:
    """One line for each row, not in the order of the create, with what real time answers to the same body."""
    rows = [row(f"r-{number}", system=f"You are number {number}.") for number in range(40)]
    got = results(sandbox, create(sandbox, rows)["id"])
    assert got.headers["content-type"] == "application/x-jsonl"
    assert got.headers["request-id"].startswith("req_")
    ids = [line["custom_id"] for line in got.lines]
    assert sorted(ids) == sorted(one["custom_id"] for one in rows) != ids
    message = next(line["result"]["message"] for line in got.lines if line["custom_id"] == "r-7")
    alone = call(sandbox, "POST", "/v1/messages", rows[7]["params"]).json
    assert message["content"] == alone["content"]
    assert (message["usage"]["service_tier"], alone["usage"]["service_tier"]) == ("batch", "standard")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b'{"requests":[', "the body ends inside requests", id="cut"),
        pytest.param(b'{"requests":[{"a":}]}', "", id="no JSON"),
        pytest.param({"requests": [1]}, "", id="row is no object"),
        pytest.param({"requests": {}}, "", id="requests is no list"),
        pytest.param({}, "requests: Field required", id="no requests"),
        pytest.param({"requests": []}, "requests: List should have at least 1 item", id="empty"),
        pytest.param({"requests": [row()], "metadata": {}}, "metadata: Extra inputs", id="metadata"),
        pytest.param({"requests": [row(), row()]}, "requests.1.custom_id: must be unique", id="twice"),
        pytest.param({"requests": [row("a b")]}, "requests.0.custom_id: String should match", id="space in id"),
        pytest.param({"requests": [row("a" * 65)]}, "requests.0.custom_id: String should match", id="long id"),
        pytest.param({"requests": [row(7)]}, "requests.0.custom_id: Field required", id="number as id"),
        pytest.param({"requests": [{"custom_id": "a"}]}, "requests.0.params: Field required", id="no params"),
        pytest.param({"requests": [row() | {"url": ""}]}, "requests.0.url: Extra inputs", id="extra"),
    ],
)
def test_a_malformed_create_is_refused_at_once(sandbox: RunningSandbox, body: Any, message: str) -> None:
    """It is 400 with the place, and nothing is accepted."""
    status, kind, said = error_of(call(sandbox, "POST", PATH, body))
    assert (status, kind) == (400, "invalid_request_error")
    assert said.startswith(message)
    assert sandbox.bill()["batch_count"] == 0


def _rows(count: int) -> list[Any]:
    return [{"custom_id": f"r{number}", "params": {}} for number in range(count)]


@pytest.mark.soak
def test_as_many_rows_as_the_real_one_takes_pass(sandbox: RunningSandbox) -> None:
    """100,000 rows pass."""
    batch = create(sandbox, _rows(100_000))
    assert counts(ended(sandbox, batch["id"])) == (0, 0, 100_000, 0, 0)


def test_limits_are_those_of_the_real_one(sandbox: RunningSandbox) -> None:
    """100,001 rows do not pass; 256 MB are read to the end and refused with 413."""
    said = error_of(call(sandbox, "POST", PATH, {"requests": _rows(100_001)}))[2]
    assert said.startswith("requests: List should have at most")
    large = orjson.dumps({"requests": [row(f"r{number}", system="x" * 1_000_000) for number in range(256)]})
    assert error_of(call(sandbox, "POST", PATH, large))[:2] == (413, "request_too_large")


@pytest.mark.parametrize(
    ("params", "kind", "said"),
    [
        pytest.param({"max_tokens": None}, "invalid_request_error", "max_tokens: Field required", id="no limit"),
        pytest.param({"max_tokens": 0}, "invalid_request_error", "max_tokens", id="limit 0"),
        pytest.param({"speed": "fast"}, "invalid_request_error", "speed", id="not in batches"),
        pytest.param({"stream": True}, "invalid_request_error", "stream", id="stream"),
        pytest.param({"model": "no-such-model"}, "not_found_error", "model: no-such-model", id="model"),
        pytest.param({"messages": [{"role": "system"}]}, "invalid_request_error", "messages", id="system role"),
    ],
)
def test_bad_params_error_their_row_alone(sandbox: RunningSandbox, params: Any, kind: str, said: str) -> None:
    """The batch is created and ends; the bad row's error is two levels deep; nobody pays for it."""
    batch = create(sandbox, [row("bad", **params), row("good", system="Be brief.")])
    found = {line["custom_id"]: line["result"] for line in results(sandbox, batch["id"]).lines}
    assert found["good"]["type"] == "succeeded"
    envelope = found["bad"]["error"]
    assert (found["bad"]["type"], envelope["type"], envelope["error"]["type"]) == ("errored", "error", kind)
    assert envelope["error"]["message"].startswith(said)
    assert sandbox.bill()["batch_billed"] == 1


def test_an_empty_balance_shows_late_or_at_once(sandbox: RunningSandbox) -> None:
    """With one key the create is refused; with the other all rows are errored and say why."""
    assert call(sandbox, "POST", PATH, {"requests": [row()]}, key="no-credit").status in {400, 402}
    batch = create(sandbox, [row(), row("r-1")], key="no-credit-later")
    errors = [line["result"]["error"]["error"] for line in results(sandbox, batch["id"]).lines]
    assert [error["type"] for error in errors] == ["invalid_request_error"] * 2
    assert all(error["message"].startswith("Your credit balance is too low") for error in errors)


def test_faults_of_real_time_meet_rows(sandbox: RunningSandbox) -> None:
    """A plan of overloads makes overloaded rows; the next try of the same rows draws anew."""
    sandbox.set_faults(overloaded=1.0)
    lines = results(sandbox, create(sandbox, [row()])["id"]).lines
    assert lines[0]["result"]["error"]["error"] == {"type": "overloaded_error", "message": "Overloaded"}
    sandbox.set_faults()
    assert results(sandbox, create(sandbox, [row()])["id"]).lines[0]["result"]["type"] == "succeeded"


@pytest.mark.parametrize(
    ("fault", "lines", "known"),
    [("missing", 5, 5), ("duplicate", 15, 10), ("unknown", 15, 15), ("status_zero", 10, 10)],
)
def test_flaws_of_results(sandbox: RunningSandbox, fault: str, lines: int, known: int) -> None:
    """Half the rows are missing, come twice, bring a stranger along, or failed without a status."""
    sandbox.set_faults(batch={fault: 0.5})
    found = results(sandbox, create(sandbox, [row(f"r-{number}") for number in range(10)])["id"]).lines
    assert (len(found), len({line["custom_id"] for line in found})) == (lines, known)
    kinds = Counter(line["result"]["type"] for line in found)
    assert kinds["errored"] == (5 if fault == "status_zero" else 0)


def test_a_malformed_line_is_one_line(sandbox: RunningSandbox) -> None:
    """It is no JSON, and the lines around it are."""
    sandbox.set_faults(batch={"malformed_line": 1})
    raw = results(sandbox, create(sandbox, [row(f"r-{number}") for number in range(10)])["id"]).raw.split(b"\n")[:-1]
    assert (len(raw), sum(line.endswith(b"}}") for line in raw)) == (10, 9)


def test_a_status_nobody_knows_and_a_batch_that_vanished(sandbox: RunningSandbox) -> None:
    """Status checks show both; listings keep the right word."""
    batch = create(sandbox, [row()])
    sandbox.set_faults(batch={"unknown_status": 1, "status_error": 1})
    assert call(sandbox, "GET", f"{PATH}/{batch['id']}").status == 529
    assert call(sandbox, "GET", f"{PATH}/{batch['id']}").json["processing_status"] == "reticulating"
    assert call(sandbox, "GET", PATH).json["data"][0]["processing_status"] in {"in_progress", "ended"}
    sandbox.set_faults(batch={"gone": True})
    assert error_of(call(sandbox, "GET", f"{PATH}/{batch['id']}"))[:2] == (404, "not_found_error")


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/results")])
def test_an_unknown_batch_is_not_found(sandbox: RunningSandbox, method: str, path: str) -> None:
    """Every endpoint answers 404 in Anthropic's words."""
    assert error_of(call(sandbox, method, f"{PATH}/msgbatch_x{path}"))[:2] == (404, "not_found_error")


def test_a_page_has_its_edges(sandbox: RunningSandbox) -> None:
    """limit, after_id and before_id cut the list, newest first; a page that is none is refused."""
    ids = [create(sandbox, [row()])["id"] for _ in range(4)][::-1]

    def page(query: str) -> tuple[list[str], bool]:
        body = call(sandbox, "GET", f"{PATH}?{query}").json
        found = [batch["id"] for batch in body["data"]]
        assert (body["first_id"], body["last_id"]) == ((found[0], found[-1]) if found else (None, None))
        return found, body["has_more"]

    assert page("") == (ids, False)
    assert page("limit=3") == (ids[:3], True)
    assert page(f"limit=3&after_id={ids[2]}") == (ids[3:], False)
    assert page(f"after_id={ids[3]}") == ([], False)
    assert page(f"limit=1&before_id={ids[2]}") == (ids[1:2], True)
    assert page(f"limit=2&before_id={ids[2]}") == (ids[:2], False)
    for query in ("limit=0", "limit=1001", "limit=x", "after_id=msgbatch_x", "before_id=msgbatch_x"):
        assert call(sandbox, "GET", f"{PATH}?{query}").status == 400


def test_a_lost_create_is_found_by_listing(sandbox: RunningSandbox) -> None:
    """The reply never comes, the batch is there, with its count of rows and its time."""
    sandbox.set_faults(batch={"lost_create": 1})
    with pytest.raises(ConnectionError):
        create(sandbox, [row(), row("r-1")])
    listed = call(sandbox, "GET", PATH).json["data"]
    assert [sum(counts(batch)) for batch in listed] == [2]
    assert ended(sandbox, listed[0]["id"])["created_at"] == listed[0]["created_at"]


def test_a_batch_cancelled_at_once_has_a_result_for_every_row(sandbox: RunningSandbox) -> None:
    """Whatever was still being looked at, the counters add up and each row is canceled."""
    batch = create(sandbox, [row(f"r-{number}") for number in range(2000)])
    assert call(sandbox, "POST", f"{PATH}/{batch['id']}/cancel").json["processing_status"] == "canceling"
    lines = results(sandbox, batch["id"]).lines
    assert counts(ended(sandbox, batch["id"])) == (0, 0, 0, 2000, 0)
    assert {line["result"]["type"] for line in lines} == {"canceled"}
    assert len(lines) == 2000
