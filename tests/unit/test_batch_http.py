"""providers/batch_http.py against a real server: what arrives, what is written, and every way an exchange can break."""

import email
import gzip
import hashlib
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.batch_server import BatchServer, answer, pieces, reset, reset_early, serving
from transforms.providers import batch_http
from transforms.providers.batch_base import FileUpload, InlineCreate
from transforms.providers.batch_http import BatchHttp, LocalFileError
from transforms.providers.transport import BodyTooLargeError, transport_error
from transforms.records.errors import InternalError
from transforms.records.failure import FailureKind
from transforms.records.reply import HttpRequest

MB = 1024 * 1024
LINES = ['{"custom_id":"a","t":"one\u2028two\u2029\x85"}', '{"custom_id":"b","t":"x\\ny"}', '{"custom_id":"c"}']
RESULTS = "\n".join(LINES).encode() + b"\n"
AUTH = {"authorization": "Bearer s3cret"}


@pytest.fixture
def server() -> Iterator[BatchServer]:
    """Serve a script on loopback."""
    with serving() as server:
        yield server


@pytest.fixture
def http() -> Iterator[BatchHttp]:
    """Give connections that are closed afterwards."""
    http = BatchHttp()
    yield http
    http.close()


def get(server, path="/x", method="GET"):
    """Return a small request."""
    return HttpRequest(method, server.address + path, AUTH, b"{}" if method == "POST" else b"")


def send_upload(http, server, path):
    """Upload a file with the fields that Azure is sent."""
    fields = (("purpose", "batch"), ("expires_after[anchor]", "created_at"))
    upload = FileUpload(server.address + "/files", AUTH, fields, "k1.jsonl", "application/jsonl")
    return http.upload(upload, str(path), 30.0)


def send_lines(http, server, path):
    """Send an inline create."""
    create = InlineCreate(server.address + "/batches", AUTH, b'{"requests":[', b"]}")
    return http.send_inline(create, str(path), 30.0)


def fetch(http, server, tmp_path, timeout_s=10.0, max_bytes=None):
    """Download /x; return the result and what was written."""
    target = tmp_path / "down"
    with target.open("wb") as file:
        result = http.download(get(server), file, timeout_s, max_bytes)
    return result, target.read_bytes()


def error_of(call: Callable[[], object]) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_exchange_gives_any_status_with_lower_case_headers(http, server):
    """A refusal is a response like any other, and a redirect is not followed."""
    server.on("GET", "/x", answer(503, b"busy", Retry_After="7"), answer(302, b"", Location="/elsewhere"))
    busy = http.exchange(get(server), 5.0)
    assert (busy.status, busy.headers["retry-after"], busy.body) == (503, "7", b"busy")
    assert http.exchange(get(server), 5.0).status == 302
    assert server.count("GET", "/elsewhere") == 0


def test_reads_share_a_connection_and_every_post_has_its_own(http, server):
    """A kept connection that was closed meanwhile can't lose a create's reply."""
    server.on("GET", "/x", answer(200, b"1"))
    server.on("POST", "/x", answer(200, b"2"))
    for method in ("GET", "GET", "POST", "GET", "POST"):
        http.exchange(get(server, method=method), 5.0)
    assert [seen.connection for seen in server.seen] == [0, 0, 1, 0, 2]


def test_an_upload_is_the_file_as_it_is_in_a_form(http, server, tmp_path):
    """Field names keep their brackets, the file its bytes, and the length is exact."""
    (tmp_path / "r.jsonl").write_bytes(RESULTS)
    server.on("POST", "/files", answer(200, {"id": "file-1"}))
    assert send_upload(http, server, tmp_path / "r.jsonl").status == 200
    (seen,) = server.seen
    assert int(seen.headers["content-length"]) == seen.size
    assert "transfer-encoding" not in seen.headers
    head = f"Content-Type: {seen.headers['content-type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + seen.body).get_payload()
    named = {p.get_param("name", header="content-disposition"): p.get_payload(decode=True) for p in parts}
    assert named == {"purpose": b"batch", "expires_after[anchor]": b"created_at", "file": RESULTS}
    assert (parts[2].get_filename(), parts[2].get_content_type()) == ("k1.jsonl", "application/jsonl")


