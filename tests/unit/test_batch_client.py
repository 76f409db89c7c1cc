"""The steps of a provider's batch over real sockets: what is sent how often, what comes back, and what is on record."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.unit.batch_desk import FACTS, KEY, MINE, Desk, batch, open_desk
from tests.unit.batch_server import BatchServer, answer, reset, reset_early
from transforms.providers.batch_client import Downloaded, LostReply
from transforms.providers.batch_exchange import shown_url
from transforms.records.batch import BatchState, BatchStatus
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError

K = FailureKind
FILE = {"id": "file-1", "status": "processed"}


@pytest.fixture
def openai(tmp_path: Path) -> Iterator[Desk]:
    """Give OpenAI's desk."""
    with open_desk("openai", tmp_path) as desk:
        yield desk


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[Desk]:
    """Give Azure's desk."""
    with open_desk("azure_openai", tmp_path) as desk:
        yield desk


@pytest.fixture
def openrouter(tmp_path: Path) -> Iterator[Desk]:
    """Give OpenRouter's desk."""
    with open_desk("openrouter", tmp_path) as desk:
        yield desk


def test_a_whole_life_is_record_without_a_header_or_key(openai):
    """Upload, create, status, cancel and fetch: one record each, in order, none of which holds a secret."""
    openai.server.on("POST", "/v1/files", answer(200, FILE, x_request_id="req_7"))
    openai.server.on("POST", "/v1/batches", answer(200, batch()))
    openai.server.on("GET", "/v1/batches/batch_1", answer(200, batch(status="completed", output_file_id="file-out")))
    openai.server.on("POST", "/v1/batches/batch_1/cancel", answer(200, batch(status="cancelling")))
    openai.server.on("GET", "/v1/files/file-out/content", answer(200, b"{}\n"))
    client = openai.client
    assert client.upload(FACTS, openai.path) == "file-1"
    created = client.create(FACTS, "file-1", openai.path)
    assert isinstance(created, BatchState)
    state = client.status(created.provider_batch_id)
    assert client.cancel("batch_1").status is BatchStatus.CANCELLING
    output = Downloaded("output", str(openai.folder / "output.jsonl"), "file-out", 3)
    assert client.fetch(state, str(openai.folder)) == [output]
    assert openai.whats() == ["upload", "create", "status", "cancel", "download"]
    upload, create, *_, download = openai.records
    assert (upload.status, upload.error, upload.provider_request_id) == (200, None, "req_7")
    assert upload.request_summary["byte_count"] == Path(openai.path).stat().st_size
    assert orjson.loads(create.request_summary["body"])["metadata"] == MINE
    assert orjson.loads(create.response_summary) == batch()
    assert orjson.loads(download.response_summary) == {"byte_count": 3}
    shown = repr(openai.records)
    assert KEY not in shown
    assert "authorization" not in shown.lower()


def test_a_record_comes_before_the_step_returns_even_with_an_exception(openai, tmp_path):
    """What can't be written down stops the step; what can't be explained is written down, then raised."""

    def refuse(record):
        raise OSError("the ledger's disk is full")

    openai.server.on("GET", "/v1/batches/batch_1", answer(200, batch()))
    openai.record = refuse
    with pytest.raises(OSError, match="the ledger's disk"):
        openai.client.status("batch_1")
    openai.record = openai.records.append
    openai.http.close()
    with pytest.raises(Exception, match="were closed"):
        openai.client.create(FACTS, "file-1", openai.path)
    assert [(r.what, r.status, r.error.may_be_billed) for r in openai.records] == [("create", None, True)]


def test_an_upload_is_repeated_while_that_may_help(openai):
    """A lost reply, a 500 and a 429 are tried again, the server's wish kept; every try is on record."""
    busy = answer(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, Retry_After="30")
    openai.server.on("POST", "/v1/files", reset, answer(500, b"<html>"), busy, answer(200, FILE))
    assert openai.client.upload(FACTS, openai.path) == "file-1"
    assert [record.status for record in openai.records] == [None, 500, 429, 200]
    assert 0 <= openai.slept[0] <= 2
    assert 0 <= openai.slept[1] <= 4
    assert 30 <= openai.slept[2] <= 33.1


@pytest.mark.parametrize(
    ("status", "kind", "tries"),
    [
        pytest.param(500, K.SERVER_ERROR, 5, id="bounded"),
        pytest.param(400, K.INVALID_REQUEST, 1, id="refused"),
        pytest.param(401, K.AUTH, 1, id="key"),
        pytest.param(302, K.INVALID_RESPONSE, 2, id="redirect"),
    ],
)
def test_an_upload_ends_with_the_last_error(openai, status, kind, tries):
    """What no try cures is not repeated, and the rest not for ever."""
    openai.server.on("POST", "/v1/files", answer(status, {"error": {"message": "no"}}, Location="/elsewhere"))
    error = openai.client.upload(FACTS, openai.path)
    assert error.kind is kind
    assert openai.server.count("POST", "/v1/files") == len(openai.server.seen) == tries


