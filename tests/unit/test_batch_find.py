"""Looking for the batch of a create whose reply was lost: in listings of any order, to a proof or an honest doubt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.batch_desk import FACTS, INTENT_S, MINE, Desk, batch, open_desk
from tests.unit.batch_server import answer
from transforms.providers import batch_client
from transforms.providers.batch_client import Absent, Candidates, Found
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError

K = FailureKind


@pytest.fixture
def openai(tmp_path: Path) -> Iterator[Desk]:
    """Give OpenAI's desk."""
    with open_desk("openai", tmp_path) as desk:
        yield desk


@pytest.fixture
def openrouter(tmp_path: Path) -> Iterator[Desk]:
    """Give OpenRouter's desk."""
    with open_desk("openrouter", tmp_path) as desk:
        yield desk


def page(*batches, more=False):
    """Return a page of a listing."""
    return answer(200, {"object": "list", "data": list(batches), "has_more": more})


def aged(batch_id, minutes, **changes):
    """Return a batch created so many minutes after the intent."""
    return batch(batch_id, created_at=int(INTENT_S + 60 * minutes), **changes)


def find(desk, *steps):
    """Look for the batch in a listing of these pages; return the outcome and how many pages were read."""
    desk.server.on("GET", "/v1/batches", *steps)
    outcome = desk.client.find(FACTS, INTENT_S)
    return outcome, desk.server.count("GET", "/v1/batches")


def test_metadata_finds_the_batch_on_a_later_page(openai):
    """Another attempt's batch and a stranger's are passed over; a page that fails is asked for again."""
    first = page(aged("b9", 2), aged("b8", 1, metadata={**MINE, "rowbeam_attempt": "1"}), more=True)
    outcome, pages = find(openai, first, answer(502, b"<html>"), page(aged("b7", 0, metadata=MINE), more=True))
    assert isinstance(outcome, Found)
    assert (outcome.state.provider_batch_id, pages) == ("b7", 3)
    assert [seen.query for seen in openai.server.seen] == ["limit=100", "limit=100&after=b8", "limit=100&after=b8"]
    assert set(openai.whats()) == {"listing"}


@pytest.mark.parametrize(
    ("steps", "pages"),
    [
        pytest.param([page()], 1, id="empty"),
        pytest.param([page(aged("b9", 1), aged("b8", -11), more=True), page(aged("b7", -12))], 2, id="to-the-end"),
        pytest.param([page(aged("b9", -11), aged("b8", -12), more=True), page()], 1, id="page-too-old"),
        pytest.param([page(aged("b9", -9), aged("b8", -12), more=True), page()], 2, id="within-slack"),
        pytest.param([page(aged("b1", -90), aged("b2", -80), more=True), page()], 2, id="oldest-first"),
        pytest.param([page(aged("b9", -90), more=True), page()], 2, id="order-not-seen"),
        pytest.param([page(batch("b9"), aged("b8", -12), more=True), page()], 2, id="time-not-given"),
    ],
)
def test_a_batch_is_absent_only_by_a_listing_read_far_enough(openai, steps, pages):
    """Reading ends where all that follows must be older, or at the end."""
    assert find(openai, *steps) == (Absent(), pages)


def test_oldest_first_is_read_until_ours_comes(openai):
    """An order that no provider promises does not hide a batch."""
    steps = page(aged("b1", -90), aged("b2", -80), more=True), page(aged("b3", 0, metadata=MINE))
    assert isinstance(find(openai, *steps)[0], Found)


def test_without_metadata_what_fits_are_candidates(openrouter):
    """Time, count and model narrow them down; each is named once."""
    fitting, stranger = aged("b9", 1), aged("b8", 1, request_counts={"total": 9, "completed": 0, "failed": 0})
    outcome, _ = find(openrouter, page(fitting, stranger, more=True), page(fitting, aged("b7", 0)))
    assert isinstance(outcome, Candidates)
    assert [state.provider_batch_id for state in outcome.states] == ["b9", "b7"]


@pytest.mark.parametrize(
    ("step", "kind", "pages"),
    [
        pytest.param(answer(500, b""), K.SERVER_ERROR, 5, id="fails"),
        pytest.param(answer(403, {"error": {"message": "no"}}), K.PERMISSION, 1, id="refused"),
        pytest.param(page(aged("b9", 1), more=True), K.INVALID_RESPONSE, 3, id="endless"),
    ],
)
def test_a_listing_that_can_not_be_read_proves_nothing(openai, monkeypatch, step, kind, pages):
    """An error is neither absence nor a find."""
    monkeypatch.setattr(batch_client, "_MAX_PAGES", 3)
    outcome, read = find(openai, step)
    assert isinstance(outcome, CallError)
    assert (outcome.kind, read) == (kind, pages)
