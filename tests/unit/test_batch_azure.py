"""Azure's batch API: both address styles, slow files, the batch deployment, and its own ways of saying things."""

import openai
import orjson
import pytest

from tests.unit.batch_api_builders import (
    FACTS,
    KEY,
    PROMPT,
    SINCE_S,
    assert_same,
    completion,
    kind_of,
    make,
    response,
    row,
    sdk_request,
)
from transforms.records.batch import BatchLimits, BatchStatus
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, Reply
from transforms.records.settings import ModelSettings

METADATA = {"rowbeam_batch": FACTS.batch_key, "rowbeam_attempt": "1", "rowbeam_run": FACTS.run_id}

#: A batch of the documentation's REST sample.
SAMPLE = {
    "cancelled_at": None,
    "completion_window": "24h",
    "created_at": "2024-07-19T17:13:57.2491382+00:00",
    "endpoint": None,
    "error_file_id": "",
    "errors": None,
    "expires_at": "2024-07-20T17:13:57.1918498+00:00",
    "id": "batch_fe3f",
    "input_file_id": "file-2100",
    "metadata": None,
    "object": "batch",
    "output_file_id": "",
    "request_counts": {"total": None, "completed": None, "failed": None},
    "status": "Validating",
}


def azure(**changes):
    """Return the adapter for a job's model."""
    settings = {
        "provider": "azure_openai",
        "name": "gpt-4o-mini",
        "base_url": "https://res.openai.azure.com",
        "deployment": "now",
        "batch_deployment": "later",
    }
    return make(**(settings | changes))


def v1_client(**more):
    """Return the plain client pointed at Azure's v1 URL, as the documentation shows it."""
    return openai.OpenAI(base_url="https://res.openai.azure.com/openai/v1/", api_key=KEY, **more)


def dated_client(**more):
    """Return the SDK's Azure client."""
    endpoint = "https://res.openai.azure.com"
    return openai.AzureOpenAI(azure_endpoint=endpoint, api_version="2024-10-21", api_key=KEY, **more)


@pytest.mark.parametrize(
    ("version", "client"),
    [pytest.param(None, v1_client, id="v1"), pytest.param("2024-10-21", dated_client, id="dated")],
)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(
            lambda api: api.create(KEY, FACTS, "file-in"),
            lambda client: client.batches.create(
                input_file_id="file-in", endpoint="/chat/completions", completion_window="24h", metadata=METADATA
            ),
            id="create",
        ),
        pytest.param(lambda a: a.status(KEY, "batch_1"), lambda c: c.batches.retrieve("batch_1"), id="status"),
        pytest.param(lambda a: a.cancel(KEY, "batch_1"), lambda c: c.batches.cancel("batch_1"), id="cancel"),
        pytest.param(lambda a: a.file_status(KEY, "file-in"), lambda c: c.files.retrieve("file-in"), id="file"),
    ],
)
def test_requests_are_the_sdks(version, client, ours, theirs):
    """Addresses, bodies and the api-version are those of the official clients; the key has its own header."""
    request = ours(azure(api_version=version).api)
    assert_same(request, sdk_request(client, theirs))
    assert (request.headers["api-key"], "authorization" in request.headers) == (KEY, False)


@pytest.mark.parametrize(
    ("version", "query"), [(None, "?limit=100"), ("2024-10-21", "?limit=100&api-version=2024-10-21")]
)
def test_listings_keep_the_version(version, query):
    """Every page of a listing names the api-version where addresses are dated."""
    api = azure(api_version=version).api
    assert api.listing(KEY, SINCE_S).url.endswith("/batches" + query)
    page = api.read_page(KEY, response({"data": [SAMPLE], "has_more": True}))
    assert page.next_request.url.endswith("/batches" + query.replace("100", "100&after=batch_fe3f", 1))


def test_uploads_ask_for_thirty_days():
    """The expiry goes as the SDK writes it, in brackets, and within 14 to 30 days."""
    upload = azure().api.upload(KEY, FACTS)
    fields = dict(upload.fields)
    assert list(fields) == ["purpose", "expires_after[anchor]", "expires_after[seconds]"]
    seconds = int(fields["expires_after[seconds]"])
    assert 1_209_600 <= seconds <= 2_592_000
    theirs = sdk_request(
        v1_client,
        lambda client: client.files.create(
            file=(upload.file_name, b"{}", upload.file_type),
            purpose="batch",
            expires_after={"anchor": "created_at", "seconds": seconds},
        ),
    )
    assert upload.url == str(theirs.url)
    for name, value in upload.fields:
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in theirs.content


@pytest.mark.parametrize(("api", "url"), [("chat_completions", "/chat/completions"), ("responses", "/v1/responses")])
def test_lines_name_the_batch_deployment(api, url):
    """The model of every line is the batch deployment; the body of real time is left as it was."""
    made = azure(api=api)
    body = made.provider.body(PROMPT)
    line = made.line()
    assert (line["url"], line["method"]) == (url, "POST")
    assert line["body"] == body | {"model": "later"}
    assert (made.api.request_model, body["model"]) == ("later", "now")
    assert orjson.loads(made.api.create(KEY, FACTS, "f").body)["endpoint"] == "/chat/completions"


