"""`rowbeam plan`: real time against the provider's batch API."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pipelines.estimate import Load, estimate_cost
from pipelines.job import load_job
from pipelines.plan import make_plan
from pipelines.plan_text import draw_plan
from pipelines.prepare import PreparedJob, prepare
from transforms.providers import make_batch_api, make_provider
from transforms.records.batch import BatchLimits
from transforms.records.errors import ConfigError
from transforms.records.request import Lane
from transforms.rules.fingerprint import custom_id
from transforms.storage.batch_entry import Intent, Staged
from transforms.storage.batch_ledger import create_intent, members_path, write_staged
from transforms.storage.batch_members import MemberLine, member_line

PARAMS = {"params": {"max_output_tokens": 64}}
AZURE = {
    "provider": "azure_openai",
    "name": "gpt-4o",
    "deployment": "here",
    "base_url": "https://example.openai.azure.com",
}
MODELS: dict[str, dict[str, Any]] = {
    "openai": {"provider": "openai", "name": "gpt-4o-mini-2024-07-18"} | PARAMS,
    "anthropic": {"provider": "anthropic", "name": "claude-haiku-4-5"} | PARAMS,
    "openrouter": {"provider": "openrouter", "name": "openai/gpt-4o-mini"} | PARAMS,
    "azure": AZURE | {"batch_deployment": "there"} | PARAMS,
    "azure without a batch deployment": AZURE | PARAMS,
    "llama_cpp": {"provider": "llama_cpp", "name": "m"} | PARAMS,
}


def prepared_job(folder: Path, model: str, rows: int, **batching: Any) -> PreparedJob:
    """Write a job of so many distinct questions, and prepare it."""
    job = {
        "name": "reviews",
        "input": {"path": "rows.csv", "key": ["id"]},
        "output": "out",
        "prompt": {"template": "Rate: {{ row.text }}"},
        "answer": {"field": "label"},
        "model": MODELS[model],
        "batching": batching,
    }
    (folder / "rows.csv").write_text("id,text\n" + "".join(f"{n},text {n}\n" for n in range(rows)), encoding="utf-8")
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return prepare(load_job(str(folder / "job.yaml")), "plan")


def drawn(plan: dict[str, Any], width: int = 100) -> str:
    """Return the plan as a terminal shows it."""
    console = Console(width=width, markup=False)
    with console.capture() as shown:
        draw_plan(plan, console)
    return shown.get()


@pytest.mark.parametrize(
    ("model", "batching", "rows", "chosen", "why"),
    [
        pytest.param("openai", {}, 30, "real_time", "batching.mode is per_request", id="default"),
        pytest.param("openai", {"mode": "serial_bundle"}, 30, "real_time", "batching.mode is serial_bundle", id="bundles"),
        pytest.param("openai", {"mode": "provider_batch_api"}, 3, "batch", "batching.mode is provider_batch_api", id="batch"),
        pytest.param("openai", {"mode": "auto"}, 20, "batch", "20 requests, and batching.threshold is 20", id="auto, many"),
        pytest.param("openai", {"mode": "auto"}, 19, "real_time", "19 requests, and batching.threshold is 20", id="auto, few"),
        pytest.param("llama_cpp", {"mode": "auto"}, 30, "real_time", "llama_cpp has no batch API", id="auto, no API"),
        pytest.param("openai", {"mode": "auto", "allowed_providers": ["anthropic"]}, 30, "real_time",
                     "batching.allowed_providers leaves out openai", id="auto, not allowed"),
    ],
)  # fmt: skip
def test_the_plan_says_which_way_requests_would_go(
    tmp_path: Path, model: str, batching: dict[str, Any], rows: int, chosen: str, why: str
) -> None:
    """By the job's mode, the number of requests, and what the provider has; and why."""
    plan = make_plan(prepared_job(tmp_path, model, rows, **batching))
    assert plan["route"] == {"mode": batching.get("mode", "per_request"), "chosen": chosen, "why": why}
    word = "by batch" if chosen == "batch" else "in real time"
    assert f"Goes {word}: {why}." in " ".join(drawn(plan).split())


def test_real_time_and_batch_stand_side_by_side_in_dollars(tmp_path: Path) -> None:
    """Whichever way the requests go: half the price, for this model, in both bounds."""
    for mode in ("per_request", "provider_batch_api"):
        plan = make_plan(prepared_job(tmp_path, "openai", 30, mode=mode))
        for bound in ("low", "high"):
            assert Decimal(plan["batch"]["cost_usd"][bound]) * 2 == Decimal(plan["cost_usd"][bound])
        assert plan["time"]["limited_by"] == "30 in flight"


