"""Files and batches of OpenAI and Azure over real HTTP: what goes wrong on the way, and what the bill says of it."""

import http.client
import threading
import time
from collections.abc import Iterator

import orjson
import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.faults import load_plan
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_batches import CHAT, BatchUser, body_for, lines_for

DATED = "?api-version=2024-10-21"
QUICK = BatchTiming(validating_s=0.01, queue_s=0.01, duration_s=0.1)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSandbox]:
    """One sandbox for the whole file."""
    with RunningSandbox(seed=5, batch=QUICK) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: RunningSandbox) -> Iterator[RunningSandbox]:
    """The sandbox as it was at its start."""
    running.set_faults()
    running.reset()
    yield running
    running.release()


@pytest.fixture
def user(sandbox: RunningSandbox) -> BatchUser:
    """A client of its OpenAI."""
    return BatchUser(sandbox)


@pytest.fixture(params=["/v1", "/openai/v1", "/openai"])
def any_user(request: pytest.FixtureRequest, sandbox: RunningSandbox) -> BatchUser:
    """A client of OpenAI and of both URL families of Azure."""
    return BatchUser(sandbox, request.param, DATED if request.param == "/openai" else "")


def plan(sandbox: RunningSandbox, text: str) -> None:
    """Put the faults of a text in place."""
    sandbox.set_faults(load_plan(text))


def test_a_batch_lives_from_file_to_results(any_user: BatchUser) -> None:
    """Every row of the file is answered once; the bill has them all, paid once."""
    batch = any_user.finish(lines_for(7))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 7, "completed": 7, "failed": 0}
    results = any_user.results(batch)
    assert sorted(line["custom_id"] for line in results) == [f"r-{number}" for number in range(7)]
    assert {line["response"]["status_code"] for line in results} == {200}
    bill = any_user.sandbox.bill(entries=True)
    assert [bill[name] for name in ("accepted", "batch_count", "batch_rows", "batch_billed", "paid_twice")] == [0, 1, 7, 7, 0]  # fmt: skip
    (entry,) = bill["batches"]
    assert (entry["id"], entry["rows"], entry["status"]) == (batch["id"], 7, "completed")
    assert sorted(entry["request_hashes"]) == sorted(entry["billed_hashes"])


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("/v1", CHAT),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/openai", f"/openai/deployments/m/chat/completions{DATED}"),
    ],
)
def test_paying_by_batch_and_in_real_time_is_paying_twice(sandbox: RunningSandbox, prefix: str, path: str) -> None:
    """The same request has the same hash and the same answer on both ways, so that the bill sees it."""
    user = BatchUser(sandbox, prefix, DATED if prefix == "/openai" else "")
    batch = user.finish(lines_for(3))
    in_batch = next(line for line in user.results(batch) if line["custom_id"] == "r-1")["response"]["body"]
    assert sandbox.bill()["paid_twice"] == 0
    reply = BatchUser(sandbox, "").send("POST", path, body_for(1)).json
    assert reply | {"created": 0} == in_batch | {"created": 0}
    assert sandbox.bill()["paid_twice"] == 1


def test_a_lost_reply_leaves_a_batch_that_a_listing_finds(sandbox: RunningSandbox, user: BatchUser) -> None:
    """The connection is reset, the batch exists, and its metadata say whose it is; the next create is answered."""
    plan(sandbox, "batch_lost_create=1")
    file = user.upload(lines_for(2)).json
    with pytest.raises(ConnectionError):
        user.create(file["id"], metadata={"batch_key": "a"})
    user.create(file["id"], metadata={"batch_key": "b"})
    found = user.send("GET", "/batches").json["data"]
    assert [batch["metadata"]["batch_key"] for batch in found] == ["b", "a"]
    assert [event["event"] for event in sandbox.events()].count("create_replied") == 1
    user.wait(found[0]["id"])
    user.wait(found[1]["id"])
    assert sandbox.bill()["paid_twice"] == 2


