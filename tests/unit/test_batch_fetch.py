"""Fetching a batch's results over real sockets: whole files or none, whatever the network and the provider do."""

import gzip
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.unit.batch_desk import LINES, Desk, batch, done, open_desk
from tests.unit.batch_server import answer, pieces, reset
from transforms.providers.batch_client import Downloaded
from transforms.records.batch import BatchState, BatchStatus
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind

K = FailureKind
OUTPUT, ERRORS = LINES[0] + b"\n" + LINES[1] + b"\n", LINES[2] + b"\n"
OUT, ERR = "/v1/files/file-out/content", "/v1/files/file-err/content"
NO_FILE = {"error": {"message": "No such File object: file-out", "type": "invalid_request_error"}}
INLINE = done(output_file_id=None, error_file_id=None, has_inline_results=True)


@pytest.fixture
def openai(tmp_path: Path) -> Iterator[Desk]:
    """Give OpenAI's desk, where both files are."""
    with open_desk("openai", tmp_path) as desk:
        desk.server.on("GET", OUT, answer(200, OUTPUT))
        desk.server.on("GET", ERR, answer(200, ERRORS))
        yield desk


@pytest.fixture
def openrouter(tmp_path: Path) -> Iterator[Desk]:
    """Give OpenRouter's desk."""
    with open_desk("openrouter", tmp_path) as desk:
        yield desk


def test_both_files_are_written_as_they_are(openai):
    """Each in its own file, U+2028 inside a line and all; a second fetch replaces them."""
    for _ in range(2):
        files = openai.client.fetch(done(), str(openai.folder))
        assert files == [
            Downloaded("output", str(openai.folder / "output.jsonl"), "file-out", len(OUTPUT)),
            Downloaded("error", str(openai.folder / "error.jsonl"), "file-err", len(ERRORS)),
        ]
    assert (openai.folder / "output.jsonl").read_bytes() == OUTPUT
    assert openai.names() == ["error.jsonl", "output.jsonl"]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        pytest.param({"output_file_id": None}, ["error"], id="every-row-failed"),
        pytest.param({"error_file_id": None}, ["output"], id="every-row-succeeded"),
        pytest.param({"output_file_id": None, "error_file_id": None}, [], id="nothing"),
    ],
)
def test_only_files_that_there_are_are_asked_for(openai, changes, kinds):
    """A missing file id is no error."""
    assert [file.kind for file in openai.client.fetch(done(**changes), str(openai.folder))] == kinds


def test_an_empty_error_file_is_a_file(openai):
    """Azure has one for every batch without errors."""
    openai.server.on("GET", ERR, answer(200, b""))
    assert [file.byte_count for file in openai.client.fetch(done(), str(openai.folder))] == [len(OUTPUT), 0]


def test_a_cut_download_is_made_again_from_the_start(openai):
    """Cut by length, by chunks, by resets (one the library's own), then a 500 and a 429: the sixth try succeeds."""
    packed = gzip.compress(OUTPUT)
    openai.server.on(
        "GET",
        OUT,
        pieces(OUTPUT[:30], length=len(OUTPUT), is_cut=True),
        pieces(OUTPUT[:30], is_cut=True),
        reset,
        reset,
        answer(500, b""),
        answer(429, {"error": {"code": "rate_limit_exceeded"}}, Retry_After="20"),
        pieces(packed[:20], packed[20:], Content_Encoding="gzip"),
    )
    assert openai.client.fetch(done(error_file_id=None), str(openai.folder))[0].byte_count == len(OUTPUT)
    assert (openai.folder / "output.jsonl").read_bytes() == OUTPUT
    assert [record.error is not None for record in openai.records] == [True] * 5 + [False]
    assert openai.slept[4] >= 20
    assert openai.names() == ["output.jsonl"]


def test_a_download_that_never_succeeds_leaves_no_file(openai):
    """The error is the last one, after six tries; no part of a file has a name that a reader looks for."""
    openai.server.on("GET", OUT, pieces(OUTPUT[:30], is_cut=True))
    assert openai.client.fetch(done(), str(openai.folder)).kind is K.CONNECTION_ERROR
    assert openai.server.count("GET", OUT) == 6
    assert openai.names() == []


@pytest.mark.parametrize(
    ("step", "kind", "tries"),
    [
        pytest.param(answer(410, b""), K.RESULTS_GONE, 1, id="gone"),
        pytest.param(answer(410, NO_FILE), K.RESULTS_GONE, 1, id="gone-in-words"),
        pytest.param(answer(404, NO_FILE), K.INVALID_RESPONSE, 2, id="not-there-yet"),
        pytest.param(answer(404, {"detail": "Not Found"}), K.INVALID_RESPONSE, 2, id="a-gateways-json"),
        pytest.param(answer(404, b"<html>no route</html>"), K.INVALID_RESPONSE, 2, id="a-gateways-404"),
        pytest.param(answer(302, b"", Location="/elsewhere"), K.INVALID_RESPONSE, 2, id="redirect"),
        pytest.param(answer(401, {}), K.AUTH, 1, id="key"),
        pytest.param(answer(204, b""), K.INVALID_RESPONSE, 2, id="no-content"),
    ],
)
def test_results_that_can_not_be_had_are_an_error(openai, step, kind, tries):
    """Only a 410 makes them gone: a file may be listed before it can be had. A redirect is not followed."""
    openai.server.on("GET", OUT, step)
    assert openai.client.fetch(done(), str(openai.folder)).kind is kind
    assert len(openai.server.seen) == tries


