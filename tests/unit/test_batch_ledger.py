"""The ledger of provider batches gives back what was written, refuses what would be paid twice, and names damage."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.batch_file_builders import (
    KEY,
    NOW,
    RUN,
    WRITERS,
    make_cancel,
    make_collected,
    make_ended,
    make_handle,
    make_intent,
    make_staged,
    make_void,
)
from transforms.records.batch import BatchStatus
from transforms.records.errors import InternalError
from transforms.storage import batch_ledger as ledger_files

_OTHER_KEY = "a7" * 32


def _write(ledger: str, *kinds: str, attempt: int = 0) -> None:
    for kind in kinds:
        WRITERS[kind](ledger, attempt)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """A ledger with one staged batch."""
    ledger_files.write_staged(str(tmp_path / "ledger"), make_staged())
    return str(tmp_path / "ledger")


def test_records_come_back_as_they_were_written(ledger: str) -> None:
    """Every field of every file is in the entry, the file names are those of the spec."""
    _write(ledger, "uploaded", "intent", "void")
    _write(ledger, "uploaded", "intent", "handle", "cancel", "ended", "collected", attempt=1)
    entry = ledger_files.read_entry(ledger, KEY)
    assert entry is not None
    assert (entry.key, entry.staged, entry.attempt) == (KEY, make_staged(), 1)
    assert (entry.intent, entry.handle, entry.cancel) == (make_intent(1), make_handle(1), make_cancel())
    assert (entry.ended, entry.collected, entry.voids) == (make_ended(), make_collected(), (make_void(),))
    assert (entry.uploads, entry.file_id) == ({0: "file-0", 1: "file-1"}, "file-1")
    assert entry.ended is not None
    assert entry.ended.status is BatchStatus.COMPLETED
    names = [path.relative_to(ledger).as_posix() for path in sorted(Path(ledger).rglob("*.json"))]
    own = ["cancel-1", "collected", "ended-1", "handle-1", "staged", "uploaded-0", "uploaded-1", "void-0"]
    assert names == [f"batches/{KEY}/{name}.json" for name in own] + [f"intents/{KEY}.1.json", f"intents/{KEY}.json"]


def test_batch_that_is_not_staged_is_none(tmp_path: Path) -> None:
    """Neither a ledger that is not there nor an empty folder is a batch."""
    assert ledger_files.read_entry(str(tmp_path), KEY) is None
    assert ledger_files.list_entries(str(tmp_path)) == []
    assert ledger_files.creates_since(str(tmp_path), 0.0) == 0
    assert ledger_files.sweep_unsent(str(tmp_path), RUN, NOW) == []
    (tmp_path / "batches" / KEY).mkdir(parents=True)
    assert ledger_files.list_entries(str(tmp_path)) == []
    with pytest.raises(InternalError, match="can't be created: it is not staged"):
        ledger_files.create_intent(str(tmp_path), make_intent())


def test_second_attempt_waits_for_the_end_of_the_first(ledger: str) -> None:
    """As long as nobody knows what became of a create, no other can be claimed."""
    _write(ledger, "intent")
    with pytest.raises(InternalError, match="attempt 0 may still be at the provider"):
        ledger_files.create_intent(ledger, make_intent(1))


def test_two_batches_of_one_attempt_are_told(ledger: str) -> None:
    """A second handle for an attempt is an alarm, unless it is the same batch, proven or not."""
    _write(ledger, "intent", "handle")
    assert not ledger_files.record_handle(ledger, KEY, 0, make_handle(proven=False))
    with pytest.raises(InternalError, match="at the provider twice, as batch_0 and as batch_1"):
        ledger_files.record_handle(ledger, KEY, 0, make_handle(1))


def test_batch_is_staged_once(ledger: str) -> None:
    """staged.json is never replaced."""
    with pytest.raises(InternalError, match="staged twice"):
        ledger_files.write_staged(ledger, make_staged(run_id="other"))


def test_batch_that_was_sent_is_not_given_up(ledger: str) -> None:
    """Giving up is for batches that the provider can't have."""
    _write(ledger, "intent")
    [entry] = ledger_files.list_entries(ledger)
    with pytest.raises(InternalError, match="can't be given up: it is in_doubt"):
        ledger_files.give_up(ledger, entry, RUN, NOW)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        pytest.param(f"batches/{KEY}/handle-0.json", b"", "Invalid JSON", id="empty"),
        pytest.param(f"batches/{KEY}/handle-0.json", b'{"provider_batch_id": "x"', "Invalid JSON", id="torn"),
        pytest.param(f"batches/{KEY}/handle-0.json", b"{}", "provider_batch_id: Field required", id="field_gone"),
        pytest.param(f"batches/{KEY}/ended-0.json", b'{"status": "done"}', "status: Input should be", id="new_word"),
        pytest.param(f"batches/{KEY}/staged.json", b'{"batch_key": 7}', "batch_key: Input should", id="wrong_type"),
        pytest.param(f"intents/{KEY}.json", b"[]", "Input should be an object", id="no_object"),
    ],
)
def test_damaged_file_is_named_with_its_cure(ledger: str, name: str, content: bytes, why: str) -> None:
    """The message says which file, why, and what can be done about it."""
    _write(ledger, "intent", "handle", "ended")
    (Path(ledger) / name).write_bytes(content)
    with pytest.raises(InternalError) as caught:
        ledger_files.open_entries(ledger)
    message = str(caught.value)
    assert message.startswith(f"{Path(ledger) / name} is damaged ({why}")
    assert (
        f"restore it from a backup; or, if the provider has no batch of this job that is under way, move all that is named {KEY}"
        in message
    )
    assert "\n" not in message


