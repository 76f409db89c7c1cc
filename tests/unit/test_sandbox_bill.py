"""The bill and the rate limits of the sandbox."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sandbox.bill import Bill, BillEntry, read_bill
from pipelines.sandbox.limits import Bucket, Limiter, go_duration


def _accept(bill: Bill, request_hash: str) -> BillEntry:
    return bill.accept(
        path="/v1/chat/completions",
        body_sha256="ab",
        request_hash=request_hash,
        model="m",
        attempt=1,
        tokens=(10, 2),
        fault=None,
    )


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["answered", "dropped", None]))))
def test_the_bill_adds_up(events: list[tuple[str, str | None]]) -> None:
    """Accepted = in flight + answered + dropped, whatever happened; distinct counts requests, not tries."""
    bill = Bill()
    for request_hash, end in events:
        entry = _accept(bill, request_hash)
        if end == "answered" or end == "dropped":  # noqa: PLR1714 - narrows the type
            bill.end(entry, end)
            bill.end(entry, "dropped")
    counts = bill.summary(with_entries=True)
    assert counts["accepted"] == len(events) == len(counts["entries"])
    assert counts["distinct"] == len({request_hash for request_hash, _ in events})
    assert counts["in_flight"] == sum(end is None for _, end in events)
    assert counts["answered"] == sum(end == "answered" for _, end in events)
    assert counts["dropped"] == sum(end == "dropped" for _, end in events)
    assert counts["input_tokens"] == 10 * len(events)
    assert [entry["seq"] for entry in counts["entries"]] == list(range(1, len(events) + 1))


def test_the_bill_file_is_complete_at_any_moment(tmp_path: Path) -> None:
    """Each event is in the file before the next; a torn last line costs nothing."""
    path = tmp_path / "bill.jsonl"
    bill = Bill(path)
    first, second = _accept(bill, "a"), _accept(bill, "b")
    assert [entry["state"] for entry in read_bill(path)] == ["in_flight", "in_flight"]
    bill.end(second, "answered")
    with path.open("ab") as file:
        file.write(b'{"seq": 3, "pa')
    assert [(entry["request_hash"], entry["state"]) for entry in read_bill(path)] == [
        ("a", "in_flight"),
        ("b", "answered"),
    ]
    bill.end(first, "dropped")
    bill.close()


def test_a_cleared_bill_forgets_what_was_in_flight(tmp_path: Path) -> None:
    """The end of an old request is not booked on a new one with the same number."""
    path = tmp_path / "bill.jsonl"
    bill = Bill(path)
    old = _accept(bill, "a")
    bill.clear()
    _accept(bill, "b")
    bill.end(old, "answered")
    assert bill.summary() == {
        "accepted": 1,
        "distinct": 1,
        "in_flight": 1,
        "answered": 0,
        "dropped": 0,
        "input_tokens": 10,
        "output_tokens": 2,
    }
    assert [entry["state"] for entry in read_bill(path)] == ["in_flight", "in_flight"]
    bill.close()


def test_a_bucket_gives_what_it_holds_and_fills_again() -> None:
    """Ten units, five a second: empty at once, two back after 0.4 s, never more than ten."""
    bucket = Bucket(10, 5, now_s=0)
    assert bucket.wait_s(10, 0) == 0
    bucket.take(10)
    assert bucket.wait_s(2, 0) == pytest.approx(0.4)
    assert bucket.wait_s(2, 0.4) == 0
    assert bucket.level(100) == 10
    assert bucket.wait_s(11, 100) == math.inf
    assert bucket.full_in_s(100) == 0


def test_a_refused_request_takes_nothing_and_passes_after_the_wait_it_was_told() -> None:
    """The wait is exact: just before it the request is refused, at its end it passes."""
    limiter = Limiter(60, 1000, window_s=60, now_s=0)
    assert limiter.admit(900, 0).wait_s == 0
    verdict = limiter.admit(300, 0)
    assert verdict.wait_s == pytest.approx(12)
    assert verdict.requests is not None
    assert (verdict.requests.limit, verdict.requests.remaining) == (60, 59)
    assert limiter.admit(300, 11.9).wait_s > 0
    assert limiter.admit(300, 12.01).wait_s == 0
    assert limiter.admit(2000, 500).wait_s == math.inf


@given(st.lists(st.floats(0.001, 2.0), max_size=200))
def test_a_limiter_never_admits_more_than_burst_and_rate_allow(gaps: list[float]) -> None:
    """Whatever the arrivals, admissions in any window from the start stay under capacity + rate x time."""
    limiter = Limiter(30, None, window_s=10, now_s=0)
    now_s, admitted = 0.0, 0
    for gap in gaps:
        now_s += gap
        admitted += limiter.admit(1, now_s).wait_s == 0
        assert admitted <= 5 + now_s * 0.5 + 1e-6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (59.7, "59.7s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86399.5, "23h59m59.5s"),
    ],
)
def test_resets_are_written_the_way_openai_writes_them(seconds: float, text: str) -> None:
    """The examples of providers.md 2.6."""
    assert go_duration(seconds) == text
