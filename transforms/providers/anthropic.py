"""Anthropic's Messages API in both versions (providers.md 4).

`max_tokens` is required there: without model.params.max_output_tokens it is 1024.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from transforms.providers import error_text
from transforms.providers.classify import ErrorWords, call_error, error_words, status_kind, unreadable
from transforms.providers.headers import anthropic_limits, date_s
from transforms.providers.reading import count, mapping, parse_json, tier, words
from transforms.providers.settings_check import check_settings, key_source, output_limit, refuse_param, static_headers
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, FinishReason, HttpRequest, HttpResponse, RateLimits, Reply
from transforms.records.request import Prompt
from transforms.records.settings import ModelSettings
from transforms.records.usage import Usage
from transforms.rules.native_schema import closed_schema

NEWEST = "2026-10-21"
VERSIONS = ("2023-06-01", NEWEST)
DEFAULT_MAX_TOKENS = 1024

_TYPES: Mapping[str, FailureKind] = {
    "invalid_request_error": FailureKind.INVALID_REQUEST,
    "authentication_error": FailureKind.AUTH,
    "billing_error": FailureKind.QUOTA_EXHAUSTED,
    "permission_error": FailureKind.PERMISSION,
    "not_found_error": FailureKind.NOT_FOUND,
    "conflict_error": FailureKind.CONFLICT,
    "request_too_large": FailureKind.REQUEST_TOO_LARGE,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "api_error": FailureKind.SERVER_ERROR,
    "timeout_error": FailureKind.TIMEOUT,
    "overloaded_error": FailureKind.OVERLOADED,
}
_DETAILS: Mapping[str, FailureKind] = {
    "organization_on_hold": FailureKind.QUOTA_EXHAUSTED,
    "linked_organization_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "linked_organization_billing_unavailable": FailureKind.QUOTA_EXHAUSTED,
    "enforced_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "contract_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "ramp_limit_exceeded": FailureKind.RATE_LIMITED,
    "cmek_key_unreachable": FailureKind.OVERLOADED,
    "cmek_context_unavailable": FailureKind.OVERLOADED,
}
_STOPS: Mapping[str, tuple[FailureKind, FinishReason]] = {
    "end_turn": (FailureKind.OK, FinishReason.STOP),
    "stop_sequence": (FailureKind.OK, FinishReason.STOP),
    "tool_use": (FailureKind.OK, FinishReason.TOOL_CALL),
    "max_tokens": (FailureKind.TRUNCATED, FinishReason.LENGTH),
    "model_context_window_exceeded": (FailureKind.TRUNCATED, FinishReason.LENGTH),
    "pause_turn": (FailureKind.TRUNCATED, FinishReason.PAUSE),
    "refusal": (FailureKind.REFUSAL, FinishReason.REFUSAL),
}
_OWN_ADDRESS = "https://api.anthropic.com"
_NORMAL = (FailureKind.OK, FinishReason.STOP)


class Anthropic:
    """The Messages API. `api_version` is 2026-10-21 (default) or 2023-06-01; `auth` bearer (default) or x_api_key."""

    name = "anthropic"

    def __init__(self, settings: ModelSettings, schema: dict[str, Any] | None) -> None:
        check_settings(settings, auths=("bearer", "x_api_key"))
        version = _version(settings)
        self.request_model = settings.name
        self.price_model = settings.name
        self.key_env, self.key_secret = key_source(settings, "ANTHROPIC_API_KEY")
        base_url = (settings.base_url or _OWN_ADDRESS).rstrip("/")
        self.base_url = base_url.removesuffix("/v1")
        self._x_api_key = settings.auth == "x_api_key"
        self._headers = static_headers(settings, {"anthropic-version": version})
        self._static = _static_body(settings, schema)
        self.max_output_tokens = output_limit(self._static)

    def identity(self) -> dict[str, Any]:
        """Return provider, API and body without prompt, and the address when it is not the provider's own."""
        where = {} if self.base_url == _OWN_ADDRESS else {"base_url": self.base_url}
        return {"provider": self.name, "api": "messages", "body": self._static, **where}

    def body(self, prompt: Prompt) -> dict[str, Any]:
        """Return the JSON body of a request; the system part is a field of its own."""
        body = {**self._static, "messages": [{"role": role, "content": text} for role, text in prompt.turns]}
        if prompt.system is not None:
            body["system"] = prompt.system
        return body

    def all_headers(self, key: str | None) -> dict[str, str]:
        """Return every header of a request with a JSON body, the key in its place."""
        if key is None:
            return dict(self._headers)
        if self._x_api_key:
            return {**self._headers, "x-api-key": key}
        return {**self._headers, "authorization": f"Bearer {key}"}

    def request(self, body: dict[str, Any], key: str | None) -> HttpRequest:
        """Return the POST that carries `body`."""
        return HttpRequest("POST", self.base_url + "/v1/messages", self.all_headers(key), orjson.dumps(body))

    def probe(self, key: str | None) -> HttpRequest | None:
        """Return a GET of the models list."""
        return HttpRequest("GET", self.base_url + "/v1/models?limit=1", self.all_headers(key), b"")

    def read(self, response: HttpResponse) -> Reply | CallError:
        """Classify a response; never raises."""
        data = parse_json(response.body)
        if 200 <= response.status < 300 and not mapping(data).get("error"):
            return _read_message(data, response)
        error = error_words(data)
        if error is None:
            return unreadable(response, data)
        detail = words(mapping(mapping(mapping(data).get("error")).get("details")).get("error_code"))
        return call_error(
            _kind(response.status, error, detail),
            error.message or f"HTTP {response.status}: {error.name}",
            response,
            code=detail or error.name,
            limits=anthropic_limits(response.headers, date_s(response.headers)),
        )

    def request_id(self, response: HttpResponse) -> str | None:
        """Return the request-id header, else the id that errors carry in their body."""
        header = response.headers.get("request-id")
        return header or words(mapping(parse_json(response.body)).get("request_id"))

    def rate_limits(self, response: HttpResponse, now_s: float) -> RateLimits | None:
        """Return what the anthropic-ratelimit headers say."""
        return anthropic_limits(response.headers, now_s)