@pytest.mark.parametrize(
    ("text", "body"),
    [
        pytest.param(RESULTS, ",".join(LINES), id="newline-at-the-end"),
        pytest.param(RESULTS[:-1], ",".join(LINES), id="no-newline-at-the-end"),
        pytest.param(b"", "", id="empty"),
    ],
)
def test_an_inline_create_is_head_lines_and_tail(http, server, tmp_path, text, body):
    """Lines are joined by commas, characters inside them stay, and the length is exact."""
    (tmp_path / "r.jsonl").write_bytes(text)
    server.on("POST", "/batches", answer(202, {}))
    assert send_lines(http, server, tmp_path / "r.jsonl").status == 202
    (seen,) = server.seen
    assert seen.body.decode() == '{"requests":[' + body + "]}"
    assert int(seen.headers["content-length"]) == seen.size


@pytest.mark.parametrize("send", [pytest.param(send_upload, id="upload"), pytest.param(send_lines, id="inline")])
def test_fifty_megabytes_go_out_in_flat_memory(http, server, tmp_path, send):
    """The file is never in memory, here or on the way, and arrives whole."""
    path = tmp_path / "big.jsonl"
    line = b'{"t":"' + bytes(range(97, 123)) * 40 + b'"}\n'
    with path.open("wb") as file:
        for _ in range(50 * MB // len(line)):
            file.write(line)
    server.on("POST", "/files", answer(200, {}))
    server.on("POST", "/batches", answer(200, {}))
    tracemalloc.start()
    assert send(http, server, path).status == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (seen,) = server.seen
    assert seen.size == int(seen.headers["content-length"]) > 49 * MB
    if send is send_lines:
        body = b'{"requests":[' + path.read_bytes()[:-1].replace(b"\n", b",") + b"]}"
        assert seen.sha256 == hashlib.sha256(body).hexdigest()
    assert peak < 12 * MB


def test_a_reply_to_an_unfinished_upload_is_read(http, server, tmp_path):
    """A server that refuses a body after its first bytes is heard."""
    (tmp_path / "r.jsonl").write_bytes(b"x" * (20 * MB))
    early = answer(413, b"too large")
    early.is_early = True
    server.on("POST", "/files", early)
    assert send_upload(http, server, tmp_path / "r.jsonl").status == 413


@pytest.mark.parametrize("step", [pytest.param(reset_early, id="before-body"), pytest.param(reset, id="after-body")])
@pytest.mark.parametrize("send", [pytest.param(send_upload, id="upload"), pytest.param(send_lines, id="inline")])
def test_a_post_whose_reply_is_lost_is_not_repeated(http, server, tmp_path, send, step):
    """The exception means a lost connection, and the server has seen one request."""
    (tmp_path / "r.jsonl").write_bytes(RESULTS)
    server.on("POST", "/files", step)
    server.on("POST", "/batches", step)
    error = transport_error(error_of(lambda: send(http, server, tmp_path / "r.jsonl")))
    assert (error.kind, error.may_be_billed) == (FailureKind.CONNECTION_ERROR, True)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(answer(200, RESULTS), id="content-length"),
        pytest.param(pieces(RESULTS[:20], RESULTS[20:23], RESULTS[23:]), id="chunked"),
        pytest.param(answer(200, gzip.compress(RESULTS), Content_Encoding="gzip"), id="gzip"),
        pytest.param(answer(200, zlib.compress(RESULTS), Content_Encoding="deflate"), id="deflate"),
        pytest.param(
            pieces(gzip.compress(RESULTS)[:30], gzip.compress(RESULTS)[30:], Content_Encoding="gzip"), id="gzip-chunked"
        ),
    ],
)
def test_a_download_is_the_body_as_it_was_before_transport(http, server, tmp_path, step):
    """However it is framed and packed, the bytes are the same; U+2028 and its like stay."""
    server.on("GET", "/x", step)
    result, written = fetch(http, server, tmp_path)
    assert (result.status, result.byte_count, result.error_body, written) == (200, len(RESULTS), b"", RESULTS)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(pieces(RESULTS[:40], length=len(RESULTS), is_cut=True), id="content-length"),
        pytest.param(pieces(RESULTS[:40], is_cut=True), id="chunked"),
        pytest.param(
            pieces(
                gzip.compress(RESULTS)[:60], length=len(gzip.compress(RESULTS)), is_cut=True, Content_Encoding="gzip"
            ),
            id="gzip",
        ),
        pytest.param(reset, id="no-reply"),
    ],
)
def test_a_download_cut_short_raises(http, server, tmp_path, step):
    """A part is never taken for the whole."""
    server.on("GET", "/x", step)
    error = transport_error(error_of(lambda: fetch(http, server, tmp_path)))
    assert error.kind is FailureKind.CONNECTION_ERROR