@pytest.mark.parametrize(
    ("fault", "exists", "event"),
    [
        pytest.param("hold_before_create", False, "create_begun", id="not accepted"),
        pytest.param("hold_create", True, "create_accepted", id="accepted"),
    ],
)
def test_a_create_is_held_until_it_is_released(
    sandbox: RunningSandbox, user: BatchUser, fault: str, exists: bool, event: str
) -> None:
    """Before or after it is accepted; the log says where it stands, and a release brings the reply."""
    plan(sandbox, f"batch_{fault}=1")
    file, replies = user.upload(lines_for(2)).json, []
    thread = threading.Thread(target=lambda: replies.append(user.create(file["id"])))
    thread.start()
    sandbox.wait_for_event("held")
    assert event in [entry["event"] for entry in sandbox.events()]
    assert bool(user.send("GET", "/batches").json["data"]) is exists
    assert not replies
    assert sandbox.release() == 1
    thread.join(10)
    assert replies[0].status == 200
    assert len(user.send("GET", "/batches").json["data"]) == 1


def test_a_client_that_goes_away_while_held_leaves_what_was_accepted(sandbox: RunningSandbox, user: BatchUser) -> None:
    """Hanging up during hold_create leaves the batch, hanging up during hold_before_create leaves nothing."""
    file = user.upload(lines_for(2)).json
    body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    for fault, count in (("hold_before_create", 0), ("hold_create", 1)):
        plan(sandbox, f"batch_{fault}=1")
        connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=0.3)
        connection.request("POST", "/v1/batches", orjson.dumps(body), {"Authorization": "Bearer k"})
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
        assert len(user.send("GET", "/batches").json["data"]) == count
    time.sleep(0.1)
    assert sandbox.release() == 0


@pytest.mark.parametrize(
    ("fault", "status"), [("batch_create_error=1", 500), ("batch_unavailable=404", 404), ("batch_unavailable=403", 403), ("dead", 503)]
)  # fmt: skip
def test_a_refused_create_accepts_nothing(
    sandbox: RunningSandbox, any_user: BatchUser, fault: str, status: int
) -> None:
    """The create gets the status, and there is no batch afterwards."""
    file_id = any_user.upload(lines_for(1)).json["id"]
    time.sleep(0.05)
    plan(sandbox, fault)
    assert any_user.create(file_id).status == status
    sandbox.set_faults()
    assert any_user.send("GET", "/batches").json["data"] == []
    assert sandbox.bill()["batch_count"] == 0


def test_uploads_fail_and_are_held(sandbox: RunningSandbox, user: BatchUser) -> None:
    """A failed upload stores nothing; a held one is stored."""
    plan(sandbox, "batch_fail_upload=2,batch_hold_upload=1")
    assert [user.upload(b"{}").status for _ in range(2)] == [503, 503]
    assert user.send("GET", "/files").json["data"] == []
    thread = threading.Thread(target=user.upload, args=(b"{}",))
    thread.start()
    sandbox.wait_for_event("held")
    assert len(user.send("GET", "/files").json["data"]) == 1
    sandbox.release()
    thread.join(10)


def test_status_checks_fail_say_strange_things_and_end(sandbox: RunningSandbox, user: BatchUser) -> None:
    """503 twice, then an unknown word twice, then the truth; a vanished batch is a 404 and still on the bill."""
    batch = user.start(lines_for(2))
    user.wait(batch["id"])
    plan(sandbox, "batch_status_error=2,batch_unknown_status=2")
    replies = [user.send("GET", f"/batches/{batch['id']}") for _ in range(5)]
    assert [reply.status for reply in replies] == [503, 503, 200, 200, 200]
    assert [reply.json["status"] for reply in replies[2:]] == ["reticulating", "reticulating", "completed"]
    plan(sandbox, "batch_gone")
    assert user.send("GET", f"/batches/{batch['id']}").status == 404
    assert sandbox.bill()["batch_billed"] == 2


@pytest.mark.parametrize("prefix", ["/v1", "/openai"])
def test_over_the_enqueued_limit_a_batch_fails_late(sandbox: RunningSandbox, prefix: str) -> None:
    """A second batch doesn't fit beside the first, and does when the first is done; nothing of it is billed."""
    user = BatchUser(sandbox, prefix, DATED if prefix == "/openai" else "")
    plan(sandbox, "batch_enqueued_limit=100,batch_stuck=1")
    first = user.start(lines_for(10))
    user.wait(first["id"], "in_progress")
    failed = user.finish(lines_for(8))
    assert failed["errors"]["data"][0]["code"] == "token_limit_exceeded"
    assert failed["errors"]["data"][0]["line"] is None
    user.send("POST", f"/batches/{first['id']}/cancel")
    user.wait(first["id"])
    assert user.finish(lines_for(8))["status"] == "completed"


