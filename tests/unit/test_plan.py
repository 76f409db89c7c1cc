"""`rowbeam plan`: what a run would send and cost, without sending anything."""

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pipelines.estimate import Load, estimate_cost, estimate_time, output_range
from pipelines.job import load_job
from pipelines.plan import make_plan
from pipelines.plan_text import draw_plan
from pipelines.prepare import PreparedJob, prepare
from pipelines.text import money
from tests.unit.cli_outputs import make_call
from transforms.storage.inputs import read_rows
from transforms.storage.ledger import SegmentWriter

JOB: dict[str, Any] = {
    "name": "reviews",
    "input": {"path": "rows.csv", "key": ["id"]},
    "output": "out",
    "prompt": {"template": "Rate: {{ row.text }}"},
    "answer": {"field": "label"},
    "model": {
        "provider": "openai",
        "name": "gpt-4o-mini-2024-07-18",
        "params": {"max_output_tokens": 64},
        "entry": {"deprecated": None, "retired": None, "successor": None},  # served, whatever day it is
    },
}
ROWS = "id,text\nA,good\nB,bad\nC,good\n"


def prepared_job(folder: Path, rows: str = ROWS, **changes: Any) -> PreparedJob:
    """Write a job and its rows, and prepare it."""
    (folder / "rows.csv").write_text(rows, encoding="utf-8")
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB | changes), encoding="utf-8")
    return prepare(load_job(str(folder / "job.yaml")), "plan")


def drawn(plan: dict[str, Any], width: int) -> str:
    """Return the plan as a terminal of that width shows it."""
    console = Console(width=width, markup=False)
    with console.capture() as shown:
        draw_plan(plan, console)
    return shown.get()


def test_equal_questions_are_counted_once(tmp_path: Path) -> None:
    """Two of three rows ask the same: two requests."""
    plan = make_plan(prepared_job(tmp_path))
    assert plan["rows"] == {"in": 3, "asked": 3, "failed": 0}
    assert plan["requests"] == {"distinct": 2, "shared": 1, "reused": 0, "in_flight": 0, "to_send": 2}


def test_what_the_ledger_answers_is_not_sent(tmp_path: Path) -> None:
    """A settled request of an earlier run leaves the rest to send, and costs nothing."""
    job = prepared_job(tmp_path)
    first = next(row for row in read_rows(job.files[0], job.input, job.input_schema))
    asked = job.identity.request_id(job.template.render(first.values).prompt)  # type: ignore[union-attr, arg-type]
    with SegmentWriter(str(tmp_path / "out" / "ledger" / "answers"), "20261121T053412-000001") as segment:
        segment.append(make_call(0, "q", request_id=asked, root_request_id=asked))
    before = make_plan(job)
    after = make_plan(prepared_job(tmp_path))
    assert after["requests"] == {"distinct": 2, "shared": 1, "reused": 1, "in_flight": 0, "to_send": 1}
    assert Decimal(after["cost_usd"]["low"]) < Decimal(before["cost_usd"]["low"])


@pytest.mark.parametrize(
    ("rows", "kind", "count"),
    [
        pytest.param("id,text\nA,x\nA,y\nB,z\n", "duplicate_key", 2, id="key-of-two-contents"),
        pytest.param("id,text\n,x\nB,z\n", "missing_key", 1, id="no-key"),
        pytest.param("id,text\nA\nB,z\n", "malformed_row", 1, id="too-few-columns"),
    ],
)
def test_rows_that_fail_before_any_call_are_counted_with_examples(
    tmp_path: Path, rows: str, kind: str, count: int
) -> None:
    """Each kind comes with where it was seen and why."""
    plan = make_plan(prepared_job(tmp_path, rows))
    failure = plan["failures"][0]
    assert (failure["kind"], failure["rows"]) == (kind, count)
    assert failure["examples"][0]["source"].startswith("rows.csv:")
    assert plan["requests"]["to_send"] == 1