def test_fifty_megabytes_come_in_flat_memory_even_when_packed_a_thousandfold(http, server, tmp_path):
    """A small body that unpacks to a large one is written piece by piece."""
    packed = gzip.compress(b'{"custom_id":"a"}\n' * (50 * MB // 18), 6)
    server.on("GET", "/x", answer(200, packed, Content_Encoding="gzip"))
    with (tmp_path / "down").open("wb") as file:
        tracemalloc.start()
        result = http.download(get(server), file, 60.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert result.byte_count == (tmp_path / "down").stat().st_size == 50 * MB // 18 * 18
    assert peak < 12 * MB


@pytest.mark.parametrize("limit", [pytest.param("total", id="total"), pytest.param("idle", id="idle")])
def test_a_download_that_stalls_ends_in_time(http, server, tmp_path, monkeypatch, limit):
    """Both the whole exchange and the wait for the next byte are bounded."""
    server.on("GET", "/x", pieces(b"a", b"b", pause_s=5.0))
    if limit == "idle":
        monkeypatch.setattr(batch_http, "_IDLE_TIMEOUT_S", 0.2)
    error = transport_error(error_of(lambda: fetch(http, server, tmp_path, timeout_s=0.3 if limit == "total" else 4.0)))
    assert error.kind is FailureKind.TIMEOUT


def test_a_slow_download_that_keeps_coming_is_waited_for(http, server, tmp_path, monkeypatch):
    """Only silence is idle."""
    monkeypatch.setattr(batch_http, "_IDLE_TIMEOUT_S", 0.4)
    server.on("GET", "/x", pieces(*[b"ab"] * 8, pause_s=0.1))
    assert fetch(http, server, tmp_path)[1] == b"ab" * 8


@pytest.mark.parametrize(
    ("step", "status"),
    [
        pytest.param(answer(404, b"n" * 100_000), 404, id="not-found"),
        pytest.param(answer(302, b"n" * 100_000, Location="/elsewhere"), 302, id="redirect"),
    ],
)
def test_another_status_keeps_the_beginning_of_its_body(http, server, tmp_path, step, status):
    """Nothing is written, nothing followed, and 64 KB are enough to say why."""
    server.on("GET", "/x", step)
    result, written = fetch(http, server, tmp_path)
    assert (result.status, result.byte_count, len(result.error_body), written) == (status, 0, 65_536, b"")
    assert server.count("GET", "/elsewhere") == 0


def test_a_body_above_the_limit_is_refused(http, server, tmp_path):
    """A body that never ends does not fill the disk."""
    server.on("GET", "/x", answer(200, b"x" * 1000))
    assert isinstance(error_of(lambda: fetch(http, server, tmp_path, max_bytes=999)), BodyTooLargeError)
    assert fetch(http, server, tmp_path, max_bytes=1000)[0].byte_count == 1000


def test_troubles_of_this_machine_are_not_the_networks(http, server, tmp_path):
    """A missing request file and a full disk are LocalFileErrors, which no table takes for a lost connection."""
    assert isinstance(error_of(lambda: send_upload(http, server, tmp_path / "none")), LocalFileError)
    server.on("GET", "/x", answer(200, b"x"))
    with Path("/dev/full").open("wb", buffering=0) as full:
        error = error_of(lambda: http.download(get(server), full, 5.0))
    assert isinstance(error, LocalFileError)
    assert isinstance(error_of(lambda: transport_error(error)), LocalFileError)


def test_exchanges_of_many_threads_overlap(http, server):
    """Eight slow replies take the time of one."""
    server.on("GET", "/x", pieces(b"a", pause_s=0.5))
    threads = [threading.Thread(target=http.exchange, args=(get(server), 5.0)) for _ in range(8)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 8
    assert time.monotonic() - begun < 3.5


def test_close_cuts_off_what_is_under_way(server):
    """The waiting thread is told, and so is who comes later; closing again does nothing."""
    http = BatchHttp()
    server.on("GET", "/x", pieces(b"a", pause_s=20.0))
    errors = []
    thread = threading.Thread(target=lambda: errors.append(error_of(lambda: http.exchange(get(server), 30.0))))
    thread.start()
    while not server.seen:
        time.sleep(0.01)
    http.close()
    thread.join(timeout=5)
    errors.append(error_of(lambda: http.exchange(get(server), 5.0)))
    http.close()
    assert [type(error) for error in errors] == [InternalError, InternalError]
