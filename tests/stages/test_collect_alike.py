"""Lines read by their likeness to others give what reading each line gives: records, ledger lines and answers."""

import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sandbox.running import RunningSandbox
from tests.stages.alike_lines_case import KEY, KEY_ENV, MODELS, RUN_ID, Case, changed, make_case, with_schema
from transforms import _batch_alike, _batch_desk
from transforms._batch_desk import BatchDesk
from transforms._batch_orphans import Orphans
from transforms._batch_read import BatchReader, Work
from transforms.providers.batch_client import Downloaded
from transforms.records.batch import BatchRef, BatchStatus
from transforms.records.call import CallRecord
from transforms.records.request import pack
from transforms.records.run import CallSettings
from transforms.records.settings import AuditSettings, BatchingSettings, PoolSettings
from transforms.rules.fingerprint import custom_id
from transforms.storage.asked_file import AskedFile, AskedWriter
from transforms.storage.batch_calls import RecordedCalls
from transforms.storage.batch_entry import BatchEntry, Ended, Handle, Staged
from transforms.storage.batch_results import ResultIds
from transforms.storage.ledger import segments

_KEY = "b" * 64


@pytest.fixture(scope="module")
def cases() -> Iterator[dict[str, Case]]:
    """Give each provider's results."""
    with pytest.MonkeyPatch.context() as patch, RunningSandbox() as sandbox:
        patch.setenv(KEY_ENV, KEY)
        yield {name: make_case(sandbox, name, with_schema(name)) for name in MODELS}


class _Found:
    """What collecting gave: the items as they came, the ledger's lines, and how many lines were read by likeness."""

    def __init__(self, items: list[str], ledger: list[bytes], counts: Counter[str], alike: int) -> None:
        self.items, self.ledger, self.counts, self.alike = items, ledger, counts, alike


def _collect(case: Case, lines: list[bytes], patch: pytest.MonkeyPatch, *, tries: int, audit: AuditSettings) -> _Found:
    """Collect these lines in an output of its own; tries: how many lines likeness may be learned from."""
    patch.setattr(_batch_alike, "_LINES_TRIED", tries)
    ref = BatchRef(_KEY, "batch-0", RUN_ID, "", len(case.requests), 1, 1)
    patch.setitem(_batch_desk._numbers, (RUN_ID, ref.batch_id), itertools.count())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "results.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        asked = AskedWriter(str(folder / "asked"))
        for request in case.requests:
            asked.add(request.request_id, pack(request))
        asked.close()
        batching = BatchingSettings(mode="provider_batch_api")
        made = CallSettings(RUN_ID, str(folder / "ledger"), case.model, case.schema, PoolSettings(), batching, audit)
        desk = BatchDesk(made)
        try:
            with AskedFile(str(folder / "asked")) as file:
                return _read(desk, case, file, replace(ref, asked_path=str(folder / "asked")), folder, patch)
        finally:
            desk.release()


def _read(
    desk: BatchDesk, case: Case, asked: AskedFile, ref: BatchRef, folder: Path, patch: pytest.MonkeyPatch
) -> _Found:
    taken: list[Any] = []
    take = _batch_alike.AlikeReader.take

    def counted(self: Any, *arguments: Any) -> Any:
        result = take(self, *arguments)
        taken.extend([result] * (result is not None))
        return result

    with patch.context() as inner:
        inner.setattr(_batch_alike.AlikeReader, "take", counted)
        members = {custom_id(RUN_ID, one.request_id): one.request_id for one in case.requests}
        work = Work(
            ref, _entry(), Handle("batch_1", None, 1.0, RUN_ID, proven=True), _ENDED, asked, members, RecordedCalls(),
            Counter(), 1_794_000_000_000_000, 3_600_000.0,
        )  # fmt: skip
        reader = BatchReader(desk)
        downloaded = [Downloaded("results", str(folder / "results.jsonl"), None, 1)]
        results = reader.results(work, downloaded, ResultIds(members), Orphans(desk.ledger, _KEY))
        items = [_shown(item) for item in reader.on_record(results)]
        desk.worker.segment.sync()
        ledger = [line for path in segments(desk.ledger) for line in Path(path).read_bytes().splitlines()[1:]]
    return _Found(items, ledger, work.counts, len(taken))


_ENDED = Ended(BatchStatus.COMPLETED, "completed", 1, 1, 0, None, None, None, 2.0)


def _entry() -> BatchEntry:
    staged = Staged(_KEY, "batch-0", RUN_ID, "1f2e3d4c", "m", "p", "provider_batch_api", 1, 1, 1, 1.0)
    return BatchEntry(staged, 0, None, None, None, None, None, {}, ())


def _shown(item: Any) -> str:
    shown = vars(item) if isinstance(item, CallRecord) else getattr(item, "request", None)
    return repr((type(item).__name__, shown, item if not hasattr(item, "asked") else replace(item, asked=b"")))


FULL = AuditSettings()


@pytest.mark.parametrize("name", MODELS)
def test_lines_that_are_alike_give_what_any_line_gives(
    cases: dict[str, Case], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the first few lines of a batch are read by likeness, and nobody can tell by what comes of them."""
    case = cases[name]
    monkeypatch.setenv(KEY_ENV, KEY)
    slow = _collect(case, case.lines, monkeypatch, tries=0, audit=FULL)
    quick = _collect(case, case.lines, monkeypatch, tries=40, audit=FULL)
    assert (quick.items, quick.ledger, quick.counts) == (slow.items, slow.ledger, slow.counts)
    assert slow.alike == 0
    # OpenRouter states each answer's cost, a number that no shape has.
    assert quick.alike >= (0 if name == "openrouter" else 12)


@settings(deadline=None, max_examples=20)
@given(seeds=st.lists(st.integers(0, 2**32), min_size=22, max_size=22), order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("name", MODELS)
def test_lines_changed_in_any_way_give_what_any_line_gives(
    cases: dict[str, Case], name: str, seeds: list[int], order: random.Random
) -> None:
    """Other keys, types, numbers, spaces, escapes, secrets, cuts and doubles: both ways agree to the byte."""
    case = cases[name]
    lines = [changed(line, seed) for line, seed in zip(case.lines, seeds, strict=True)]
    order.shuffle(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_ENV, KEY)
        slow = _collect(case, lines, patch, tries=0, audit=FULL)
        quick = _collect(case, lines, patch, tries=40, audit=FULL)
    assert (quick.items, quick.ledger, quick.counts) == (slow.items, slow.ledger, slow.counts)


@pytest.mark.parametrize("payloads", ["hash", "none"])
def test_no_line_is_read_by_likeness_where_payloads_are_not_kept(
    cases: dict[str, Case], payloads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likeness is for records that hold the whole payload."""
    monkeypatch.setenv(KEY_ENV, KEY)
    found = _collect(cases["chat"], cases["chat"].lines, monkeypatch, tries=40, audit=AuditSettings(payloads=payloads))
    assert (found.alike, found.counts["ok"]) == (0, 22)


@pytest.mark.parametrize("key", ['sk-"quoted"-0123456789', "0123456789012345", "sk-with, a comma and more"])
def test_no_line_is_read_by_likeness_where_a_key_is_not_one_word(
    cases: dict[str, Case], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that could lie across two words of JSON is looked for in whole lines."""
    monkeypatch.setenv(KEY_ENV, key)
    found = _collect(cases["chat"], cases["chat"].lines, monkeypatch, tries=40, audit=FULL)
    assert (found.alike, found.counts["ok"]) == (0, 22)