def test_a_damaged_file_is_warned_of(tmp_path: Path) -> None:
    """Before money is spent it is said that rows are missing, and of which file."""
    rows = "id,text\n" + "".join(f"{number},{number**7}\n" for number in range(20_000))
    whole = gzip.compress(rows.encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    plan = make_plan(prepared_job(tmp_path, input={"path": "cut.csv.gz", "key": ["id"]}))
    assert [entry["kind"] for entry in plan["failures"]] == ["damaged_file"]
    assert any(warning.startswith("cut.csv.gz can't be read to the end") for warning in plan["warnings"])


def test_a_line_without_a_key_that_the_template_uses_is_not_asked_about(tmp_path: Path) -> None:
    """As in a run: a null is asked about, an absent key is not, and one with a default is."""
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "A", "text": "x", "by": "ann"}\n{"id": "B", "text": null}\n{"id": "C"}\n', encoding="utf-8"
    )
    template = "Rate: {{ row.text }} by {{ row.by | default('anyone') }}"
    plan = make_plan(prepared_job(tmp_path, input={"path": "rows.jsonl", "key": ["id"]}, prompt={"template": template}))
    assert plan["rows"] == {"in": 3, "asked": 2, "failed": 1}
    assert [(one["stage"], one["kind"], one["rows"]) for one in plan["failures"]] == [("render", "missing_column", 1)]
    assert plan["failures"][0]["examples"][0]["source"] == "rows.jsonl:3"


def test_a_template_that_fails_on_a_row_is_counted(tmp_path: Path) -> None:
    """Other rows are asked all the same."""
    job = prepared_job(tmp_path, "id,text\nA,1\nB,x\n", prompt={"template": "{{ 2 / (row.text | int) }}"})
    plan = make_plan(job)
    assert [(failure["stage"], failure["rows"]) for failure in plan["failures"]] == [("render", 1)]


def test_same_key_and_same_content_is_no_failure(tmp_path: Path) -> None:
    """A repeated row keeps its place and shares its request."""
    plan = make_plan(prepared_job(tmp_path, "id,text\nA,x\nA,x\n"))
    assert plan["rows"]["failed"] == 0
    assert plan["requests"]["to_send"] == 1


def test_cost_is_a_range_from_short_answers_to_the_limit(tmp_path: Path) -> None:
    """The bounds and what is expected are exact products of the price table's rates; the input has its error."""
    plan = make_plan(prepared_job(tmp_path))
    tokens, rates = plan["tokens"], (Decimal("0.15"), Decimal("0.6"))
    for bound, counted in (("low", "input_low"), ("expected", "input"), ("high", "input_high")):
        usd = (rates[0] * tokens[counted] + rates[1] * tokens[f"output_{bound}"]) / 1_000_000
        assert Decimal(plan["cost_usd"][bound]) == usd
    assert tokens["output_high"] == 2 * 64
    assert tokens["input_low"] < tokens["input"] < tokens["input_high"]


def test_what_reuse_and_sharing_save_is_said_in_requests_tokens_and_dollars(tmp_path: Path) -> None:
    """One row of three shares a request of 8 tokens in and 64 out at most; 120 expected are cut at the limit."""
    saved = make_plan(prepared_job(tmp_path))["savings"]
    # "Rate: good" is 3 tokens and 4 of its frame: 7 x 0.15 + 64 x 0.60 = 39.45 millionths
    assert saved["shared"] == {"requests": 1, "input_tokens": 7, "output_tokens": 64, "usd": "0.00003945"}
    assert saved["reused"] == saved["in_flight"] == {"requests": 0, "input_tokens": 0, "output_tokens": 0, "usd": "0"}


def test_a_request_longer_than_the_context_is_warned_of(tmp_path: Path) -> None:
    """By the model's entry, with the answer's room, before anything is sent."""
    model = JOB["model"] | {"entry": JOB["model"]["entry"] | {"context_tokens": 1000}}
    plan = make_plan(prepared_job(tmp_path, f"id,text\nA,{'long ' * 1000}\n", model=model))
    assert plan["tokens"]["longest_input"] > 1000
    assert any("1,000 tokens of context" in warning for warning in plan["warnings"])
    assert [finding["code"] for finding in plan["model_findings"]] == ["context"]


@pytest.mark.parametrize(
    ("most", "says"),
    [
        pytest.param(25, "Budget: $25.0000 left of $25.0000 (all runs together); worst case $0.000", id="fits"),
        pytest.param(0.0001, "does not fit", id="does-not-fit"),
    ],
)
def test_the_budget_is_set_beside_the_worst_case(tmp_path: Path, most: float, says: str) -> None:
    """What is left, what all first tries may cost at most, and a warning where that is more."""
    plan = make_plan(prepared_job(tmp_path, budget={"max_usd": most}))
    is_too_small = Decimal(plan["budget"]["worst_case_usd"]) > Decimal(plan["budget"]["left_usd"])
    assert is_too_small is any("left of the budget" in warning for warning in plan["warnings"])
    assert says in " ".join(drawn(plan, 100).split())
    assert not (tmp_path / "out").exists()


