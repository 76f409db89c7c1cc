"""How batches end, and what becomes of their rows: kept, redone, left, or given up (P1, P2, P3)."""

from decimal import Decimal

import pytest

from tests.conformance.batch_jobs import PROVIDERS, Workshop, assert_all_once, assert_paid
from tests.conformance.jobs import exact_sum, review_rows

_CUT_OFF = ("batching.deadline=1.3s", "batching.on_deadline=real_time")


def test_a_real_jobs_size_costs_half_by_batch_and_its_failed_rows_are_redone(workshop: Workshop) -> None:
    """1,620 reviews: one command, each row once; batch rows cost half of real time exactly, redone ones the whole (P2, P3)."""
    rows = review_rows(1620)
    other = workshop.beside("other")
    for each in (workshop, other):
        each.write("openai", rows, pool={"max_in_flight": 200})
    in_real_time = other.run("batching.mode=per_request")
    assert_all_once(in_real_time, 1620)
    workshop.sandbox.reset()
    workshop.sandbox.set_faults(server_error=0.02)
    result = workshop.run()
    assert_all_once(result, 1620)
    redone = result.summary["failed_calls"]["server_error"]
    assert redone >= 16
    requests = result.summary["calls"]["succeeded"]
    bill = workshop.sandbox.bill()
    assert (bill["batch_count"], bill["paid_twice"]) == (1, 0)
    assert bill["batch_billed"] + bill["accepted"] == requests
    by_batch, one_by_one = (
        exact_sum(workshop.output.values(
            "select cost_usd from {calls} join {batches} using (batch_id) where mode = $1 and call_type = 'LLM'", mode
        ))
        for mode in ("provider_batch_api", "per_request")
    )  # fmt: skip
    whole = Decimal(in_real_time.summary["cost_usd"])
    assert Decimal(result.summary["cost_usd"]) == by_batch + one_by_one
    assert whole == 2 * by_batch + one_by_one
    assert by_batch > one_by_one * 10


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_an_expired_batch_keeps_what_it_finished(workshop: Workshop, provider: str) -> None:
    """Of a batch that expires with 60 % done the 60 % are kept and 40 % are sent again, by the bill (P3)."""
    workshop.sandbox.set_faults(batch={"expire_at": 0.6})
    workshop.write(provider, 100)
    result = workshop.run()
    assert_all_once(result, 100)
    assert result.summary["failed_calls"] == {"expired": 40}
    assert_paid(workshop.sandbox, batches=1, by_batch=60, real_time=40)
    assert workshop.output.values("select status from {batches} where provider_batch_id is not null") == ["expired"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_batch_past_its_deadline_is_cancelled_and_harvested(workshop: Workshop, provider: str) -> None:
    """The half that was done is kept, the rest goes real time (P3)."""
    workshop.sandbox.set_faults(batch={"stuck": 1})
    workshop.write(provider, 40)
    result = workshop.run(*_CUT_OFF)
    assert_all_once(result, 40)
    assert result.summary["failed_calls"] == {"cancelled": 20}
    assert_paid(workshop.sandbox, batches=1, by_batch=20, real_time=20)
    [entry] = workshop.entries()
    assert entry.cancel is not None
    assert entry.cancel.why == "deadline"


def test_at_the_deadline_the_rest_may_become_dead_letters(workshop: Workshop) -> None:
    """on_deadline dead_letter: what was done is enriched, what was cut off is given up as cancelled, nothing is sent (P1)."""
    workshop.sandbox.set_faults(batch={"stuck": 1})
    workshop.write("openai", 40)
    result = workshop.run("batching.deadline=1.3s", "batching.on_deadline=dead_letter")
    assert result.exit_code == 0
    assert result.summary["rows"] == {"in": 40, "enriched": 20, "dead_lettered": 20, "pending": 0}
    letters = workshop.output.dead_letters(result.summary["run_id"])
    assert {(letter["kind"], letter["retryable"]) for letter in letters} == {("cancelled", True)}
    assert_paid(workshop.sandbox, batches=1, by_batch=20)


def test_at_the_deadline_a_batch_may_be_left_to_the_next_run(workshop: Workshop) -> None:
    """on_deadline detach: exit 5, the batch goes on; a later run that gives it up pays for the rest only (P2, P3)."""
    workshop.sandbox.set_faults(batch={"stuck": 1})
    workshop.write("openai", 40)
    left = workshop.run("batching.deadline=1.3s", "batching.on_deadline=detach")
    assert (left.exit_code, left.summary["status"], left.summary["rows"]["pending"]) == (5, "pending", 40)
    assert "past batching.deadline" in left.sentence
    assert not [event for event in workshop.sandbox.events() if event["event"] == "cancelled"]
    assert_all_once(workshop.run(*_CUT_OFF), 40)
    assert_paid(workshop.sandbox, batches=1, by_batch=20, real_time=20)


def test_a_batch_that_can_not_be_cancelled_keeps_its_rows_pending(workshop: Workshop) -> None:
    """OpenRouter has no cancel: sending the rows again would be paid twice, so they wait (P2)."""
    workshop.sandbox.set_faults(batch={"stuck": 1})
    workshop.write("openrouter", 30)
    result = workshop.run(*_CUT_OFF)
    assert (result.exit_code, result.summary["rows"]["pending"]) == (5, 30)
    assert "can't cancel" in result.sentence
    assert_paid(workshop.sandbox, batches=1, by_batch=0)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_rough_handling_costs_no_row(workshop: Workshop, provider: str) -> None:
    """503s and strange words as status, empty file ids, downloads that break off: no end of a batch, no lost row (P3)."""
    faults = {"status_error": 2, "unknown_status": 2, "cut_download": 2, "empty_string_ids": True}
    workshop.sandbox.set_faults(batch=faults)
    workshop.write(provider, 30)
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=30)
    met = workshop.sandbox.stats()["faults"]
    assert {f"batch_{name}": 2 for name in ("status_error", "unknown_status", "cut_download")} == met


@pytest.mark.parametrize("provider", ["openai", "anthropic", "openrouter"])
def test_a_batch_that_vanished_gives_dead_letters(workshop: Workshop, provider: str) -> None:
    """The provider knows it no more: its rows are results_gone, nothing is sent again unasked (P1, P2)."""
    workshop.sandbox.set_faults(batch={"gone": True})
    workshop.write(provider, 30)
    result = workshop.run()
    assert result.exit_code == 0
    assert result.summary["rows"] == {"in": 30, "enriched": 0, "dead_lettered": 30, "pending": 0}
    assert workshop.letters(result) == {"results_gone": 30}
    assert workshop.sandbox.bill()["accepted"] == 0
    assert [entry.is_in_flight for entry in workshop.entries()] == [False]


def test_withheld_results_are_collected_when_there_is_credit(workshop: Workshop) -> None:
    """OpenRouter's 402: rows wait with that kind and exit 6; after topping up they come, paid once (P2, P3)."""
    workshop.sandbox.set_faults(batch={"withheld": 1000})
    workshop.write("openrouter", 30)
    held = workshop.run()
    assert (held.exit_code, held.summary["rows"]["pending"]) == (6, 30)
    assert "withheld, not lost" in held.sentence
    assert [entry["kind"] for entry in held.summary["pending_reasons"]] == ["results_withheld"]
    workshop.sandbox.set_faults()
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=30)