def test_a_file_that_is_not_there_yet_is_fetched_on_the_second_try(openai):
    """A batch may be completed a moment before its files can be had."""
    openai.server.on("GET", OUT, answer(404, NO_FILE), answer(200, OUTPUT))
    assert [file.kind for file in openai.client.fetch(done(), str(openai.folder))] == ["output", "error"]


@pytest.mark.parametrize("said", [{"detail": "Not Found"}, {"message": "no route", "code": 404}, {"error": "none"}])
def test_an_error_file_that_a_gateway_does_not_find_is_not_left_out(openai, said):
    """Its rows have settled answers too; a page in between says nothing of them."""
    openai.server.on("GET", ERR, answer(404, said))
    assert openai.client.fetch(done(), str(openai.folder)).kind is K.INVALID_RESPONSE


def test_an_error_file_that_is_gone_does_not_cost_the_output(openai):
    """Its rows are unpaid and missed by their ids; what was paid is kept."""
    openai.server.on("GET", ERR, answer(404, NO_FILE))
    assert [file.kind for file in openai.client.fetch(done(), str(openai.folder))] == ["output"]


def test_the_key_does_not_go_to_a_foreign_host(tmp_path):
    """A results URL that points elsewhere is refused loudly."""
    with open_desk("anthropic", tmp_path) as desk:
        state = BatchState("msgbatch_1", BatchStatus.COMPLETED, "ended", results_url="https://evil.test/results")
        with pytest.raises(ConfigError, match=r"evil\.test"):
            desk.client.fetch(state, str(desk.folder))
        assert desk.records == []


def results(rows, **changes):
    """Return a status reply with results."""
    return batch(status="completed", results=[orjson.Fragment(row) for row in rows], **changes)


def test_inline_results_become_lines(openrouter):
    """Each element is a line, as the provider wrote it; the reply itself stays out of folder and record."""
    openrouter.server.on("GET", "/v1/batches/batch_1", answer(200, results(LINES, error=None)))
    (file,) = openrouter.client.fetch(INLINE, str(openrouter.folder))
    written = b"\n".join(LINES) + b"\n"
    assert file == Downloaded("results", str(openrouter.folder / "results.jsonl"), None, len(written))
    assert (openrouter.folder / "results.jsonl").read_bytes() == written
    assert openrouter.names() == ["results.jsonl"]
    assert b"r7-" not in openrouter.records[0].response_summary


def test_large_inline_results_are_split_in_flat_memory(openrouter):
    """Thirty megabytes in one JSON text never lie in memory."""
    row = orjson.dumps({"custom_id": "r7-a", "response": {"body": '[{"\\\n' * 2000}})
    rows = 30_000_000 // len(row)
    body = b'{"id":"batch_1","status":"completed","results":[' + b",".join([row] * rows) + b"]}"
    parts = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
    openrouter.server.on("GET", "/v1/batches/batch_1", pieces(*parts))
    tracemalloc.start()
    (file,) = openrouter.client.fetch(INLINE, str(openrouter.folder))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert file.byte_count == rows * (len(row) + 1)
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("step", "kind", "tries"),
    [
        pytest.param(answer(200, batch(status="completed", results=None)), K.INVALID_RESPONSE, 2, id="none-any-more"),
        pytest.param(answer(200, b'{"id":"batch_1","results":[{"a":'), K.INVALID_RESPONSE, 2, id="half-a-text"),
        pytest.param(answer(200, b""), K.INVALID_RESPONSE, 2, id="empty"),
        pytest.param(
            answer(402, batch(status="completed", results=None, error={"message": "add credits"})),
            K.RESULTS_WITHHELD,
            1,
            id="withheld",
        ),
        pytest.param(answer(410, {"error": {"code": 410, "message": "gone"}}), K.RESULTS_GONE, 1, id="gone"),
        pytest.param(answer(404, {"error": {"code": 404, "message": "?"}}), K.INVALID_RESPONSE, 2, id="not-found"),
        pytest.param(answer(202, batch()), K.INVALID_RESPONSE, 2, id="another-status"),
        pytest.param(answer(500, b""), K.SERVER_ERROR, 6, id="fails"),
    ],
)
def test_inline_results_that_can_not_be_had_are_an_error(openrouter, step, kind, tries):
    """No results is never taken for no rows: those would be paid for again."""
    openrouter.server.on("GET", "/v1/batches/batch_1", step)
    assert openrouter.client.fetch(INLINE, str(openrouter.folder)).kind is kind
    assert [record.error.kind for record in openrouter.records] == [kind] * tries
    assert openrouter.names() == []


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        pytest.param(answer(200, results(LINES)), "results", id="there"),
        pytest.param(answer(200, batch(status="failed", results=None)), None, id="none"),
        pytest.param(
            answer(402, batch(status="completed", results=None, error={"message": "add credits"})),
            K.RESULTS_WITHHELD,
            id="withheld",
        ),
        pytest.param(answer(410, {"error": {"code": 410, "message": "gone"}}), K.RESULTS_GONE, id="gone"),
        pytest.param(answer(200, batch()), K.INVALID_RESPONSE, id="running-again"),
    ],
)
def test_a_state_put_together_from_ids_is_asked_again(openrouter, step, outcome):
    """It can't say that results are inline; they are fetched all the same."""
    openrouter.server.on("GET", "/v1/batches/batch_1", step)
    fetched = openrouter.client.fetch(done(output_file_id=None, error_file_id=None), str(openrouter.folder))
    assert openrouter.records[0].what == "status"
    if isinstance(outcome, FailureKind):
        assert fetched.kind is outcome
    else:
        assert [file.kind for file in fetched] == ([outcome] if outcome else [])