def test_a_file_is_waited_for_where_the_provider_must_process_it(azure):
    """Azure's create would fail before; a poll that fails is as good as one that says pending."""
    root = azure.root
    azure.server.on("POST", f"{root}/files", answer(201, {"id": "file-1", "status": "pending"}))
    pending = answer(200, {"id": "file-1", "status": "running"})
    azure.server.on("GET", f"{root}/files/file-1", pending, answer(503, b""), answer(200, FILE))
    assert azure.client.upload(FACTS, azure.path) == "file-1"
    assert azure.whats() == ["upload", "file_status", "file_status", "file_status"]
    assert azure.slept == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        pytest.param(answer(200, {"id": "file-1", "status": "error"}), K.BATCH_REJECTED, id="error"),
        pytest.param(answer(200, {"id": "file-1", "status": "pending"}), K.TIMEOUT, id="for-ever"),
        pytest.param(answer(401, {}), K.AUTH, id="refused"),
    ],
)
def test_a_file_that_never_gets_ready_is_an_error(azure, step, kind):
    """The wait is bounded, and a file that can't be processed is told."""
    azure.server.on("POST", f"{azure.root}/files", answer(201, {"id": "file-1", "status": "pending"}))
    azure.server.on("GET", f"{azure.root}/files/file-1", step)
    assert azure.client.upload(FACTS, azure.path, file_timeout_s=60.0).kind is kind
    assert sum(azure.slept) < 90


REFUSED = [301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 413, 422, 429]
OPEN = [202, 204, 303, 304, 408, 409, 418, 425, 499, 500, 502, 503, 504, 524, 529]


@pytest.mark.parametrize(
    ("status", "is_open"), [*((status, False) for status in REFUSED), *((status, True) for status in OPEN)]
)
@pytest.mark.parametrize("provider", ["openai", "openrouter"])
def test_a_create_is_sent_once_and_its_status_decides_whether_it_is_in_doubt(tmp_path, provider, status, is_open):
    """Only an answer that rules a batch out is a refusal; everything else must be looked into."""
    with open_desk(provider, tmp_path) as desk:
        body = {"error": {"message": "no"}} if status not in {204, 304} else b""
        desk.server.on("POST", "/v1/batches", answer(status, body, Location="/elsewhere", x_should_retry="true"))
        outcome = desk.client.create(FACTS, "file-1", desk.path)
        assert type(outcome) is (LostReply if is_open else CallError)
        assert [seen.path for seen in desk.server.seen] == ["/v1/batches"]
        assert [(record.status, record.error is not None) for record in desk.records] == [(status, True)]
        assert desk.slept == []


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(reset_early, id="before-body"),
        pytest.param(reset, id="after-body"),
        pytest.param(answer(200, b"<html>hello</html>"), id="unreadable"),
    ],
)
@pytest.mark.parametrize("provider", ["openai", "openrouter"])
def test_a_create_without_a_readable_reply_is_in_doubt(tmp_path, provider, step):
    """The provider may have accepted it: it is not sent again."""
    with open_desk(provider, tmp_path) as desk:
        desk.server.on("POST", "/v1/batches", step)
        assert isinstance(desk.client.create(FACTS, "file-1", desk.path), LostReply)
        assert desk.server.count("POST", "/v1/batches") == len(desk.records) == 1


def test_a_create_that_reached_nobody_is_no_doubt(tmp_path):
    """Without a connection nothing was sent."""
    nobody = BatchServer()
    nobody.address = "http://127.0.0.1:1"
    desk = Desk(nobody, "openai", tmp_path)
    error = desk.client.create(FACTS, "file-1", desk.path)
    desk.http.close()
    assert (error.kind, error.may_be_billed) == (K.CONNECTION_ERROR, False)


def test_azures_full_queue_refuses_the_create(azure):
    """The one 400 that later succeeds with the same file is no doubt, and says what it is."""
    azure.server.on("POST", f"{azure.root}/batches", answer(400, {"error": {"code": "token_limit_exceeded"}}))
    assert azure.client.create(FACTS, "file-1", azure.path).kind is K.ENQUEUED_LIMIT


def test_status_and_cancel_are_asked_once(openai, openrouter):
    """The caller paces them; a vanished batch is a state; OpenRouter has no cancel."""
    openai.server.on("GET", "/v1/batches/batch_1", answer(500, b""))
    openai.server.on("POST", "/v1/batches/batch_1/cancel", answer(500, b""))
    openai.server.on("GET", "/v1/batches/batch_2", answer(404, {"error": {"message": "No such batch"}}))
    assert openai.client.status("batch_1").kind is K.SERVER_ERROR
    assert openai.client.cancel("batch_1").kind is K.SERVER_ERROR
    assert openai.client.status("batch_2").status is BatchStatus.GONE
    assert (len(openai.server.seen), openai.slept) == (3, [])
    assert openrouter.client.cancel("batch_1") is None
    assert openrouter.records == []


def test_a_status_reply_with_results_is_shortened_and_not_recorded(openrouter):
    """However long the results are, the state is read from a small reply, and the record holds no row."""
    rows = [{"custom_id": f"r7-{n}", "response": {"status_code": 200, "body": {"t": "]}" * 600}}} for n in range(2000)]
    for results in (rows, rows[:2]):
        openrouter.server.on("GET", "/v1/batches/batch_1", answer(200, batch(status="completed", results=results)))
        state = openrouter.client.status("batch_1")
        assert (state.status, state.has_inline_results, state.total) == (BatchStatus.COMPLETED, True, 3)
    for record in openrouter.records:
        assert orjson.loads(record.response_summary) == batch(status="completed", results=[])


def test_a_url_record_shows_no_secret():
    """User, fragment and unknown values of the query are left out."""
    url = "https://me:pw@api.test/v1/batches?api-version=2024-10-21&sig=s3cret&after=batch_9&flag#s3cret"
    assert (
        shown_url(url) == "https://api.test/v1/batches?api-version=2024-10-21&sig=[hidden]&after=batch_9&flag=[hidden]"
    )
