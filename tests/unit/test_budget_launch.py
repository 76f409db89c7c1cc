"""pipelines/budget.py and transforms/_budget*.py: what is asked, booked and shown before a run spends anything."""

from decimal import Decimal

import pytest

from pipelines.budget import agree_on_gap, budget_facts, budget_gap, open_books, plan_budget, worst_case_of
from pipelines.job import load_job
from pipelines.prepare import prepare
from tests.conformance.jobs import plain_rows, write_csv, write_job
from transforms._budget import RunBudget, open_log
from transforms._budget_batches import BatchSpend
from transforms._budget_books import settle_books
from transforms.providers import make_provider
from transforms.records.batch import BatchRef
from transforms.records.errors import ConfigError
from transforms.records.settings import BudgetSettings
from transforms.rules.budget import WorstCase
from transforms.rules.price import PriceTable

_BUDGET = BudgetSettings(max_usd=Decimal(1))


@pytest.fixture
def prepared(workdir):
    """Prepare a job with a budget; changes are merged in."""
    write_csv(workdir / "reviews.csv", plain_rows(3))

    def make(*overrides, **changes):
        path = write_job(workdir, "http://127.0.0.1:1/v1", **{"budget": {"max_usd": 1}, **changes})
        return prepare(load_job(str(path), overrides), "r2")

    return make


@pytest.mark.parametrize(
    ("model", "gap"),
    [
        pytest.param({}, None, id="all known"),
        pytest.param({"name": "no-such-model", "allow_unlisted": True}, "price table has no no-such-model", id="price"),
        pytest.param(
            {"name": "no-such-model", "allow_unlisted": True, "params": {"max_output_tokens": None}},
            "no-such",
            id="both",
        ),
        pytest.param({"params": {"max_output_tokens": None}}, None, id="the model's own limit"),
        pytest.param({"params": {"extra": {"tools": [{"type": "x"}]}}}, "extra.tools is billed by use", id="tools"),
        pytest.param({"params": {"extra": {"service_tier": "priority"}}}, "service tier priority", id="tier"),
        pytest.param({"params": {"extra": {"service_tier": ["flex"]}}}, "service tier ['flex']", id="no tier at all"),
        pytest.param({"params": {"extra": {"max_tokens": 99}}}, "two output limits", id="two limits"),
        pytest.param({"params": {"extra": {"prediction": {"type": "content"}}}}, "predicted wrongly", id="prediction"),
        pytest.param({"name": "gpt-5-search-api", "allow_unlisted": True}, "searches are billed", id="searches"),
        pytest.param(
            {"params": {"extra": {"cache_control": {"type": "ephemeral", "ttl": "1h"}}}}, "an hour", id="dear cache"
        ),
    ],
)
def test_a_budget_that_cannot_be_held_is_asked_about(prepared, model, gap):
    """Without a worst case nothing runs unless somebody agrees; without a budget nobody is asked."""
    job = prepared(model=model)
    asked = []
    if gap is None:
        assert budget_gap(job) is None
        agree_on_gap(job, lambda _gap: pytest.fail("asked"))
        return
    assert gap in budget_gap(job)
    with pytest.raises(ConfigError, match="run with --yes"):
        agree_on_gap(job, lambda text: asked.append(text) or False)
    agree_on_gap(job, lambda text: asked.append(text) or True)
    assert asked == [budget_gap(job)] * 2
    assert budget_gap(prepared(model=model, budget={"max_usd": None})) is None


def test_a_batch_has_a_worst_case_of_its_own(prepared):
    """Half the answer's price, where the price table says so."""
    real_time, batch = (worst_case_of(prepared(), processing) for processing in ("real_time", "batch"))
    assert isinstance(batch, WorstCase)
    assert 2 * batch.answer_units == real_time.answer_units


def test_a_plan_shows_budget_and_worst_case(prepared):
    """Keys are stable and money is text; without a budget there is nothing to show."""
    job = prepared()
    found = plan_budget(job, "real_time", 3, 120)
    worst = Decimal(found.pop("worst_case_usd"))
    assert found == {"max_usd": "1", "per": "output", "charged_usd": "0", "left_usd": "1", "unknown_runs": 0,
                     "unknown": None}  # fmt: skip
    assert Decimal("0.00036") < worst < Decimal("0.002")
    assert plan_budget(prepared(budget={"max_usd": None}), "real_time", 3, 120) is None
    unknown = plan_budget(prepared(model={"name": "no-such-model", "allow_unlisted": True}), "real_time", 3, 120)
    assert (unknown["worst_case_usd"], unknown["unknown"][:15]) == (None, "the price table")


def _manifest(run_id, cost, budget=None):
    return {"run_id": run_id, "cost_usd": cost, "job": {"budget": {"max_usd": budget}}}


