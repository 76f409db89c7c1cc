"""Anthropic's Message Batches: judged by the official SDK's requests and types."""

from typing import Any

import anthropic
import orjson
import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from anthropic.types.messages.batch_create_params import Request
from pydantic import TypeAdapter

from tests.unit.batch_api_builders import (
    CUSTOM_ID,
    FACTS,
    KEY,
    SINCE_S,
    assert_same,
    kind_of,
    make,
    response,
    sdk_request,
)
from transforms.records.batch import BatchLimits, BatchState, BatchStatus
from transforms.records.errors import ConfigError, InternalError
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, Reply
from transforms.records.settings import ModelParams

API = "https://api.anthropic.com/v1/messages/batches"
COUNTS = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 7},
}


def claude(**changes):
    """Return the adapter for a job's model."""
    return make(**({"provider": "anthropic", "name": "claude-sonnet-4-5"} | changes))


def sdk(call):
    """Return the SDK's request."""
    return sdk_request(lambda **more: anthropic.Anthropic(api_key=KEY, **more), call)


def batch(counts=None, **changes):
    """Return a batch as Anthropic describes it, and as its SDK takes it."""
    body: dict[str, Any] = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": COUNTS | (counts or {"succeeded": 3}),
        "created_at": "2023-11-14T22:15:00.100435Z",
        "expires_at": "2023-11-15T22:15:00.100435Z",
        "ended_at": "2023-11-14T23:00:00Z",
        "cancel_initiated_at": None,
        "archived_at": None,
        "results_url": f"{API}/msgbatch_1/results",
    } | changes
    MessageBatch.model_validate(body)
    return body


def read(counts=None, **changes):
    """Return the state read from a batch."""
    state = claude().api.read_batch(response(batch(counts, **changes)))
    assert isinstance(state, BatchState)
    return state


def result(**content):
    """Return a results line, and see that the SDK takes it."""
    line = {"custom_id": CUSTOM_ID, "result": content}
    MessageBatchIndividualResponse.model_validate(line)
    return line


def errored(kind, message="no", **more):
    """Return an errored row."""
    error = {"type": "error", "error": {"type": kind, "message": message} | more, "request_id": "req_1"}
    return {"custom_id": CUSTOM_ID, "result": {"type": "errored", "error": error}}


def test_the_create_is_the_sdks():
    """Head, lines with commas between, and tail make the body that the SDK sends; its types take the lines."""
    made = claude(params=ModelParams(max_output_tokens=9))
    create = made.api.create(KEY, FACTS, None)
    lines = [made.line(), made.line() | {"custom_id": "other"}]
    ours = orjson.loads(create.head + b",".join(map(orjson.dumps, lines)) + create.tail)
    theirs = sdk(lambda client: client.messages.batches.create(requests=lines))
    assert (create.url, ours) == (str(theirs.url), orjson.loads(theirs.content))
    for name in ("authorization", "anthropic-version", "content-type"):
        assert create.headers[name] == theirs.headers[name]
    for line in lines:
        taken = TypeAdapter(Request).validate_python(line)  # without the keys that the SDK does not know
        assert (taken.keys(), taken["params"].keys()) == (line.keys(), line["params"].keys())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(lambda a: a.status(KEY, "b1"), lambda c: c.messages.batches.retrieve("b1"), id="status"),
        pytest.param(lambda a: a.cancel(KEY, "b1"), lambda c: c.messages.batches.cancel("b1"), id="cancel"),
        pytest.param(lambda a: a.listing(KEY, SINCE_S), lambda c: c.messages.batches.list(limit=100), id="listing"),
    ],
)
def test_requests_are_the_sdks(ours, theirs):
    """Method, address, key and version are those of the official client."""
    assert_same(ours(claude().api), sdk(theirs), "authorization", "anthropic-version", "accept")


