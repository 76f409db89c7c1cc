"""OpenAI's batch API: requests judged by the official SDK, batches read as they really look."""

import openai
import orjson
import pytest
from openai.types import Batch, FileObject

from tests.unit.batch_api_builders import (
    CUSTOM_ID,
    FACTS,
    KEY,
    PROMPT,
    SINCE_S,
    assert_same,
    completion,
    kind_of,
    make,
    response,
    sdk_request,
)
from transforms.providers import make_batch_api, make_provider
from transforms.records.batch import BatchLimits, BatchState, BatchStatus
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError
from transforms.records.settings import ModelSettings

METADATA = {"rowbeam_batch": FACTS.batch_key, "rowbeam_attempt": "1", "rowbeam_run": FACTS.run_id}


def openai_batch(**changes):
    """Return the adapter for a job's model."""
    return make(**({"provider": "openai", "name": "gpt-4o-mini"} | changes))


def sdk(call):
    """Return the SDK's request."""
    return sdk_request(lambda **more: openai.OpenAI(api_key=KEY, **more), call)


def batch(**changes):
    """Return a batch as OpenAI describes it, and as its SDK takes it."""
    body = {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": "gpt-4o-mini-2024-07-18",
        "errors": None,
        "input_file_id": "file-in",
        "completion_window": "24h",
        "status": "completed",
        "output_file_id": "file-out",
        "error_file_id": "",
        "created_at": 1_700_000_100,
        "expires_at": 1_700_086_500,
        "request_counts": {"total": 3, "completed": 3, "failed": 0},
        "metadata": METADATA,
    } | changes
    Batch.model_validate(body)
    return body


def read(**changes):
    """Return the state read from a batch."""
    state = openai_batch().api.read_batch(response(batch(**changes)))
    assert isinstance(state, BatchState)
    return state


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(
            lambda api: api.create(KEY, FACTS, "file-in"),
            lambda client: client.batches.create(
                input_file_id="file-in", endpoint="/v1/chat/completions", completion_window="24h", metadata=METADATA
            ),
            id="create",
        ),
        pytest.param(lambda a: a.status(KEY, "batch_1"), lambda c: c.batches.retrieve("batch_1"), id="status"),
        pytest.param(lambda a: a.cancel(KEY, "batch_1"), lambda c: c.batches.cancel("batch_1"), id="cancel"),
        pytest.param(lambda a: a.listing(KEY, SINCE_S), lambda c: c.batches.list(limit=100), id="listing"),
        pytest.param(lambda a: a.file_status(KEY, "file-in"), lambda c: c.files.retrieve("file-in"), id="file"),
    ],
)
def test_requests_are_the_sdks(ours, theirs):
    """Method, address, key and body are those of the official client."""
    assert_same(ours(openai_batch().api), sdk(theirs), "authorization", "accept")


def test_the_upload_is_the_sdks():
    """The form has the SDK's purpose and file; the boundary is left to the client."""
    upload = openai_batch().api.upload(KEY, FACTS)
    theirs = sdk(lambda client: client.files.create(file=(upload.file_name, b"{}", upload.file_type), purpose="batch"))
    assert upload.url == str(theirs.url)
    assert upload.fields == (("purpose", "batch"),)
    assert b'name="purpose"\r\n\r\nbatch\r\n' in theirs.content
    assert f'name="file"; filename="{upload.file_name}"\r\nContent-Type: {upload.file_type}'.encode() in theirs.content
    assert upload.headers["authorization"] == theirs.headers["authorization"]
    assert "content-type" not in upload.headers


@pytest.mark.parametrize("api", ["chat_completions", "responses"])
def test_lines_name_the_endpoint_of_the_batch(api):
    """Every line has the url that the create names, and the body of real time."""
    made = openai_batch(api=api)
    created = orjson.loads(made.api.create(KEY, FACTS, "file-in").body)
    assert made.line() == {
        "custom_id": CUSTOM_ID,
        "method": "POST",
        "url": created["endpoint"],
        "body": made.provider.body(PROMPT),
    }
    assert created["endpoint"] == {"chat_completions": "/v1/chat/completions", "responses": "/v1/responses"}[api]


