"""From a provider's own response body to dollars: every usage formula of providers.md 12.5, worked by hand.

Each case is a body as the provider sends it, read by that provider's reader and priced as a run prices it. The
comment above it multiplies tokens by the provider's list price in dollars per million tokens, so in millionths.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest

from transforms.providers import make_provider
from transforms.records.call import Cost, CostSource
from transforms.records.reply import HttpResponse, Reply
from transforms.records.settings import ModelSettings
from transforms.records.usage import Usage
from transforms.rules.price import PriceTable, Processing

#: A day on which the table knows the batch prices of OpenAI and Anthropic.
AT = datetime(2026, 11, 21, tzinfo=UTC)
PRICES = PriceTable()

OPENAI = {"provider": "openai", "name": "gpt-4o-mini-2024-07-18"}
RESPONSES = OPENAI | {"api": "responses"}
AZURE = {
    "provider": "azure_openai",
    "name": "gpt-4o",
    "deployment": "ours",
    "base_url": "https://example.openai.azure.com",
}
ANTHROPIC = {"provider": "anthropic", "name": "claude-haiku-4-5"}
OPENROUTER = {"provider": "openrouter", "name": "openai/gpt-4o-mini"}
COMPATIBLE = {"provider": "openai_compatible", "name": "qwen", "base_url": "http://localhost:8000/v1"}
LOCAL = {"provider": "llama_cpp", "name": "SmolLM2"}


def chat(usage: Any, model: str = "gpt-4o-mini-2024-07-18", **more: Any) -> dict[str, Any]:
    """Return a chat completion."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes", "refusal": None}}
    return {"id": "c1", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage} | more


def response(usage: Any, **more: Any) -> dict[str, Any]:
    """Return a Response object."""
    part = {"type": "output_text", "text": "yes", "annotations": []}
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [part], "status": "completed"},
    ]
    return {
        "id": "r1",
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4o-mini-2024-07-18",
        "output": output,
        "usage": usage,
    } | more


def message(usage: Any, model: str = "claude-haiku-4-5-20251001") -> dict[str, Any]:
    """Return an Anthropic Message."""
    return {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "yes"}],
        "stop_reason": "end_turn",
        "usage": usage,
    }


def priced(
    settings: dict[str, Any], body: dict[str, Any], processing: Processing = "real_time", at: datetime = AT
) -> tuple[Usage, Cost]:
    """Read a body with the provider's reader, and price what it says as a run does."""
    provider = make_provider(ModelSettings(**settings), None)
    reply = provider.read(HttpResponse(200, {}, orjson.dumps(body)))
    assert isinstance(reply, Reply)
    cost = PRICES.cost(
        provider.name,
        provider.price_model,
        reply.response_model,
        reply.usage,
        reply.provider_cost_usd,
        service_tier=reply.service_tier,
        at=at,
        processing=processing,
    )
    return reply.usage, cost


FULL_CHAT = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0},
}
FULL_RESPONSE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 200},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 20},
    "total_tokens": 1050,
}
#: Anthropic keeps the three kinds of input apart.
FULL_MESSAGE = {
    "input_tokens": 500,
    "cache_creation_input_tokens": 200,
    "cache_read_input_tokens": 300,
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 30},
    "service_tier": "standard",
}