def test_limits_leave_five_percent():
    """95 % of 100,000 requests and of 256 MB, less what stands around the requests."""
    assert claude().api.limits == BatchLimits(95_000, 243_200_000 - 15)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param({name: 1}, id=name)
        for name in ("speed", "store", "previous_thread_event_id", "cache_hint", "context_hint")
    ]
    + [pytest.param({"max_tokens": 0}, id="max_tokens")],
)
def test_what_batches_do_not_take_is_refused_before_the_start(extra):
    """The key of the job file is named, and the way out."""
    with pytest.raises(ConfigError, match=rf"^model\.params\.extra\.{next(iter(extra))}: .*per_request"):
        claude(params=ModelParams(extra=extra))


def test_no_file_is_uploaded():
    """Asking for an upload is a mistake of ours."""
    api = claude().api
    assert (api.uses_files, api.has_metadata, api.shows_progress) == (False, False, False)
    for call in (
        lambda: api.upload(KEY, FACTS),
        lambda: api.read_file(response({})),
        lambda: api.file_status(KEY, "f"),
    ):
        with pytest.raises(InternalError):
            call()


@pytest.mark.parametrize(
    ("counts", "changes", "status", "completed"),
    [
        pytest.param({"processing": 3}, {"processing_status": "in_progress"}, BatchStatus.RUNNING, None, id="running"),
        pytest.param(
            {"processing": 3}, {"processing_status": "canceling"}, BatchStatus.CANCELLING, None, id="canceling"
        ),
        pytest.param({"succeeded": 2, "errored": 1}, {}, BatchStatus.COMPLETED, 2, id="ended"),
        pytest.param({"succeeded": 2, "expired": 1}, {}, BatchStatus.EXPIRED, 2, id="some_expired"),
        pytest.param(
            {"succeeded": 2, "canceled": 1},
            {"cancel_initiated_at": "2023-11-14T22:20:00Z"},
            BatchStatus.CANCELLED,
            2,
            id="some_cancelled",
        ),
        pytest.param(
            {"succeeded": 3}, {"cancel_initiated_at": "2023-11-14T22:20:00Z"}, BatchStatus.CANCELLED, 3, id="too_late"
        ),
    ],
)
def test_a_batch_says_how_it_stands(counts, changes, status, completed):
    """The total is always known; there is no progress before the end."""
    state = read(counts, **changes)
    assert (state.status, state.total, state.completed) == (status, 3, completed)
    assert state.failed == (None if completed is None else 3 - completed)
    assert (state.is_known, state.created_at_s) == (True, pytest.approx(1_700_000_100.1, abs=0.1))


def test_an_unknown_status_counts_as_running():
    """A new word is no end."""
    body = batch() | {"processing_status": "dreaming"}
    state = claude().api.read_batch(response(body))
    assert (state.status, state.is_known, state.completed) == (BatchStatus.RUNNING, False, None)


def test_archived_results_are_gone():
    """After 29 days the object stays and the results are deleted."""
    api = claude().api
    reply = response(batch(archived_at="2023-12-14T00:00:00Z", results_url=None))
    state = api.read_status("msgbatch_1", reply)
    assert (state.status, api.results(KEY, state)) == (BatchStatus.GONE, ())
    assert kind_of(api.read_batch(reply)) == "results_gone"


def test_an_unknown_batch_is_gone():
    """A 404 of Anthropic's own says so; any other trouble does not."""
    api = claude().api
    missing = {"type": "error", "error": {"type": "not_found_error", "message": "no batch"}}
    assert api.read_status("b", response(missing, 404)).status is BatchStatus.GONE
    assert kind_of(api.read_status("b", response(b"<html>", 404))) == "invalid_response"
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert kind_of(api.read_status("b", response(busy, 529))) == "overloaded"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, None, id="may_be"),
        pytest.param({"created_at": "2023-11-14T22:04:00Z"}, None, id="within_slack"),
        pytest.param({"created_at": "2023-11-14T22:03:00Z"}, False, id="too_old"),
        pytest.param({"counts": {"processing": 4}}, False, id="other_size"),
        pytest.param({"counts": {"processing": 1, "succeeded": 1, "errored": 1}}, None, id="all_counters"),
    ],
)
def test_only_results_prove_whose_a_batch_is(changes, expected):
    """Time and size rule out; they never prove."""
    assert claude().api.is_ours(read(**changes), FACTS, SINCE_S) is expected