@pytest.mark.parametrize(
    ("model", "usual_s", "at_most_s", "says"),
    [
        pytest.param("openai", None, 86_400, "at most 24 h", id="openai"),
        pytest.param("anthropic", 3600, 86_400, "usually within 1 h, at most 24 h", id="anthropic"),
        pytest.param("openrouter", None, None, "24 h is OpenRouter's window", id="openrouter"),
        pytest.param("azure", None, None, "24 h is Azure's target", id="azure"),
    ],
)
def test_the_time_of_a_batch_is_in_the_providers_words(
    tmp_path: Path, model: str, usual_s: int | None, at_most_s: int | None, says: str
) -> None:
    """No number that the provider's documentation does not have, and beside it the job's own deadline."""
    time = make_plan(prepared_job(tmp_path, model, 30, mode="auto", deadline="2h"))["batch"]["time"]
    assert (time["usual_s"], time["at_most_s"], time["deadline_s"]) == (usual_s, at_most_s, 7200.0)
    assert time["says"].startswith(says)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param("openrouter", "the price table has no batch price of openai/gpt-4o-mini of openrouter", id="openrouter"),
        pytest.param("azure", "the price table has no batch price of gpt-4o of azure.ai.openai", id="azure"),
    ],
)  # fmt: skip
def test_an_unknown_batch_price_is_said_and_warned_of_where_it_matters(tmp_path: Path, model: str, reason: str) -> None:
    """Real time has its price all the same; the warning comes when the job goes by batch."""
    plan = make_plan(prepared_job(tmp_path, model, 30))
    assert plan["batch"]["cost_usd"] == {"low": None, "expected": None, "high": None, "unknown": reason}
    assert plan["cost_usd"]["low"] is not None
    assert not any(reason in warning for warning in plan["warnings"])
    plan = make_plan(prepared_job(tmp_path, model, 30, mode="provider_batch_api"))
    assert f"the cost is unknown: {reason}" in plan["warnings"]


def test_a_model_of_no_price_at_all_is_no_matter_of_batches() -> None:
    """The reason names what is missing."""
    cost = estimate_cost("openai", "nobody-knows", Load(1, 100, 8, 64), "batch")
    assert cost["unknown"] == "the price table has no model nobody-knows of openai"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param("llama_cpp", "llama_cpp has no batch API", id="no such API"),
        pytest.param("azure without a batch deployment", "model.batch_deployment: ", id="a setting that it needs"),
    ],
)
def test_without_a_batch_api_the_keys_stay_and_say_why(tmp_path: Path, model: str, reason: str) -> None:
    """A job that goes real time needs none."""
    plan = make_plan(prepared_job(tmp_path, model, 30))
    batch = plan["batch"]
    assert list(batch) == ["available", "unavailable", "cost_usd", "batches", "max_requests", "time"]
    assert batch["unavailable"].startswith(reason)
    assert (batch["available"], batch["batches"], batch["max_requests"], batch["time"]) == (False, None, None, None)
    assert "not possible: " in drawn(plan)


@pytest.mark.parametrize("mode", ["provider_batch_api", "auto"])
def test_a_job_that_may_go_by_batch_needs_its_settings(tmp_path: Path, mode: str) -> None:
    """Going real time instead would cost twice what its author thinks."""
    with pytest.raises(ConfigError, match=r"model\.batch_deployment"):
        prepared_job(tmp_path, "azure without a batch deployment", 1, mode=mode)
    others = {"mode": "auto", "allowed_providers": ["openai"]}
    assert prepared_job(tmp_path, "azure without a batch deployment", 1, **others).batch_limits is None


@pytest.mark.parametrize(
    ("model", "batching", "rows", "batches", "max_requests"),
    [
        pytest.param("openai", {}, 30, 1, 47_500, id="one"),
        pytest.param("openrouter", {}, 30, 1, 4750, id="the provider's limit"),
        pytest.param("openai", {"max_requests": 30}, 30, 1, 30, id="full"),
        # 30 - 4 x 5.5 is less than half: 15 a share
        pytest.param("openai", {"max_requests": 30}, 31, 3, 30, id="the job's limit"),
    ],
)
def test_batches_are_counted_by_the_smaller_limit(
    tmp_path: Path, model: str, batching: dict[str, Any], rows: int, batches: int, max_requests: int
) -> None:
    """The provider's, headroom taken off, or the job's."""
    batch = make_plan(prepared_job(tmp_path, model, rows, mode="auto", **batching))["batch"]
    assert (batch["batches"], batch["max_requests"]) == (batches, max_requests)


