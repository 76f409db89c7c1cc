"""OpenRouter's batch API: the order of the create, results in the status reply, 402 and 410."""

import orjson
import pytest

from tests.unit.batch_api_builders import CUSTOM_ID, FACTS, KEY, SINCE_S, completion, kind_of, make, response, row
from transforms.records.batch import BatchLimits, BatchState, BatchStatus
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, Reply
from transforms.records.settings import ModelParams

API = "https://openrouter.ai/api/v1/batches"
MODEL = "openai/gpt-4o-mini"
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def router(schema=None, **changes):
    """Return the adapter for a job's model."""
    return make(schema, **({"provider": "openrouter", "name": MODEL} | changes))


def batch(**changes):
    """Return a batch as OpenRouter describes it."""
    return {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": MODEL,
        "provider": "OpenAI",
        "status": "completed",
        "completion_window": "24h",
        "created_at": 1_700_000_100,
        "expires_at": None,
        "finalized_at": 1_700_000_900,
        "request_counts": {"total": 3, "completed": 3, "failed": 0},
        "usage": None,
        "results": [row()],
        "error": None,
    } | changes


def read(**changes):
    """Return the state read from a batch."""
    state = router().api.read_status("batch_1", response(batch(**changes)))
    assert isinstance(state, BatchState)
    return state


def test_requests_stand_last_in_the_create():
    """OpenRouter's parser needs endpoint, model and provider before the requests."""
    made = router(routing={"only": ["openai"], "allow_fallbacks": False})
    create = made.api.create(KEY, FACTS, None)
    body = orjson.loads(create.head + orjson.dumps(made.line()) + b"," + orjson.dumps(made.line()) + create.tail)
    assert list(body) == ["endpoint", "model", "provider", "completion_window", "requests"]
    assert body["provider"] == {"only": ["openai"], "allow_fallbacks": False}
    assert (body["endpoint"], body["model"], body["completion_window"]) == ("/v1/chat/completions", MODEL, "24h")
    assert (create.url, create.headers["authorization"]) == (API, f"Bearer {KEY}")
    assert [list(request) for request in body["requests"]] == [["custom_id", "body"]] * 2


def test_routing_leaves_the_lines():
    """A schema's require_parameters is for real time; batches know two keys, once per batch."""
    made = router(SCHEMA)
    line = made.line()
    assert "provider" not in line["body"]
    assert (line["custom_id"], line["body"]["model"]) == (CUSTOM_ID, MODEL)
    assert line["body"]["response_format"]["type"] == "json_schema"
    assert b"provider" not in made.api.create(KEY, FACTS, None).head


@pytest.mark.parametrize("name", ["zdr", "data_collection", "order", "max_price"])
def test_routing_that_batches_ignore_is_refused(name):
    """A wish that would be lost without a word is an error before the start."""
    with pytest.raises(ConfigError, match=rf"^model\.routing\.{name}: .*per_request"):
        router(routing={name: "x"})


def test_one_model_per_batch():
    """A list of fall-back models is refused."""
    with pytest.raises(ConfigError, match=r"^model\.params\.extra\.models: "):
        router(params=ModelParams(extra={"models": ["a", "b"]}))


def test_limits_leave_five_percent_and_the_envelope():
    """95 % of 5,000 requests and of 200 MB, less what stands around the requests."""
    api = router().api
    create = api.create(KEY, FACTS, None)
    assert api.limits == BatchLimits(4_750, 190_000_000 - len(create.head) - len(create.tail))


def test_there_is_no_cancel():
    """Neither cancel, nor metadata, nor files."""
    api = router().api
    assert api.cancel(KEY, "batch_1") is None
    assert (api.can_cancel, api.has_metadata, api.uses_files, api.shows_progress) == (False, False, False, True)


def test_an_accepted_create_is_validating():
    """The 202 holds a batch; nothing is validated yet."""
    body = batch(status="validating", results=None, request_counts={"total": 0, "completed": 0, "failed": 0})
    state = router().api.read_batch(response(body, 202))
    assert (state.status, state.has_inline_results, state.is_terminal) == (BatchStatus.VALIDATING, False, False)


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
@pytest.mark.parametrize("results", [[row()], [], None], ids=["results", "empty", "null"])
def test_any_end_may_hold_results(status, results):
    """Results are fetched wherever the reply holds them, and nowhere else."""
    api = router().api
    state = read(status=status, results=results)
    parts = api.results(KEY, state)
    assert (state.is_terminal, state.has_inline_results) == (True, results is not None)
    assert [(part.kind, part.request.url) for part in parts] == [("results", f"{API}/batch_1")] * (results is not None)


