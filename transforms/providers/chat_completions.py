"""The chat-completions wire: request bodies and the reading of answers (providers.md 2.2, 12.4, 12.5)."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from transforms.providers.classify import call_error, unreadable
from transforms.providers.reading import count, first, mapping, tier, words
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, FinishReason, HttpResponse, Reply
from transforms.records.request import Prompt
from transforms.records.settings import ModelSettings
from transforms.records.usage import Usage

PATH = "/chat/completions"

_FINISH: Mapping[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALL,
    "function_call": FinishReason.TOOL_CALL,
    "content_filter": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "error": FinishReason.ERROR,
    "abort": FinishReason.ERROR,
    "cancelled": FinishReason.ERROR,
}

_KINDS: Mapping[FinishReason, FailureKind] = {
    FinishReason.LENGTH: FailureKind.TRUNCATED,
    FinishReason.CONTENT_FILTER: FailureKind.CONTENT_FILTERED,
    FinishReason.REFUSAL: FailureKind.REFUSAL,
}


def static_body(
    settings: ModelSettings, model: str, response_format: dict[str, Any] | None, limit_key: str
) -> dict[str, Any]:
    """Return what all requests of a job share.

    Args:
        settings: the job's `model`.
        model: the model's name on the wire.
        response_format: the answer's schema in the provider's form, or None for free text.
        limit_key: max_completion_tokens, or max_tokens for servers that know only that.
    """
    params = settings.params
    fields = {
        "model": model,
        limit_key: params.max_output_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "seed": params.seed,
        "stop": params.stop,
        "reasoning_effort": params.reasoning_effort,
        "response_format": response_format,
    }
    return {key: value for key, value in fields.items() if value is not None} | params.extra


def schema_format(schema: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    """Return the response_format that asks for JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": strict, "schema": schema}}


def fill(static: dict[str, Any], prompt: Prompt) -> dict[str, Any]:
    """Return the body of one request: a shallow copy of the shared part and the messages."""
    messages = [{"role": role, "content": text} for role, text in prompt.turns]
    if prompt.system is not None:
        messages.insert(0, {"role": "system", "content": prompt.system})
    return {**static, "messages": messages}


def read_usage(value: Any) -> Usage:
    """Return the counters of a `usage` object; what is absent stays None."""
    usage = mapping(value)
    details = mapping(usage.get("prompt_tokens_details"))
    return Usage(
        count(usage.get("prompt_tokens")),
        count(usage.get("completion_tokens")),
        count(details.get("cached_tokens")),
        count(details.get("cache_write_tokens")),
        count(mapping(usage.get("completion_tokens_details")).get("reasoning_tokens")),
    )


def read_text(content: Any) -> str | None:
    """Return a message's text: a string, or the text parts of a list joined."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [mapping(part).get("text") for part in content]
        return "".join(text for text in texts if isinstance(text, str)) or None
    return None


def read_answer(data: Any, response: HttpResponse, cost_usd: Decimal | None = None) -> Reply | CallError:
    """Return the outcome of a 2xx body that holds no error object; cost_usd is what the provider says it cost.

    A missing finish reason, or one that nobody has heard of, counts as a normal stop if there is text. No choices, or
    a normal stop without text, is INVALID_RESPONSE and may be billed.
    """
    body = mapping(data)
    choice = first(body.get("choices"))
    message = mapping(choice.get("message"))
    raw = words(choice.get("finish_reason"))
    refusal = words(message.get("refusal"))
    finish = FinishReason.REFUSAL if refusal else _FINISH.get((raw or "stop").lower(), FinishReason.STOP)
    text = read_text(message.get("content"))
    usage = read_usage(body.get("usage"))
    kind = _KINDS.get(finish)
    if kind is None:
        if finish is FinishReason.ERROR:
            said = f"the provider broke off the answer (finish reason {raw})"
            error = call_error(
                FailureKind.SERVER_ERROR, said, response, code=raw, usage=usage, may_be_billed=text is not None
            )
            return _with_price(error, body, cost_usd)
        if text is None:
            return _with_price(unreadable(response, data, usage, _lack(choice, message)), body, cost_usd)
        kind = FailureKind.OK
    return Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=raw,
        response_model=words(body.get("model")),
        usage=usage,
        response_id=words(body.get("id")),
        provider_cost_usd=cost_usd,
        explanation=refusal,
        service_tier=tier(body.get("service_tier")),
    )


def _with_price(error: CallError, body: Mapping[str, Any], cost_usd: Decimal | None) -> CallError:
    """Return the error of a call that was run with what its price depends on."""
    return replace(
        error,
        response_model=words(body.get("model")),
        provider_cost_usd=cost_usd,
        service_tier=tier(body.get("service_tier")),
    )


def _lack(choice: Mapping[str, Any], message: Mapping[str, Any]) -> str | None:
    if message.get("tool_calls") or message.get("function_call"):
        return "a tool call in place of an answer"
    return "a message without text" if choice else None