def test_sent_batch_without_staged_json_is_no_fresh_one(ledger: str) -> None:
    """What was sent is not forgotten because a file is gone: reading, staging and sweeping all stop."""
    _write(ledger, "intent")
    (Path(ledger) / "batches" / KEY / "staged.json").unlink()
    for look in (lambda: ledger_files.read_entry(ledger, KEY), lambda: ledger_files.sweep_unsent(ledger, RUN, NOW)):
        with pytest.raises(InternalError, match=r"staged\.json is missing"):
            look()


def test_folder_of_another_batch_is_told(ledger: str) -> None:
    """A copied folder is not taken for a batch of its own name."""
    batches = Path(ledger) / "batches"
    (batches / KEY).rename(batches / _OTHER_KEY)
    with pytest.raises(InternalError, match="is of another batch"):
        ledger_files.read_entry(ledger, _OTHER_KEY)


def test_keys_of_newer_versions_are_ignored(ledger: str) -> None:
    """A field that this version does not know does no harm."""
    path = Path(ledger) / "batches" / KEY / "staged.json"
    path.write_bytes(path.read_bytes().replace(b"{", b'{"later": 1,', 1))
    entry = ledger_files.read_entry(ledger, KEY)
    assert entry is not None
    assert entry.staged == make_staged()


def test_entries_come_oldest_first_and_their_tokens_add_up(ledger: str) -> None:
    """Batches are ordered by the time they were staged; those at the provider count with their tokens."""
    ledger_files.write_staged(ledger, replace(make_staged(_OTHER_KEY), staged_at_s=NOW - 60, token_estimate=1_000))
    ledger_files.create_intent(ledger, make_intent(0, _OTHER_KEY, at_s=NOW - 3_600))
    ledger_files.create_intent(ledger, make_intent(0, KEY, at_s=NOW))
    assert [entry.key for entry in ledger_files.list_entries(ledger)] == [_OTHER_KEY, KEY]
    assert ledger_files.tokens_in_flight(ledger) == 1_450
    assert [ledger_files.creates_since(ledger, NOW - since) for since in (0, 3_599, 3_600)] == [1, 1, 2]
    ledger_files.record_handle(ledger, _OTHER_KEY, 0, make_handle())
    ledger_files.record_ended(ledger, _OTHER_KEY, 0, make_ended())
    assert ledger_files.tokens_in_flight(ledger) == 450