@pytest.mark.parametrize(
    ("settings", "body", "usage", "usd"),
    [
        # 0.15 in, 0.60 out: 1,000 x 0.15 + 50 x 0.60 = 150 + 30 = 180
        pytest.param(OPENAI, chat({"prompt_tokens": 1000, "completion_tokens": 50}), Usage(1000, 50), "0.00018", id="chat"),
        # cached 0.075, a part of the input: 800 x 0.15 + 200 x 0.075 + 50 x 0.60 = 120 + 15 + 30 = 165;
        # reasoning is a part of the output and is not added to it
        pytest.param(OPENAI, chat(FULL_CHAT), Usage(1000, 50, 200, None, 20), "0.000165", id="chat, cached and reasoning"),
        # OpenAI has no price of its own for writing to the cache: 1,000 x 0.15 + 50 x 0.60 = 180
        pytest.param(
            OPENAI,
            chat({"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": {"cache_write_tokens": 300}}),
            Usage(1000, 50, None, 300),
            "0.00018",
            id="chat, cache written",
        ),
        # gpt-5: 1.25 in, 0.125 cached, 10 out: 800 x 1.25 + 200 x 0.125 + 50 x 10 = 1,000 + 25 + 500 = 1,525
        pytest.param(
            OPENAI | {"name": "gpt-5"}, chat(FULL_CHAT, "gpt-5-2025-08-07"), Usage(1000, 50, 200, None, 20), "0.001525",
            id="chat, a reasoning model",
        ),
        pytest.param(OPENAI, chat(FULL_CHAT, service_tier="default"), Usage(1000, 50, 200, None, 20), "0.000165", id="chat, default tier"),
        # asked for gpt-5, answered by gpt-4o-mini: who answered is paid, 120 + 15 + 30 = 165
        pytest.param(OPENAI | {"name": "gpt-5"}, chat(FULL_CHAT), Usage(1000, 50, 200, None, 20), "0.000165", id="chat, by another model"),
        # as chat: 800 x 0.15 + 200 x 0.075 + 50 x 0.60 = 165
        pytest.param(RESPONSES, response(FULL_RESPONSE), Usage(1000, 50, 200, None, 20), "0.000165", id="responses"),
        # 1,000 x 0.15 + 50 x 0.60 = 180
        pytest.param(RESPONSES, response({"input_tokens": 1000, "output_tokens": 50}), Usage(1000, 50), "0.00018", id="responses, no details"),
        # cut off, and paid for: 1,000 x 0.15 + 64 x 0.60 = 150 + 38.4 = 188.4
        pytest.param(
            RESPONSES,
            response({"input_tokens": 1000, "output_tokens": 64}, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Usage(1000, 64),
            "0.0001884",
            id="responses, incomplete",
        ),
        # gpt-4o: 2.50 in, 1.25 cached, 10 out: 800 x 2.50 + 200 x 1.25 + 50 x 10 = 2,000 + 250 + 500 = 2,750
        pytest.param(AZURE, chat(FULL_CHAT, "gpt-4o-2024-11-20"), Usage(1000, 50, 200, None, 20), "0.00275", id="azure"),
        pytest.param(
            AZURE | {"api": "responses"}, response(FULL_RESPONSE, model="gpt-4o-2024-11-20"), Usage(1000, 50, 200, None, 20), "0.00275",
            id="azure, responses",
        ),
        # 1 in, 5 out: 500 x 1 + 40 x 5 = 700
        pytest.param(ANTHROPIC, message({"input_tokens": 500, "output_tokens": 40}), Usage(500, 40), "0.0007", id="anthropic"),
        # 1 in, 1.25 written, 0.10 read, 5 out; the input is the sum of three, thinking is a part of the output:
        # 500 x 1 + 200 x 1.25 + 300 x 0.10 + 40 x 5 = 500 + 250 + 30 + 200 = 980
        pytest.param(ANTHROPIC, message(FULL_MESSAGE), Usage(1000, 40, 300, 200, 30), "0.00098", id="anthropic, cache and thinking"),
        # the step at 200,000 counts cached input too: 100,000 + 100,001 tokens are above it: 6 in, 0.60 read, 22.50 out:
        # 100,000 x 6 + 100,001 x 0.60 + 10 x 22.50 = 600,000 + 60,000.6 + 225 = 660,225.6
        pytest.param(
            ANTHROPIC | {"name": "claude-sonnet-4-5"},
            message({"input_tokens": 100_000, "cache_read_input_tokens": 100_001, "output_tokens": 10}, "claude-sonnet-4-5-20250929"),
            Usage(200_001, 10, 100_001),
            "0.6602256",
            id="anthropic, long context",
        ),
        # 1,000 x 0.15 + 50 x 0.60 = 180, by the list: no usage.cost came
        pytest.param(
            OPENROUTER, chat({"prompt_tokens": 1000, "completion_tokens": 50}, "openai/gpt-4o-mini"), Usage(1000, 50), "0.00018",
            id="openrouter, without a cost",
        ),
    ],
)  # fmt: skip
def test_tokens_are_counted_as_the_provider_means_them_and_priced_once(
    settings: dict[str, Any], body: dict[str, Any], usage: Usage, usd: str
) -> None:
    """The reader gives the formula's counters, and the price table multiplies each token once."""
    found, cost = priced(settings, body)
    assert found == usage
    assert (cost.usd, cost.source) == (Decimal(usd), CostSource.PRICE_TABLE)


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        pytest.param({"cost": 0.000123456789}, "0.000123456789", id="stated"),
        pytest.param({"cost": 0}, "0", id="free"),
        pytest.param({"cost": 1e-7}, "0.0000001", id="tiny"),
        # with one's own upstream key: OpenRouter's fee and the upstream's bill, 0.000009 + 0.00018
        pytest.param({"cost": 0.000009, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.00018}}, "0.000189", id="own-key"),
    ],
)  # fmt: skip
def test_what_openrouter_says_it_charged_comes_before_any_list(usage: dict[str, Any], usd: str) -> None:
    """usage.cost, digit by digit, whatever the tokens would come to."""
    _, cost = priced(OPENROUTER, chat({"prompt_tokens": 10, "completion_tokens": 1} | usage, "openai/gpt-4o-mini"))
    assert (cost.usd, cost.source) == (Decimal(usd), CostSource.PROVIDER)


