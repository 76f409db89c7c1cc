"""The Responses wire: request bodies and the reading of answers (providers.md 2.3)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transforms.providers.classify import call_error, error_words, openai_kind, unreadable
from transforms.providers.reading import count, mapping, plain, tier, words
from transforms.providers.settings_check import refuse_param
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, FinishReason, HttpResponse, Reply
from transforms.records.request import Prompt
from transforms.records.settings import ModelSettings
from transforms.records.usage import Usage

PATH = "/responses"


def static_body(settings: ModelSettings, model: str, text_format: dict[str, Any] | None) -> dict[str, Any]:
    """Return what all requests of a job share; ConfigError for parameters that the Responses API lacks."""
    for name in ("seed", "stop"):
        refuse_param(settings, name, "the Responses API has none; remove it or set model.api: chat_completions")
    params = settings.params
    fields = {
        "model": model,
        "max_output_tokens": params.max_output_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "reasoning": None if params.reasoning_effort is None else {"effort": params.reasoning_effort},
        "text": None if text_format is None else {"format": text_format},
    }
    return {key: value for key, value in fields.items() if value is not None} | params.extra


def schema_format(schema: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    """Return the text.format that asks for JSON of this schema."""
    return {"type": "json_schema", "name": "answer", "strict": strict, "schema": schema}


def fill(static: dict[str, Any], prompt: Prompt) -> dict[str, Any]:
    """Return the body of one request: a shallow copy of the shared part, instructions and input."""
    body = {**static, "input": [{"role": role, "content": text} for role, text in prompt.turns]}
    if prompt.system is not None:
        body["instructions"] = prompt.system
    return body


def read_usage(value: Any) -> Usage:
    """Return the counters of a `usage` object; what is absent stays None."""
    usage = mapping(value)
    details = mapping(usage.get("input_tokens_details"))
    return Usage(
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
        count(details.get("cached_tokens")),
        count(details.get("cache_write_tokens")),
        count(mapping(usage.get("output_tokens_details")).get("reasoning_tokens")),
    )


def read_answer(data: Any, response: HttpResponse) -> Reply | CallError:
    """Return the outcome of a 2xx body: a Response object of any status."""
    outcome = _read_status(data, response)
    if isinstance(outcome, Reply):
        return outcome
    body = mapping(data)
    return replace(outcome, response_model=words(body.get("model")), service_tier=tier(body.get("service_tier")))


def _read_status(data: Any, response: HttpResponse) -> Reply | CallError:
    body = mapping(data)
    status = body.get("status")
    if status == "failed":
        return _failed(data, response, read_usage(body.get("usage")))
    text, refusal = _read_output(body.get("output"))
    if status == "incomplete":
        reason = words(mapping(body.get("incomplete_details")).get("reason")) or "incomplete"
        filtered = reason == "content_filter"
        kind = FailureKind.CONTENT_FILTERED if filtered else FailureKind.TRUNCATED
        finish = FinishReason.CONTENT_FILTER if filtered else FinishReason.LENGTH
        return _reply(body, kind, finish, reason, text)
    if status != "completed" and status is not None:
        return unreadable(response, data, read_usage(body.get("usage")), f"an answer of status {plain(status)[:50]}")
    if refusal is not None:
        return _reply(body, FailureKind.REFUSAL, FinishReason.REFUSAL, words(status), text, explanation=refusal)
    if text is None:
        return unreadable(response, data, read_usage(body.get("usage")))
    return _reply(body, FailureKind.OK, FinishReason.STOP, words(status), text)


def _failed(data: Any, response: HttpResponse, usage: Usage) -> CallError:
    error = error_words(data)
    if error is None:
        return call_error(FailureKind.SERVER_ERROR, "the answer failed without a reason", response, usage=usage)
    kind = openai_kind(response.status, error)
    if kind is FailureKind.INVALID_RESPONSE:
        kind = FailureKind.INVALID_REQUEST if error.code else FailureKind.SERVER_ERROR
    return call_error(kind, error.message or f"the answer failed: {error.name}", response, code=error.name, usage=usage)


def _read_output(output: Any) -> tuple[str | None, str | None]:
    """Return (text, refusal) of the message items; reasoning and tool items are passed over."""
    texts: list[str] = []
    refusals: list[str] = []
    for item in output if isinstance(output, list) else ():
        message = mapping(item)
        content = message.get("content")
        if message.get("type") == "message" and isinstance(content, list):
            for part in content:
                _take_part(mapping(part), texts, refusals)
    return "".join(texts) if texts else None, "".join(refusals) or None


def _take_part(part: Mapping[str, Any], texts: list[str], refusals: list[str]) -> None:
    kind = part.get("type")
    if kind == "output_text" and isinstance(part.get("text"), str):
        texts.append(part["text"])
    elif kind == "refusal":
        refusals.append(words(part.get("refusal")) or "refused")


def _reply(
    body: Mapping[str, Any],
    kind: FailureKind,
    finish: FinishReason,
    raw: str | None,
    text: str | None,
    *,
    explanation: str | None = None,
) -> Reply:
    return Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=raw,
        response_model=words(body.get("model")),
        usage=read_usage(body.get("usage")),
        response_id=words(body.get("id")),
        explanation=explanation,
        service_tier=tier(body.get("service_tier")),
    )