def test_limits_leave_five_percent():
    """Fewer than 95 % of 50,000 requests and of 200 MB; the envelope is outside."""
    assert openai_batch().api.limits == BatchLimits(47_500, 189_990_000)


def test_a_create_without_a_file_is_a_mistake_of_ours():
    """A create can't be built before the upload."""
    with pytest.raises(InternalError):
        openai_batch().api.create(KEY, FACTS, None)


@pytest.mark.parametrize("name", ["openai_compatible", "llama_cpp"])
def test_other_providers_have_no_batch_api(name):
    """There is no adapter for servers without a batch API."""
    base_url = "http://127.0.0.1:1/v1" if name == "openai_compatible" else None
    model = ModelSettings(provider=name, name="m", base_url=base_url)
    assert make_batch_api(model, None, make_provider(model, None) if base_url else None) is None


@pytest.mark.parametrize("status", ["uploaded", "processed", "error", None])
def test_uploaded_files_can_be_used_at_once(status):
    """OpenAI's file status is deprecated: only an error counts."""
    body = {"id": "file-1", "bytes": 1, "created_at": 1, "filename": "f", "object": "file", "purpose": "batch"}
    if status:
        FileObject.model_validate(body | {"status": status})
    found = openai_batch().api.read_file(response(body | {"status": status}))
    assert found == ("file-1", "error" if status == "error" else "processed")


def test_a_refused_upload_is_classified():
    """Too large a file is an invalid request in OpenAI's words."""
    error = {"message": "File is too large.", "type": "invalid_request_error", "param": None, "code": None}
    refused = openai_batch().api.read_file(response({"error": error}, 400))
    assert isinstance(refused, CallError)
    assert (refused.kind, refused.message) == (Kind.INVALID_REQUEST, "File is too large.")


def test_a_batch_is_read_whole():
    """Every field arrives; an empty file id is none."""
    assert read() == BatchState(
        provider_batch_id="batch_1",
        status=BatchStatus.COMPLETED,
        raw_status="completed",
        total=3,
        completed=3,
        failed=0,
        created_at_s=1_700_000_100.0,
        expires_at_s=1_700_086_500.0,
        input_file_id="file-in",
        output_file_id="file-out",
        metadata=METADATA,
        model="gpt-4o-mini-2024-07-18",
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("validating", BatchStatus.VALIDATING),
        ("in_progress", BatchStatus.RUNNING),
        ("finalizing", BatchStatus.FINALIZING),
        ("cancelling", BatchStatus.CANCELLING),
        ("completed", BatchStatus.COMPLETED),
        ("failed", BatchStatus.FAILED),
        ("expired", BatchStatus.EXPIRED),
        ("cancelled", BatchStatus.CANCELLED),
    ],
)
def test_every_status_has_our_word(word, status):
    """The eight words of the SDK's enumeration are known."""
    assert (read(status=word).status, read(status=word).is_known) == (status, True)


@pytest.mark.parametrize("word", ["dreaming", None, 7])
def test_an_unknown_status_counts_as_running(word):
    """A new word is no end, and is told."""
    state = openai_batch().api.read_batch(response({"id": "batch_1", "status": word}))
    assert (state.status, state.is_known, state.is_terminal) == (BatchStatus.RUNNING, False, False)