def test_what_runs_without_a_budget_cost_is_booked_once(prepared):
    """A budget per output counts it; one per run does not; what nobody knows can't be booked."""
    ledger = prepared().ledger
    runs = [
        _manifest("r0", "0.25"),
        _manifest("r1", None),
        _manifest("rb", "0.5", "1"),  # which has booked its own
        {"run_id": "old", "cost_usd": "0.125", "job": {}},
    ]
    open_log(ledger, "rb", _BUDGET).settle("slice:rb.0", 500_000_000_000)
    for _ in range(2):
        settle_books(ledger, "r2", _BUDGET, runs)
    assert budget_facts(ledger, "r2", _BUDGET) == {
        "max_usd": "1",
        "per": "output",
        "charged_usd": "0.875",
        "left_usd": "0.125",
        "unknown_runs": 0,
    }
    assert budget_facts(ledger, "r3", BudgetSettings(max_usd=Decimal(1), per="run"))["left_usd"] == "1"


def test_a_log_that_was_removed_gives_no_budget_anew(prepared):
    """What the runs are known to have cost counts all the same, once, and as much as the log lacks of it."""
    ledger = prepared().ledger
    runs = [_manifest("r0", "0.25", "1"), _manifest("r1", "0.5", "1"), _manifest("free", "0.125")]
    for _ in range(2):
        settle_books(ledger, "r2", _BUDGET, runs)
        assert budget_facts(ledger, "r2", _BUDGET)["charged_usd"] == "0.875"
    settle_books(ledger, "r3", _BUDGET, [*runs, _manifest("r2", "0.01", "1")])
    assert budget_facts(ledger, "r3", _BUDGET)["left_usd"] == "0.115"


@pytest.mark.parametrize(
    ("max_usd", "says"),
    [
        pytest.param("1e60", "1e+60 is not allowed; give a number at most 1000000000000", id="more than there is"),
        pytest.param("1000000000000.01", "give a number at most 1000000000000", id="a cent too much"),
        pytest.param("0", "0 is not allowed; give a number greater than 0", id="nothing"),
        pytest.param("true", "true is no amount of US dollars; write a plain number, such as 25 or 0.50", id="a flag"),
        pytest.param("[]", "[] is no amount of US dollars; write", id="a list"),
        pytest.param("25 USD", '"25 USD" is no amount of US dollars; write', id="a unit"),
        pytest.param(".nan", "is no amount of US dollars; write", id="no number"),
        pytest.param("{usd: 25}", "is no amount of US dollars; write", id="keys"),
    ],
)
def test_what_is_no_budget_is_refused_when_the_job_is_read(prepared, max_usd, says):
    """In one line that names the key's path; the greatest amount passes."""
    with pytest.raises(ConfigError) as caught:
        prepared(f"budget.max_usd={max_usd}")
    line = str(caught.value)
    assert line.startswith("--set budget.max_usd: ")
    assert says in line
    assert "\n" not in line
    assert prepared("budget.max_usd=1000000000000").job.budget.max_usd == 10**12


def test_an_amount_that_no_log_can_keep_is_refused(prepared):
    """Before anything is sent, in one line, by plan and by run."""
    job = prepared("budget.max_usd=1e-13")
    for ask in (lambda: open_books(job), lambda: plan_budget(job, "real_time", 1, 1)):
        with pytest.raises(ConfigError, match=r"^budget.max_usd: .* is less than any request costs; raise it$"):
            ask()


def test_a_hold_whose_create_never_was_is_settled_by_the_next_run(prepared):
    """Killed between hold and intent: nothing can have been billed."""
    job = prepared()
    settings = job.call_settings
    budget = RunBudget(settings, make_provider(settings.model, settings.schema), PriceTable())
    ref = BatchRef("k" * 64, "b1", "r1", "asked", 10, 5000, 100)
    assert budget.has_room(ref, 0)
    assert budget.hold_batch(ref, 0)
    assert budget.hold_batch(ref, 0)
    # A bundle that died after its hold finds it again, and its own hold is no obstacle.
    assert budget.has_room(ref, 0)
    assert Decimal(budget_facts(job.ledger, "r2", _BUDGET)["charged_usd"]) > Decimal("0.0006")
    assert not budget.may_free("other")
    assert budget.explain_batch(ref).startswith("the budget of this output has no room: 0.00")
    settle_books(job.ledger, "r2", _BUDGET, [])
    assert budget_facts(job.ledger, "r2", _BUDGET)["charged_usd"] == "0"
    assert not budget.hold_batch(ref, 0)
    budget.close()


def test_results_are_added_up_once_and_what_has_none_is_unknown():
    """What an earlier try recorded counts once, and a request without a result may have been billed."""
    spend = BatchSpend(["a", "b", "c"], {"a": Decimal(1), "stranger": Decimal(9)})
    assert (spend.known_usd, spend.unknown) == (Decimal(1), {"b", "c"})