def test_a_failed_batch_says_why():
    """The one reason is kept; the batch is rejected when nothing of it is counted."""
    state = read(status="failed", results=None, error={"message": "row 2: bad"}, request_counts=None)
    assert state.status is BatchStatus.REJECTED
    assert [problem.message for problem in state.problems] == ["row 2: bad"]
    assert read(status="failed", results=None, error={"message": "row 2: bad"}).status is BatchStatus.FAILED


def test_results_without_credit_are_withheld_not_lost():
    """A 402 with a batch waits; it is not an end."""
    body = batch(results=None, error={"code": 402, "message": "Add credits to get the results"})
    state = router().api.read_status("batch_1", response(body, 402))
    assert (state.status, state.withheld) == (BatchStatus.COMPLETED, "Add credits to get the results")
    assert (state.is_terminal, router().api.results(KEY, state)) == (False, ())


def test_a_create_without_credit_is_refused():
    """A 402 without a batch means that nothing was created."""
    refused = response({"error": {"code": 402, "message": "Insufficient credits"}}, 402)
    assert kind_of(router().api.read_batch(refused)) == "quota_exhausted"
    assert kind_of(router().api.read_status("batch_1", refused)) == "quota_exhausted"


@pytest.mark.parametrize("status", [404, 410])
def test_deleted_batches_are_gone(status):
    """A 410, or a 404 in OpenRouter's words."""
    state = router().api.read_status("batch_1", response({"error": {"code": status, "message": "deleted"}}, status))
    assert (state.status, state.provider_batch_id) == (BatchStatus.GONE, "batch_1")


def test_listings_are_filtered_by_time():
    """The first page begins ten minutes before; later pages follow the last id."""
    api = router().api
    assert api.listing(KEY, SINCE_S).url == f"{API}?limit=100&created_after=2023-11-14T22%3A03%3A20Z"
    page = api.read_page(KEY, response({"data": [batch()], "last_id": "batch_1", "has_more": True}))
    assert page.next_request.url == f"{API}?limit=100&after=batch_1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, None, id="may_be"),
        pytest.param({"model": f"{MODEL}-2024-07-18"}, None, id="snapshot"),
        pytest.param({"model": "anthropic/claude"}, False, id="other_model"),
        pytest.param({"request_counts": {"total": 4}}, False, id="other_size"),
        pytest.param({"request_counts": {"total": 0}, "status": "validating"}, None, id="not_counted_yet"),
        pytest.param({"request_counts": {"total": 0}}, False, id="counted_none"),
        pytest.param({"created_at": 1_699_999_399}, False, id="too_old"),
    ],
)
def test_only_results_prove_whose_a_batch_is(changes, expected):
    """Time, size and model rule out; they never prove."""
    assert router().api.is_ours(read(**changes), FACTS, SINCE_S) is expected


def test_a_good_row_has_its_price():
    """Rows are read like chat completions, with OpenRouter's own cost."""
    body = completion(usage={"prompt_tokens": 9, "completion_tokens": 2, "cost": 0.000123})
    reply = router().outcome(row(body=body))
    assert isinstance(reply, Reply)
    assert (reply.text, str(reply.provider_cost_usd)) == ("hi", "0.000123")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        pytest.param(row(400, {"error": {"code": 400, "message": "no"}}), Kind.INVALID_REQUEST),
        pytest.param(row(200, {"error": {"code": 502, "message": "bad"}}), Kind.SERVER_ERROR),
        pytest.param(
            row(response=None, error={"message": "no", "type": "x", "error_type": "content_policy_violation"}),
            Kind.CONTENT_FILTERED,
        ),
        pytest.param(row(response=None, error={"message": "late", "type": "batch_expired"}), Kind.EXPIRED),
        pytest.param(row(response=None, error={"message": "odd", "type": "odd"}), Kind.SERVER_ERROR),
        pytest.param(row(response=None), Kind.INVALID_RESPONSE),
    ],
)
def test_failed_rows_are_classified(line, kind):
    """OpenRouter's canonical error type decides where there is no status."""
    outcome = router().outcome(line)
    assert isinstance(outcome, CallError)
    assert outcome.kind is kind