def test_listings_go_on_after_the_last_id():
    """The next page is asked for as the SDK does."""
    body = {"data": [batch()], "first_id": "msgbatch_1", "last_id": "msgbatch_1", "has_more": True}
    page = claude().api.read_page(KEY, response(body))
    theirs = sdk(lambda client: client.messages.batches.list(limit=100, after_id="msgbatch_1"))
    assert_same(page.next_request, theirs)
    assert [state.total for state in page.states] == [3]


def test_results_come_from_the_api_host_only():
    """The key goes to the configured host and nowhere else."""
    api = claude().api
    (part,) = api.results(KEY, read())
    assert (part.kind, part.request.url) == ("results", f"{API}/msgbatch_1/results")
    assert part.request.headers["authorization"] == f"Bearer {KEY}"
    assert api.results(KEY, read(results_url=None))[0].request.url == f"{API}/msgbatch_1/results"
    for url in ("https://evil.example/results", "http://api.anthropic.com/r", "https://api.anthropic.com:99/r", "x["):
        with pytest.raises(ConfigError, match=r"^model\.base_url: .*key is not sent"):
            api.results(KEY, read(results_url=url))
    assert api.results(KEY, read({"processing": 3}, processing_status="in_progress", results_url=None)) == ()


def test_a_succeeded_row_is_read_like_real_time():
    """The message is read by the provider."""
    reply = claude().outcome(result(type="succeeded", message=MESSAGE))
    assert isinstance(reply, Reply)
    assert (reply.text, reply.usage.output_tokens, reply.response_id) == ("hi", 7, "msg_1")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        pytest.param(result(type="expired"), Kind.EXPIRED),
        pytest.param(result(type="canceled"), Kind.CANCELLED),
        pytest.param(errored("invalid_request_error"), Kind.INVALID_REQUEST),
        pytest.param(
            errored("invalid_request_error", "Your credit balance is too low to access the API"), Kind.QUOTA_EXHAUSTED
        ),
        pytest.param(errored("invalid_request_error", "prompt is too long: 9 > 8"), Kind.CONTEXT_LENGTH_EXCEEDED),
        pytest.param(errored("api_error"), Kind.SERVER_ERROR),
        pytest.param(errored("overloaded_error"), Kind.OVERLOADED),
        pytest.param(errored("rate_limit_error"), Kind.RATE_LIMITED),
        pytest.param(
            errored("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), Kind.QUOTA_EXHAUSTED
        ),
        pytest.param(errored("brand_new_error"), Kind.SERVER_ERROR),
        pytest.param({"custom_id": CUSTOM_ID, "result": {"type": "errored", "error": None}}, Kind.SERVER_ERROR),
        pytest.param({"custom_id": CUSTOM_ID, "result": {"type": "succeeded"}}, Kind.INVALID_RESPONSE),
        pytest.param({"custom_id": CUSTOM_ID, "result": {"type": "dreamt"}}, Kind.INVALID_RESPONSE),
        pytest.param({"custom_id": CUSTOM_ID}, Kind.INVALID_RESPONSE),
    ],
)
def test_other_rows_say_what_became_of_them(line, kind):
    """Errored rows are classified as in real time: no credit stops the run, and is no fault of the row."""
    outcome = claude().outcome(line)
    assert isinstance(outcome, CallError)
    assert outcome.kind is kind


def test_errored_rows_keep_their_request_id():
    """The id of the exchange comes with the error."""
    assert claude().api.read_line(orjson.dumps(errored("api_error"))).provider_request_id == "req_1"


@pytest.mark.parametrize("line", [b"{", b"7", b'{"result": {"type": "expired"}}'])
def test_a_line_without_a_request_is_quoted(line):
    """What names no request is an error that shows its start."""
    found = claude().api.read_line(line)
    assert (found.custom_id, found.response, found.error.kind) == (None, None, Kind.INVALID_RESPONSE)
    assert line.decode() in found.error.message