def _version(settings: ModelSettings) -> str:
    version = settings.api_version or NEWEST
    if version not in VERSIONS:
        raise ConfigError(f"model.api_version: anthropic has no version {version!r}; use {' or '.join(VERSIONS)}")
    if version == NEWEST:
        reason = f"the API version {NEWEST} does not take it; remove it or set model.api_version: 2023-06-01"
        for name in ("temperature", "top_p"):
            refuse_param(settings, name, reason)
        for name in ("temperature", "top_p", "top_k"):
            if name in settings.params.extra:
                raise ConfigError(f"model.params.extra.{name}: {reason}")
    refuse_param(settings, "seed", "Anthropic has no seed; remove it")
    return version


def _static_body(settings: ModelSettings, schema: dict[str, Any] | None) -> dict[str, Any]:
    params = settings.params
    output_config: dict[str, Any] = {}
    if schema is not None:
        output_config["format"] = {"type": "json_schema", "schema": closed_schema(schema)}
    if params.reasoning_effort is not None:
        output_config["effort"] = params.reasoning_effort
    fields = {
        "model": settings.name,
        "max_tokens": params.max_output_tokens or DEFAULT_MAX_TOKENS,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "stop_sequences": params.stop,
        "output_config": output_config or None,
    }
    return {key: value for key, value in fields.items() if value is not None} | params.extra


def _read_message(data: Any, response: HttpResponse) -> Reply | CallError:
    """Read a Message: its text blocks joined; a normal stop without any text is INVALID_RESPONSE."""
    body = mapping(data)
    raw = words(body.get("stop_reason"))
    kind, finish = _STOPS.get((raw or "end_turn").lower(), _NORMAL)
    usage = _read_usage(body.get("usage"))
    model, ran_at = words(body.get("model")), tier(mapping(body.get("usage")).get("service_tier"))
    text = _read_text(body.get("content"))
    if kind is FailureKind.OK and text is None:
        what = "a message without text" if body.get("type") == "message" else None
        return replace(unreadable(response, data, usage, what), response_model=model, service_tier=ran_at)
    return Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=raw,
        response_model=model,
        usage=usage,
        response_id=words(body.get("id")),
        explanation=_explanation(body.get("stop_details")) if kind is FailureKind.REFUSAL else None,
        service_tier=ran_at,
    )


def _read_text(content: Any) -> str | None:
    texts = []
    for item in content if isinstance(content, list) else ():
        block = mapping(item)
        text = block.get("text")
        if block.get("type") == "text" and isinstance(text, str):
            texts.append(text)
    return "".join(texts) if texts else None


def _explanation(details: Any) -> str | None:
    parts = [words(mapping(details).get("category")), words(mapping(details).get("explanation"))]
    return ": ".join(part for part in parts if part) or None


def _read_usage(value: Any) -> Usage:
    """Return the counters; input is the sum of the three that Anthropic keeps apart (12.5)."""
    usage = mapping(value)
    fresh = count(usage.get("input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    total = None if fresh is None else count(fresh + (read or 0) + (written or 0))
    thinking = mapping(usage.get("output_tokens_details")).get("thinking_tokens")
    return Usage(total, count(usage.get("output_tokens")), read, written, count(thinking))


def _kind(status: int, error: ErrorWords, detail: str | None) -> FailureKind:
    by_detail = _DETAILS.get((detail or "").lower())
    if by_detail is not None:
        return by_detail
    kind = _TYPES.get((error.type or "").lower()) or status_kind(status)
    if kind is FailureKind.INVALID_REQUEST:
        if error_text.is_billing_stop(error.message or ""):
            return FailureKind.QUOTA_EXHAUSTED
        if error_text.is_context_overflow(error.message or ""):
            return FailureKind.CONTEXT_LENGTH_EXCEEDED
    return kind