def test_a_plan_without_a_price_says_unknown_and_why(tmp_path: Path) -> None:
    """Null in every place of money, and no dollar sign on the screen."""
    model = JOB["model"] | {"name": "nobody-knows", "allow_unlisted": True, "entry": None}
    plan = make_plan(prepared_job(tmp_path, model=model))
    reason = "the price table has no model nobody-knows of openai"
    for cost in (plan["cost_usd"], plan["batch"]["cost_usd"]):
        assert cost == {"low": None, "expected": None, "high": None, "unknown": reason}
    assert plan["savings"]["shared"]["usd"] is None
    shown = drawn(plan, 100)
    assert "$" not in shown
    assert reason in shown
    assert "unknown dollars" in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"input": {"path": "rows.csv"}}, "input.key names no column", id="identity-by-content"),
        pytest.param({"prompt": {"template": "Hello"}}, "every row asks the same", id="template-without-columns"),
        pytest.param({"model": JOB["model"] | {"params": {}}}, "max_output_tokens is not set", id="no-limit"),
        pytest.param(
            {"model": JOB["model"] | {"name": "nobody-knows", "entry": None, "allow_unlisted": True}},
            "the cost is unknown",
            id="no-price",
        ),
    ],
)
def test_what_may_surprise_is_warned_about(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """One warning names the key and what it means."""
    assert any(said in warning for warning in make_plan(prepared_job(tmp_path, **changes))["warnings"])


def test_a_plain_job_has_no_warnings(tmp_path: Path) -> None:
    """With key, limit and price there is nothing to say."""
    assert make_plan(prepared_job(tmp_path))["warnings"] == []


def test_the_plan_writes_nothing(tmp_path: Path) -> None:
    """No output folder appears."""
    make_plan(prepared_job(tmp_path))
    assert not (tmp_path / "out").exists()


def test_without_a_limit_on_answers_the_cost_has_no_upper_bound() -> None:
    """The reason is given in its place."""
    cost = estimate_cost("openai", "gpt-4o-mini-2024-07-18", Load(10, 1000, *output_range(None, 10)))
    assert cost["low"] is not None
    assert cost["high"] is None
    assert "max_output_tokens" in cost["unknown"]


def test_a_model_on_this_machine_costs_nothing() -> None:
    """Also without a limit on answers."""
    assert estimate_cost("llama_cpp", "any", Load(10, 1000, 80, None)) == {
        "low": "0", "expected": "0", "high": "0", "unknown": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "limited_by", "high_s"),
    [
        pytest.param({"max_in_flight": 10}, "10 in flight", 500.0, id="in-flight"),
        pytest.param({"requests_per_minute": 60}, "pool.requests_per_minute", 1000.0, id="requests-per-minute"),
        pytest.param({"tokens_per_minute": 60}, "pool.tokens_per_minute", 72_000.0, id="tokens-per-minute"),
    ],
)
def test_time_is_set_by_the_tightest_limit(
    tmp_path: Path, pool: dict[str, int], limited_by: str, high_s: float
) -> None:
    """1,000 requests of 8 tokens in and at most 64 out."""
    job = prepared_job(tmp_path, pool=pool).job
    time = estimate_time(job, Load(1000, 8000, 8000, 64_000))
    assert (time["limited_by"], time["high_s"]) == (limited_by, high_s)


def test_no_amount_is_cut_on_a_narrow_terminal(tmp_path: Path) -> None:
    """Both ways stand one below the other then, with their amounts and times whole."""
    plan = make_plan(prepared_job(tmp_path, "id,text\nA,x\n"))
    text = drawn(plan, 40)
    assert "…" not in text
    assert all(len(line) <= 40 for line in text.splitlines())
    for way in (plan["cost_usd"], plan["batch"]["cost_usd"]):
        assert all(money(way[part]) in text for part in ("expected", "low", "high"))


@pytest.mark.parametrize("width", [80, 120])
def test_the_plan_fits_the_terminal(tmp_path: Path, width: int) -> None:
    """No line is wider than the terminal."""
    text = drawn(make_plan(prepared_job(tmp_path, "id,text\nA,x\nA,y\nB,z\nC,z\n")), width)
    assert "Nothing was sent." in text
    assert all(len(line) <= width for line in text.splitlines())
