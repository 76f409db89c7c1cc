"""Files of OpenAI and Azure, what creates check, Azure's own spelling, and the bill's file."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipelines.sandbox.batch_clock import BatchTiming
from pipelines.sandbox.bill import read_bill
from pipelines.sandbox.faults import load_plan
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_batches import CHAT, BatchUser, line_for, lines_for

DATED = "?api-version=2024-10-21"
QUICK = BatchTiming(validating_s=0.05, queue_s=0.01, duration_s=0.1)


@pytest.fixture(scope="module")
def bill_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sandbox writes its bill."""
    return tmp_path_factory.mktemp("bill") / "bill.jsonl"


@pytest.fixture(scope="module")
def running(bill_path: Path) -> Iterator[RunningSandbox]:
    """One sandbox for the whole file."""
    with RunningSandbox(seed=5, batch=QUICK, bill_path=bill_path) as sandbox:
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


def test_memory_stays_flat_whatever_a_batch_holds(sandbox: RunningSandbox, user: BatchUser) -> None:
    """40 MB of rows go through upload, check and download with a few MB more than the server had before."""
    before_mb = _peak_mb(sandbox.pid)
    messages = [{"role": "user", "content": "x" * 4000}]
    batch = user.finish(b"\n".join(line_for(number, messages=messages) for number in range(9_000)))
    assert user.content(batch["output_file_id"]).count(b"\n") == 9_000
    assert _peak_mb(sandbox.pid) - before_mb < 20


def _peak_mb(pid: int) -> float:
    """Return the most memory a process has had so far."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    assert found
    return int(found[1]) / 1024


def test_azure_spells_some_things_its_own_way(sandbox: RunningSandbox) -> None:
    """A file must be processed first; creates look like the REST samples; absent ids are empty; errors have a file."""
    sandbox.set_faults()
    user = BatchUser(sandbox, "/openai", DATED)
    file = user.upload(lines_for(2, "/chat/completions")).json
    assert file["status"] == "pending"
    assert user.create(file["id"]).status == 400
    while user.send("GET", f"/files/{file['id']}").json["status"] != "processed":
        time.sleep(0.005)
    created = user.create(file["id"], "/chat/completions").json
    assert (created["status"], created["output_file_id"], created["error_file_id"]) == ("Validating", "", "")
    assert created["created_at"].endswith("+00:00")
    assert created["endpoint"] is created["request_counts"] is None
    batch = user.wait(created["id"])
    assert user.content(batch["error_file_id"]) == b""
    assert {frozenset(line) for line in user.results(batch)} == {frozenset({"custom_id", "response", "error"})}
    assert BatchUser(sandbox, "/openai").send("GET", "/batches").status == 404


def test_absent_file_ids_can_be_empty_strings(sandbox: RunningSandbox, user: BatchUser) -> None:
    """OpenAI says null, or with the fault an empty string; a batch of failed rows has only an error file."""
    sandbox.set_faults(load_plan("server_error=1,batch_empty_string_ids"))
    batch = user.finish(lines_for(3))
    assert (batch["status"], batch["output_file_id"]) == ("completed", "")
    results = user.results(batch)
    assert {(line["response"]["status_code"], line["error"]) for line in results} == {(500, None)}
    sandbox.set_faults()
    assert user.finish(lines_for(3))["error_file_id"] is None


def test_files_are_listed_deleted_and_checked(user: BatchUser) -> None:
    """Newest first, page by page; a deleted file is gone, the batch made from it is not; oddities are refused."""
    ids = [user.upload(lines_for(1)).json["id"] for _ in range(3)]
    page = user.send("GET", f"/files?limit=1&after={ids[2]}").json
    assert ([file["id"] for file in page["data"]], page["has_more"]) == ([ids[1]], True)
    batch = user.create(ids[0]).json
    assert user.send("DELETE", f"/files/{ids[0]}").json["deleted"] is True
    assert user.send("GET", f"/files/{ids[0]}").status == user.send("DELETE", f"/files/{ids[0]}").status == 404
    assert user.wait(batch["id"])["status"] == "completed"
    assert user.content(ids[1]) == lines_for(1)
    outputs = user.send("GET", "/files?purpose=batch_output").json["data"]
    assert [file["bytes"] for file in outputs] == [len(user.content(outputs[0]["id"]))]
    good = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    assert user.upload(b"{}", **good).json["expires_at"]
    assert user.upload(b"{}", **(good | {"expires_after[seconds]": "5"})).status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"completion_window": "1h"},
        {"endpoint": "/v1/embeddings"},
        {"input_file_id": None},
        {"metadata": {"n": 1}},
        {"metadata": {str(number): "" for number in range(17)}},
    ],
)
def test_a_bad_create_is_refused(user: BatchUser, fields: dict[str, Any]) -> None:
    """What OpenAI answers with a 400 is answered so here."""
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", **fields}
    assert user.send("POST", "/batches", body).status == 400


def test_keys_are_looked_at(user: BatchUser) -> None:
    """A bad key is refused everywhere; one without credit only at the create."""
    file_id = user.upload(lines_for(1)).json["id"]
    assert user.send("GET", "/batches", key="bad-key").status == 401
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    assert user.send("POST", "/batches", body, key="no-credit").status == 429


def test_an_unknown_file_is_only_noticed_later(user: BatchUser) -> None:
    """The batch is created and fails with a line that says so."""
    batch = user.wait(user.create("file-nobody").json["id"])
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "invalid_request")


def test_the_bill_file_knows_of_batches(user: BatchUser, bill_path: Path) -> None:
    """Each batch has a line of its own, which readers of real-time entries pass over."""
    before = len(read_bill(bill_path))
    batch = user.finish(lines_for(4))
    last = bill_path.read_bytes().splitlines()[-1]
    assert orjson.loads(last) == {"batch_id": batch["id"], "provider": "openai", "rows": 4}
    assert len(read_bill(bill_path)) == before
