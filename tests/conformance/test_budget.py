"""P6: a budget holds, over real time, batches, retries and repairs together, and a run that it stops can be resumed."""

from decimal import Decimal

import orjson
import pytest

from tests.conformance.batch_jobs import assert_all_once
from tests.conformance.budget_chaos import check_chaos, spent_usd
from transforms.records.failure import FailureKind

_ROWS = 40


def _log(workshop):
    """Return the entries of the budget's log, in order."""
    return [orjson.loads(path.read_bytes()) for path in sorted((workshop.output.folder / "ledger/budget").iterdir())]


def _open_holds(workshop):
    settled = {entry["id"] for entry in _log(workshop) if entry["op"] == "settle"}
    holds = [entry for entry in _log(workshop) if entry["op"] == "hold"]
    return [entry for entry in holds if entry["id"].partition("#")[0] not in settled]


def test_p6_real_time_stops_before_the_overspend_and_is_resumed(workshop):
    """Exit 4 with what to do; with nothing left nothing is sent; a higher budget ends the job and asks nothing twice."""
    workshop.write("openai", _ROWS, batching={"mode": "per_request"}, budget={"max_usd": "0.0005"})
    stopped = workshop.run()
    assert (stopped.exit_code, stopped.summary["status"]) == (4, "budget_stop")
    rows = stopped.summary["rows"]
    assert 0 < rows["enriched"] < _ROWS
    assert rows["enriched"] + rows["pending"] == _ROWS
    [reason] = stopped.summary["pending_reasons"]
    assert reason["kind"] == FailureKind.BUDGET
    assert stopped.sentence.startswith("the budget of this output has no room: 0.000")
    assert "raise budget.max_usd and run the job again" in stopped.sentence
    facts = stopped.summary["budget"]
    assert (facts["max_usd"], facts["per"]) == ("0.0005", "output")
    assert spent_usd(workshop.sandbox) == Decimal(facts["charged_usd"]) <= Decimal("0.0005")
    assert _open_holds(workshop) == []

    sent = workshop.sandbox.bill()["accepted"]
    again = workshop.run()
    assert (again.exit_code, workshop.sandbox.bill()["accepted"]) == (4, sent)
    assert again.summary["rows"] == rows
    assert_all_once(workshop.run("budget.max_usd=1"), _ROWS)
    bill = workshop.sandbox.bill()
    assert bill["accepted"] == bill["distinct"] == _ROWS


def test_p6_batches_that_have_no_room_wait_for_others_or_a_higher_budget(workshop):
    """They are cut so that some fit, go one after the other as room comes free, and the rest waits for more."""
    workshop.write("openai", _ROWS, budget={"max_usd": "0.004"})
    done = workshop.run()
    assert_all_once(done, _ROWS)
    assert done.summary["batches"]["submitted"] > 1
    most = held = 0
    holds = {}
    for entry in _log(workshop):
        held += Decimal(entry["usd"]) - holds.pop(entry["id"], 0)
        if entry["op"] == "hold":
            holds[entry["id"]] = Decimal(entry["usd"])
        most = max(most, held)
    assert Decimal("0.002") < most <= Decimal("0.004")
    assert holds == {}
    assert spent_usd(workshop.sandbox) == held == Decimal(done.summary["budget"]["charged_usd"])

    workshop.write("openai", 2 * _ROWS, budget={"max_usd": str(held + Decimal("0.0001"))})
    stopped = workshop.run()
    assert (stopped.exit_code, stopped.summary["status"]) == (4, "budget_stop")
    assert "the next batch, of " in stopped.sentence
    assert {reason["kind"] for reason in stopped.summary["pending_reasons"]} == {FailureKind.BUDGET}
    assert stopped.summary["rows"]["pending"] == _ROWS
    assert workshop.sandbox.bill()["batch_billed"] == _ROWS


def test_p6_a_batch_in_flight_keeps_its_hold_until_another_run_collects_it(workshop):
    """Between the runs it counts in full; a run without room for more still collects what is paid for."""
    workshop.sandbox.set_faults(batch={"expire_at": 0.5, "missing": 0.1, "status_error": 1000})
    workshop.write("openai", _ROWS, budget={"max_usd": "0.1"}, batching={"detach": True, "retry_failed": "none"})
    left = workshop.run()
    assert left.exit_code == 5
    [hold] = _open_holds(workshop)
    assert left.summary["budget"]["charged_usd"] == hold["usd"]
    workshop.sandbox.set_faults()
    collected = workshop.run("batching.detach=false", f"budget.max_usd={hold['usd']}")
    assert 0 < collected.summary["rows"]["enriched"] < _ROWS // 2
    assert _open_holds(workshop) == []
    # Requests that the results don't mention may have been billed.
    charged = Decimal(collected.summary["budget"]["charged_usd"])
    assert spent_usd(workshop.sandbox) < charged < Decimal(hold["usd"])


@pytest.mark.parametrize("seed", range(1, 4))
def test_p6_chaos_never_spends_more_than_the_budget(workshop, seed):
    """Lost replies, resets, time-outs, refusals, broken answers; batches lost, rejected, expired, with rows missing."""
    check_chaos(workshop, seed, rows=30)