def test_a_batch_deployment_is_needed():
    """Without one the job file's key is named."""
    with pytest.raises(ConfigError, match=r"^model\.batch_deployment: "):
        azure(batch_deployment=None)


def test_what_azure_does_otherwise():
    """Files are waited for, nothing expires, a minute lies between polls, and 50,000 is the cap."""
    api = azure().api
    assert (api.waits_for_file, api.expires, api.min_poll_s) == (True, False, 60.0)
    assert api.limits == BatchLimits(47_500, 189_990_000)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("uploaded", "pending"),
        ("pending", "pending"),
        ("Running", "pending"),
        ("Processed", "processed"),
        ("error", "error"),
        ("deleted", "error"),
        (None, "processed"),
    ],
)
def test_files_are_waited_for(status, expected):
    """Only a processed file may be used; a reply without a state is taken as one."""
    assert azure().api.read_file(response({"id": "file-1", "status": status})) == ("file-1", expected)


def test_the_documentations_sample_is_read():
    """Capitals, ISO times, null counters and empty file ids are read."""
    state = azure().api.read_batch(response(SAMPLE))
    assert (state.status, state.is_known, state.raw_status) == (BatchStatus.VALIDATING, True, "Validating")
    assert state.created_at_s == pytest.approx(1_721_409_237.249, abs=0.01)
    assert (state.total, state.output_file_id, state.error_file_id) == (None, None, None)


@pytest.mark.parametrize("created", [1_721_409_237, 1_721_409_237.0, "1721409237", "2024-07-19T17:13:57Z"])
def test_times_come_in_any_form(created):
    """Unix numbers, numbers as text and ISO times are one moment."""
    assert azure().api.read_batch(response(SAMPLE | {"created_at": created})).created_at_s == 1_721_409_237


@pytest.mark.parametrize("word", ["cancelled", "canceled", "Cancelled", "CANCELED"])
def test_both_spellings_of_cancelled(word):
    """One l or two, in any case."""
    state = azure().api.read_batch(response(SAMPLE | {"status": word}))
    assert (state.status, state.is_terminal) == (BatchStatus.CANCELLED, True)


def test_line_numbers_come_as_text():
    """A rejected batch names the line as a number, whatever Azure wrote."""
    errors = {"data": [{"code": "invalid_json_line", "message": "bad", "line": "12"}, {"code": "x", "line": "?"}]}
    state = azure().api.read_batch(response(SAMPLE | {"status": "failed", "errors": errors}))
    assert state.status is BatchStatus.REJECTED
    assert [(problem.code, problem.message, problem.line) for problem in state.problems] == [
        ("invalid_json_line", "bad", 12),
        ("x", "x", None),
    ]


def test_the_zero_byte_error_file_is_fetched_like_any():
    """A good batch has an error file too; it just holds nothing."""
    files = {"output_file_id": "file-o", "error_file_id": "file-e", "status": "completed"}
    api = azure(api_version="2024-10-21").api
    parts = api.results(KEY, api.read_batch(response(SAMPLE | files)))
    assert [part.kind for part in parts] == ["output", "error"]
    assert parts[1].request.url == "https://res.openai.azure.com/openai/files/file-e/content?api-version=2024-10-21"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param({"code": "token_limit_exceeded", "message": "full"}, id="code"),
        pytest.param({"code": "BadRequest", "message": "full: token_limit_exceeded"}, id="words"),
    ],
)
def test_a_full_queue_is_told_at_the_create(error):
    """In fail-fast regions the create's 400 means later, not never."""
    refused = azure().api.read_batch(response({"error": error}, 400))
    assert isinstance(refused, CallError)
    assert (refused.kind, refused.code, refused.message) == (
        Kind.ENQUEUED_LIMIT,
        "token_limit_exceeded",
        error["message"],
    )


def test_other_refusals_stay_what_they_are():
    """A 400 without those words is an invalid request."""
    error = {"code": "invalidPayload", "message": "no"}
    assert kind_of(azure().api.read_batch(response({"error": error}, 400))) == "invalid_request"


def test_rows_have_no_id_of_their_own():
    """Azure's lines lack the id; filtered prompts are told from other bad requests."""
    made = azure()
    good = row(body=completion(prompt_filter_results=[]))
    del good["id"]
    assert isinstance(made.outcome(good), Reply)
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
    blocked = row(400, {"error": {"code": "content_filter", "message": "no", "status": 400, "innererror": inner}})
    assert kind_of(made.outcome(blocked)) == "content_filtered"


def test_settings_know_the_batch_deployment():
    """The key of the message exists in the settings."""
    assert "batch_deployment" in ModelSettings.model_fields