def test_the_first_batches_fail_late_and_the_same_file_goes_later(sandbox: RunningSandbox, user: BatchUser) -> None:
    """One is rejected for a line, the next for the queue's limit, with all counts 0; the third is completed."""
    plan(sandbox, "batch_late_token_limit=1,batch_reject=1,batch_reject_line=2")
    file = user.upload(lines_for(3)).json
    ended = [user.wait(user.create(file["id"]).json["id"]) for _ in range(3)]
    problems = [batch["errors"]["data"][0] for batch in ended[:2]]
    assert [(problem["code"], problem["line"]) for problem in problems] == [
        ("invalid_json_line", 2),
        ("token_limit_exceeded", None),
    ]
    assert [batch["request_counts"]["total"] for batch in ended] == [0, 0, 3]
    assert sandbox.bill()["batch_billed"] == 3


def test_a_fail_fast_region_refuses_the_create(sandbox: RunningSandbox) -> None:
    """Azure says token_limit_exceeded with a 400, and there is no batch; the next create goes."""
    user = BatchUser(sandbox, "/openai/v1")
    plan(sandbox, "batch_late_token_limit=1,batch_fail_fast")
    file_id = user.upload(lines_for(2)).json["id"]
    time.sleep(0.05)
    refused = user.create(file_id)
    assert (refused.status, refused.json["error"]["code"]) == (400, "token_limit_exceeded")
    assert user.create(file_id).status == 200


def test_an_expired_batch_keeps_what_is_done(sandbox: RunningSandbox, any_user: BatchUser) -> None:
    """60 % have their answers and are paid, 40 % are batch_expired lines of the error file."""
    plan(sandbox, "batch_expire_at=0.6")
    batch = any_user.finish(lines_for(10))
    assert batch["status"] == "expired"
    assert batch["request_counts"] == {"total": 10, "completed": 6, "failed": 0}
    errors = [line["error"] for line in any_user.results(batch)]
    assert errors.count(None) == 6
    assert [error["code"] for error in errors if error] == ["batch_expired"] * 4
    assert sandbox.bill()["batch_billed"] == 6


def test_a_stuck_batch_can_be_cancelled(sandbox: RunningSandbox, any_user: BatchUser) -> None:
    """It stays in progress with half its rows done; cancelled, it hands them over."""
    plan(sandbox, "batch_stuck=1")
    batch = any_user.start(lines_for(10))
    time.sleep(0.4)
    assert any_user.get(batch["id"])["status"] == "in_progress"
    assert any_user.send("POST", f"/batches/{batch['id']}/cancel").json["status"] == "cancelling"
    batch = any_user.wait(batch["id"])
    assert (batch["status"], batch["request_counts"]["completed"]) == ("cancelled", 5)
    assert len(any_user.results(batch)) == 10
    assert any_user.send("POST", f"/batches/{batch['id']}/cancel").status == 409


def test_downloads_are_cut_held_and_slow(sandbox: RunningSandbox, user: BatchUser) -> None:
    """A cut download ends inside a line with an error; a held one goes on at the release; a slow one takes its time."""
    batch = user.finish(lines_for(20))
    whole = user.content(batch["output_file_id"])
    plan(sandbox, "batch_cut_download=1,batch_hold_download=1")
    with pytest.raises(http.client.IncompleteRead) as cut:
        user.content(batch["output_file_id"])
    assert 0 < len(cut.value.partial) < len(whole)
    assert not cut.value.partial.endswith(b"\n")
    held: list[bytes] = []
    thread = threading.Thread(target=lambda: held.append(user.content(batch["output_file_id"])))
    thread.start()
    sandbox.wait_for_event("held")
    sandbox.release()
    thread.join(10)
    assert held == [whole]
    plan(sandbox, f"batch_slow_download={len(whole) * 2}")
    begun = time.monotonic()
    assert user.content(batch["output_file_id"]) == whole
    assert time.monotonic() - begun > 0.4