@pytest.mark.parametrize(
    ("settings", "body", "usd"),
    [
        # half of 0.15 and 0.60; cached input stays at the standard 0.075, which is what a batch's input costs:
        # 800 x 0.075 + 200 x 0.075 + 50 x 0.30 = 60 + 15 + 15 = 90
        pytest.param(OPENAI, chat(FULL_CHAT), "0.00009", id="chat"),
        # 1,000 x 0.075 + 50 x 0.30 = 90
        pytest.param(RESPONSES, response({"input_tokens": 1000, "output_tokens": 50}), "0.00009", id="responses"),
        # half of each: 500 x 0.50 + 200 x 0.625 + 300 x 0.05 + 40 x 2.50 = 250 + 125 + 15 + 100 = 490
        pytest.param(ANTHROPIC, message(FULL_MESSAGE | {"service_tier": "batch"}), "0.00049", id="anthropic"),
    ],
)
def test_a_batch_costs_half(settings: dict[str, Any], body: dict[str, Any], usd: str) -> None:
    """The discount is the list's own, rate by rate."""
    _, cost = priced(settings, body, "batch")
    assert (cost.usd, cost.source) == (Decimal(usd), CostSource.PRICE_TABLE)


@pytest.mark.parametrize(
    ("settings", "body", "processing", "reason"),
    [
        pytest.param(OPENAI, chat(None), "real_time", "no token counts", id="chat without usage"),
        pytest.param(OPENAI, chat({"prompt_tokens": 1000}), "real_time", "no token counts", id="chat without output"),
        pytest.param(OPENAI, chat({"completion_tokens": 50}), "real_time", "no token counts", id="chat without input"),
        pytest.param(OPENAI, chat({"prompt_tokens": "1000", "completion_tokens": 50}), "real_time", "no token counts", id="a count as text"),
        pytest.param(RESPONSES, response({"output_tokens": 50}), "real_time", "no token counts", id="responses without input"),
        pytest.param(ANTHROPIC, message({"cache_read_input_tokens": 300, "output_tokens": 40}), "real_time", "no token counts", id="anthropic without fresh input"),
        pytest.param(OPENAI, chat(FULL_CHAT, service_tier="flex"), "real_time", "service tier flex", id="flex"),
        pytest.param(OPENAI, chat(FULL_CHAT, service_tier="priority"), "real_time", "service tier priority", id="priority"),
        pytest.param(RESPONSES, response(FULL_RESPONSE, service_tier="Scale"), "real_time", "service tier scale", id="scale"),
        pytest.param(ANTHROPIC, message(FULL_MESSAGE | {"service_tier": "priority"}), "real_time", "service tier priority", id="anthropic priority"),
        # a real-time answer that says it ran as a batch has no standard price
        pytest.param(ANTHROPIC, message(FULL_MESSAGE | {"service_tier": "batch"}), "real_time", "service tier batch", id="batch tier in real time"),
        pytest.param(OPENAI | {"name": "gpt-none"}, chat(FULL_CHAT, "gpt-none"), "real_time", "no model gpt-none", id="no such model"),
        pytest.param(COMPATIBLE, chat(FULL_CHAT, "qwen"), "real_time", "no prices are known", id="own server"),
        pytest.param(AZURE, chat(FULL_CHAT, "gpt-4o"), "batch", "no batch price", id="azure batch"),
        pytest.param(OPENROUTER, chat(FULL_CHAT, "openai/gpt-4o-mini"), "batch", "no batch price", id="openrouter batch"),
    ],
)  # fmt: skip
def test_what_cannot_be_priced_is_unknown_with_its_reason(
    settings: dict[str, Any], body: dict[str, Any], processing: Processing, reason: str
) -> None:
    """A missing counter, another tier, an unlisted model: null and a reason, never 0."""
    _, cost = priced(settings, body, processing)
    assert (cost.usd, cost.source) == (None, CostSource.UNKNOWN)
    assert reason in (cost.reason or "")


def test_a_missing_counter_stays_missing() -> None:
    """What a server does not say is None, never 0, and the rest is kept."""
    assert priced(COMPATIBLE, chat({"prompt_tokens": 12}))[0] == Usage(12)
    assert priced(LOCAL, chat(None))[0] == Usage()


def test_a_local_model_is_not_billed_whatever_it_counts() -> None:
    """0 dollars with a reason: the one zero that is true."""
    _, cost = priced(LOCAL, chat(FULL_CHAT, "SmolLM2"))
    assert (cost.usd, cost.source) == (0, CostSource.NOT_BILLED)


def test_the_day_of_the_call_decides_the_price() -> None:
    """A batch before the day from which the list knows its price has none."""
    _, cost = priced(OPENAI, chat(FULL_CHAT), "batch", datetime(2026, 10, 1, tzinfo=UTC))
    assert cost.usd is None
    assert "only from 2026-10-14" in (cost.reason or "")


def test_a_part_of_an_openrouter_bill_is_not_taken_for_the_whole() -> None:
    """With one's own upstream key and no word on that bill, the list's price counts: 10 x 0.15 + 1 x 0.60 = 2.1."""
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "cost": 0.0000001, "is_byok": True}
    _, cost = priced(OPENROUTER, chat(usage, "openai/gpt-4o-mini"))
    assert (cost.usd, cost.source) == (Decimal("0.0000021"), CostSource.PRICE_TABLE)