def test_limits_count_the_batches_of_one_place(ledger: str) -> None:
    """What is in flight elsewhere, a rehearsal's or another provider's, takes no room here; on Azure the host counts."""
    azure = "azure.ai.openai"
    places = [("openai", "http://a/v1"), ("openai", "http://b/v1"), ("anthropic", "http://a/v1")]
    places += [(azure, "https://r/openai"), (azure, "https://r/openai/v1")]
    for number, (name, address) in enumerate(places):
        key = f"{number:064x}"
        staged = make_staged(key, provider_name=name, address=address, token_estimate=10**number)
        ledger_files.write_staged(ledger, staged)
        ledger_files.create_intent(ledger, make_intent(0, key, at_s=NOW - number))
        ledger_files.record_handle(ledger, key, 0, make_handle())
    tokens = [ledger_files.tokens_in_flight(ledger, place=place) for place in places]
    assert tokens == [1, 10, 100, 11_000, 11_000]
    assert [ledger_files.creates_since(ledger, NOW - 9, place=place) for place in places] == [1, 1, 1, 2, 2]
    assert ledger_files.creates_since(ledger, NOW - 3, place=(azure, "https://r/openai/v1")) == 1
    assert ledger_files.creates_since(ledger, NOW - 9, place=("openai", "http://c/v1")) == 0
    assert (ledger_files.tokens_in_flight(ledger), ledger_files.creates_since(ledger, NOW - 9)) == (11_111, 5)


def test_a_create_of_nobody_knows_where_counts_everywhere(ledger: str) -> None:
    """Rather wait for room that there is than be refused for want of it; every attempt of a batch counts."""
    _write(ledger, "intent", "void")
    _write(ledger, "intent", attempt=1)
    assert ledger_files.creates_since(ledger, NOW, place=("openai", "")) == 2
    (Path(ledger) / "batches" / KEY / "staged.json").unlink()
    assert ledger_files.creates_since(ledger, NOW, place=("anthropic", "http://a/v1")) == 2


def test_sweep_removes_half_staged_files_and_keeps_the_rest(ledger: str) -> None:
    """Drafts and files of batches that never came to exist go; those of batches on record stay."""
    requests = Path(ledger) / "requests"
    requests.mkdir()
    for name in (f"{KEY}.jsonl", f"{KEY}.members.jsonl", f"{_OTHER_KEY}.jsonl", ".draft.0123456789ab.tmp"):
        (requests / name).write_bytes(b"x")
    (Path(ledger) / "batches" / ("0f" * 32)).mkdir()
    _write(ledger, "intent")
    assert ledger_files.sweep_unsent(ledger, RUN, NOW) == []
    assert sorted(path.name for path in requests.iterdir()) == [f"{KEY}.jsonl", f"{KEY}.members.jsonl"]
    assert [path.name for path in (Path(ledger) / "batches").iterdir()] == [KEY]


def test_damaged_members_and_requests_are_named(ledger: str) -> None:
    """A broken line, and a pointer behind the end of the request file, name the file."""
    requests = Path(ledger) / "requests"
    requests.mkdir()
    (requests / f"{KEY}.members.jsonl").write_bytes(b'{"custom_id": "c"}\n')
    (requests / f"{KEY}.jsonl").write_bytes(b"0123456789")
    with pytest.raises(InternalError, match=r"members\.jsonl, line 1, is damaged \(KeyError"):
        list(ledger_files.read_members(ledger, KEY))
    with pytest.raises(InternalError, match=r"members\.jsonl is missing; restore the file from a backup"):
        list(ledger_files.read_members(ledger, _OTHER_KEY))
    assert ledger_files.request_line(ledger, KEY, 2, 8) == b"23456789"
    with pytest.raises(InternalError, match="ends before byte 11"):
        ledger_files.request_line(ledger, KEY, 3, 8)