def test_a_rejected_batch_names_its_reasons():
    """Failed, nothing counted, reasons: rejected; the code of the enqueued limit stays visible."""
    reasons = {"object": "list", "data": [{"code": "token_limit_exceeded", "message": "Limit: 2", "line": None}]}
    counts = {"total": 0, "completed": 0, "failed": 0}
    state = read(status="failed", errors=reasons, request_counts=counts, output_file_id=None)
    assert state.status is BatchStatus.REJECTED
    assert [(problem.code, problem.message, problem.line) for problem in state.problems] == [
        ("token_limit_exceeded", "Limit: 2", None)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"errors": None, "request_counts": None}, id="no_reason"),
        pytest.param({"errors": {"data": [{"code": "x", "message": "y"}]}}, id="some_counted"),
    ],
)
def test_a_batch_that_may_have_run_is_failed_not_rejected(changes):
    """Without a reason, or with counted requests, results are to be looked for."""
    assert read(status="failed", **changes).status is BatchStatus.FAILED


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(404, {"error": {"message": "No batch found", "type": "invalid_request_error"}}, "gone", id="404"),
        pytest.param(410, b"", "gone", id="410"),
        pytest.param(200, {"error": {"message": "No batch found", "type": "invalid_request_error"}}, "gone", id="200"),
        pytest.param(200, {"error": {"message": "oops", "type": "server_error"}}, "server_error", id="200_server"),
        pytest.param(404, b"<html>gateway</html>", "invalid_response", id="page"),
        pytest.param(502, b"<html>bad gateway</html>", "server_error", id="502"),
        pytest.param(401, {"error": {"message": "no", "code": "invalid_api_key"}}, "auth", id="401"),
        pytest.param(200, b"not json", "invalid_response", id="not_json"),
        pytest.param(200, completion(id=None), "invalid_response", id="no_batch"),
    ],
)
def test_status_checks_tell_gone_from_trouble(status, body, expected):
    """Only the provider's own word makes a batch gone; a gateway's page is worth another look."""
    state = openai_batch().api.read_status("batch_1", response(body, status))
    if expected == "gone":
        assert (state.provider_batch_id, state.status) == ("batch_1", BatchStatus.GONE)
    else:
        assert kind_of(state) == expected


def test_a_batch_is_ours_by_its_metadata():
    """Batch, attempt and run must agree; another run's batch of the same requests is another's."""
    api = openai_batch().api
    assert api.is_ours(read(), FACTS, SINCE_S) is True
    for name in METADATA:
        assert api.is_ours(read(metadata=METADATA | {name: "x"}), FACTS, SINCE_S) is False
    assert api.is_ours(read(metadata=None), FACTS, SINCE_S) is False


def test_listings_go_on_until_the_end():
    """The next page is asked for after the last id, as the SDK does."""
    api = openai_batch().api
    page = api.read_page(KEY, response({"object": "list", "data": [batch()], "last_id": "batch_1", "has_more": True}))
    assert [state.provider_batch_id for state in page.states] == ["batch_1"]
    assert_same(page.next_request, sdk(lambda client: client.batches.list(limit=100, after="batch_1")))
    assert api.read_page(KEY, response({"data": [], "has_more": False})).next_request is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"data": [{"object": "batch"}], "has_more": False}, id="no_id"),
        pytest.param({"data": [], "has_more": True}, id="goes_on_after_nothing"),
        pytest.param({"has_more": False}, id="no_data"),
        pytest.param({"error": {"message": "oops", "type": "server_error"}}, id="error"),
    ],
)
def test_a_listing_not_understood_proves_nothing(body):
    """What can't be read might be ours, so the page is an error."""
    assert isinstance(openai_batch().api.read_page(KEY, response(body)), CallError)


def test_both_files_are_downloaded():
    """Output first, then errors; what is not there is not asked for."""
    api = openai_batch().api
    output, error = api.results(KEY, read(error_file_id="file-err"))
    assert [(part.kind, part.file_id) for part in (output, error)] == [("output", "file-out"), ("error", "file-err")]
    assert_same(output.request, sdk(lambda client: client.files.content("file-out")), "authorization", "accept")
    assert api.results(KEY, read(output_file_id=None)) == ()