@pytest.mark.parametrize(("spare", "batches"), [pytest.param(0, 1, id="fits"), pytest.param(-1, 2, id="one too many")])
def test_batches_are_counted_by_bytes_too(tmp_path: Path, spare: int, batches: int) -> None:
    """A request file has a line for each request, newline included, and no more bytes than one batch may have."""
    job = prepared_job(tmp_path, "anthropic", 30, mode="auto")
    provider = make_provider(job.job.model, None)
    api = make_batch_api(job.job.model, None, provider)
    assert api is not None
    prompts = [job.template.render({"text": f"text {number}"}).prompt for number in range(30)]
    lines = [api.line(custom_id("r", "f" * 64), provider.body(prompt)) + b"\n" for prompt in prompts]
    job = replace(job, batch_limits=BatchLimits(1000, len(b"".join(lines)) + spare))
    assert make_plan(job)["batch"]["batches"] == batches


def stage(job: PreparedJob, key: str, numbers: range, address: str) -> Intent:
    """Stage a batch with the questions of these rows; return the intent whose recording sends it."""
    asked = [job.identity.request_id(job.template.render({"text": f"text {number}"}).prompt) for number in numbers]
    lines = [MemberLine(f"c-{name}", name, name, Lane.MAIN, "p", "t", "v", None, 0, 0) for name in asked]
    path = Path(members_path(job.ledger, key))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(member_line, lines)))
    mode, nonce, count = "provider_batch_api", "c" * 8, len(asked)
    write_staged(job.ledger, Staged(key, "b1", "r1", nonce, "m", "openai", mode, count, 1, 1, 1_795_000_000.0, address))
    return Intent(key, 0, "r1", nonce, count, 1_795_000_001.0)


def test_what_waits_in_a_batch_is_not_sent(tmp_path: Path) -> None:
    """Requests of a batch in flight are not to send; those of one that is only staged, or of another address, are."""
    job = prepared_job(tmp_path, "openai", 30, mode="auto")
    ours = stage(job, "a" * 64, range(12), job.provider_address[1])
    create_intent(job.ledger, stage(job, "b" * 64, range(12, 20), "http://127.0.0.1:8400/v1"))
    assert make_plan(job)["requests"]["in_flight"] == 0
    create_intent(job.ledger, ours)
    plan = make_plan(job)
    assert plan["requests"] == {"distinct": 30, "shared": 0, "reused": 0, "in_flight": 12, "to_send": 18}
    assert plan["route"]["chosen"] == "real_time"
    assert "18 to send" in drawn(plan)
    assert "12 in batches of an earlier run: about $" in drawn(plan)
    assert plan["savings"]["in_flight"]["requests"] == 12


@pytest.mark.parametrize(
    ("batching", "said"),
    [
        pytest.param({"enqueued_tokens": 10}, "batching.enqueued_tokens lets 10 tokens wait at a time", id="tokens"),
        pytest.param({"max_requests": 1, "batches_per_hour": 5}, "batching.batches_per_hour is 5", id="creates"),
    ],
)
def test_batches_that_wait_for_each_other_are_warned_of(tmp_path: Path, batching: dict[str, Any], said: str) -> None:
    """The provider's words are about one batch; in real time it does not matter."""
    plan = make_plan(prepared_job(tmp_path, "openai", 30, mode="auto", **batching))
    assert any(warning.startswith(said) for warning in plan["warnings"])
    plan = make_plan(prepared_job(tmp_path, "openai", 30, mode="auto", threshold=31, **batching))
    assert not any(warning.startswith(said) for warning in plan["warnings"])


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("width", [80, 120])
def test_the_comparison_fits_the_terminal(tmp_path: Path, model: str, width: int) -> None:
    """No line is wider than the terminal, and nothing to send is said in few words."""
    text = drawn(make_plan(prepared_job(tmp_path, model, 30)), width)
    assert "Real time" in text
    assert all(len(line) <= width for line in text.splitlines())
    assert "no calls to wait for" in drawn(make_plan(prepared_job(tmp_path, model, 0)), width)
