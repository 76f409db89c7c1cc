"""OpenRouter: chat completions over many upstreams, errors inside a 200, prices in the reply (providers.md 5)."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

from transforms.providers import chat_completions
from transforms.providers.classify import ErrorWords, call_error, error_words, status_kind, text_kind, unreadable
from transforms.providers.headers import date_s, duration_s, openrouter_limits, retry_after_s, wait_for_reset_s
from transforms.providers.openai_family import OpenAIFamily
from transforms.providers.reading import dollars, first, mapping, parse_json, plain, words
from transforms.providers.settings_check import check_settings
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, FinishReason, HttpRequest, HttpResponse, RateLimits, Reply
from transforms.records.settings import ModelSettings

_ERROR_TYPES: Mapping[str, FailureKind] = {
    "context_length_exceeded": FailureKind.CONTEXT_LENGTH_EXCEEDED,
    "token_limit_exceeded": FailureKind.CONTEXT_LENGTH_EXCEEDED,
    "max_tokens_exceeded": FailureKind.INVALID_REQUEST,
    "string_too_long": FailureKind.INVALID_REQUEST,
    "authentication": FailureKind.AUTH,
    "permission_denied": FailureKind.PERMISSION,
    "payment_required": FailureKind.QUOTA_EXHAUSTED,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
    "provider_overloaded": FailureKind.OVERLOADED,
    "provider_unavailable": FailureKind.OVERLOADED,
    "invalid_request": FailureKind.INVALID_REQUEST,
    "invalid_prompt": FailureKind.CONTENT_FILTERED,
    "not_found": FailureKind.NOT_FOUND,
    "precondition_failed": FailureKind.INVALID_REQUEST,
    "payload_too_large": FailureKind.REQUEST_TOO_LARGE,
    "unprocessable": FailureKind.INVALID_REQUEST,
    "content_policy_violation": FailureKind.CONTENT_FILTERED,
    "refusal": FailureKind.REFUSAL,
    "server": FailureKind.SERVER_ERROR,
    "timeout": FailureKind.TIMEOUT,
}


class OpenRouter(OpenAIFamily):
    """The OpenRouter API. `routing` in the settings is its `provider` object.

    With an answer schema, `require_parameters` is true unless the job sets it: an upstream that ignores the schema
    must not be chosen.
    """

    name = "openrouter"
    default_key_env: ClassVar[str | None] = "OPENROUTER_API_KEY"
    limit_key: ClassVar[str] = "max_tokens"
    request_id_headers: ClassVar[tuple[str, ...]] = ("x-generation-id",)

    own_address: ClassVar[str] = "https://openrouter.ai/api/v1"

    def __init__(self, settings: ModelSettings, schema: dict[str, Any] | None) -> None:
        check_settings(settings)
        base_url = (settings.base_url or self.own_address).rstrip("/")
        super().__init__(settings, schema, base_url, settings.name)

    def own_headers(self) -> dict[str, str]:
        """Return the attribution header."""
        return {"x-openrouter-title": "Rowbeam"}

    def static_body(self, settings: ModelSettings, schema: dict[str, Any] | None) -> dict[str, Any]:
        """Return what all requests share: OpenAI's fields, `provider`, and effort in OpenRouter's `reasoning`."""
        body = super().static_body(settings, schema)
        effort = settings.params.reasoning_effort
        if effort is not None and "reasoning_effort" not in settings.params.extra:
            del body["reasoning_effort"]
            body.setdefault("reasoning", {"effort": effort})
        routing = ({} if schema is None else {"require_parameters": True}) | (settings.routing or {})
        if routing:
            body.setdefault("provider", routing)
        return body

    def probe(self, key: str | None) -> HttpRequest | None:
        """Return a GET of the key's own page; the models list is public and would prove nothing."""
        return HttpRequest("GET", self.base_url + "/key", self.all_headers(key), b"")

    def read(self, response: HttpResponse) -> Reply | CallError:
        """Classify a response; the order of checks on a 200 is that of 5.2."""
        data = parse_json(response.body)
        body = mapping(data)
        if 200 <= response.status < 300 and not body.get("error"):
            choice = first(body.get("choices"))
            if choice.get("error"):
                return self.read_error({"error": choice["error"]}, response)
            outcome = chat_completions.read_answer(data, response, _cost(mapping(body.get("usage"))))
            if choice.get("native_finish_reason") == "refusal" and isinstance(outcome, Reply):
                return _refused(outcome)
            return outcome
        return self.read_error(data, response)

    def read_error(self, data: Any, response: HttpResponse) -> CallError:
        """Read an error at whatever status; `metadata.error_type` says more than the status."""
        words_ = error_words(data)
        if words_ is None:
            return unreadable(response, data)
        error = mapping(mapping(data).get("error"))
        metadata = mapping(error.get("metadata"))
        status = words_.status or response.status
        error_type = words(metadata.get("error_type"))
        message = _message(words_, metadata)
        return call_error(
            _kind(status, error_type, metadata, message),
            message,
            response,
            code=error_type or words_.name or str(status),
            wait_s=_wait_s(error, metadata, response),
            limits=self.rate_limits_at(response, date_s(response.headers)),
        )

    def request_id(self, response: HttpResponse) -> str | None:
        """Return the generation's id from the header, else from the body."""
        return super().request_id(response) or words(mapping(parse_json(response.body)).get("id"))

    def rate_limits_at(self, response: HttpResponse, now_s: float | None) -> RateLimits | None:
        """Return what the x-ratelimit headers say."""
        return openrouter_limits(response.headers, now_s)


def _refused(reply: Reply) -> Reply:
    """Return the reply as the refusal that only the upstream's own finish reason tells."""
    return replace(reply, kind=FailureKind.REFUSAL, finish_reason=FinishReason.REFUSAL, raw_finish_reason="refusal")


def _cost(usage: Mapping[str, Any]) -> Decimal | None:
    """Return the dollars of a call; with one's own upstream key, OpenRouter's fee and the upstream's bill."""
    cost = dollars(usage.get("cost"))
    if cost is None or usage.get("is_byok") is not True:
        return cost
    upstream = dollars(mapping(usage.get("cost_details")).get("upstream_inference_cost"))
    return None if upstream is None else cost + upstream


def _kind(status: int, error_type: str | None, metadata: Mapping[str, Any], message: str) -> FailureKind:
    kind = _ERROR_TYPES.get((error_type or "").lower())
    if kind is not None:
        return kind
    if status == 403 and ("reasons" in metadata or "flagged_input" in metadata):
        return FailureKind.CONTENT_FILTERED
    if status in {400, 413, 422}:
        return text_kind(status, message)
    return status_kind(status)


def _message(error: ErrorWords, metadata: Mapping[str, Any]) -> str:
    """Return the message with the upstream's own text, where the real reason often is, and moderation's reasons."""
    said = error.message or f"error {error.name}"
    provider = words(metadata.get("provider_name")) or "upstream"
    raw = metadata.get("raw")
    if raw:
        return f"{said} ({provider}: {plain(raw)})"
    reasons = metadata.get("reasons")
    if isinstance(reasons, list) and reasons:
        return f"{said} (moderation: {', '.join(map(plain, reasons))})"
    return said


def _wait_s(error: Mapping[str, Any], metadata: Mapping[str, Any], response: HttpResponse) -> float | None:
    """Return the wait that the body asks for: availability.retry_after, else the headers copied into metadata."""
    wait = mapping(error.get("availability")).get("retry_after")
    seconds = duration_s(str(wait)) if isinstance(wait, int | float | str) and not isinstance(wait, bool) else None
    if seconds is not None:
        return seconds
    copied = {
        str(name).lower(): str(value)
        for name, value in mapping(metadata.get("headers")).items()
        if isinstance(value, str | int | float)
    }
    if "date" in response.headers:
        copied.setdefault("date", response.headers["date"])
    seconds = retry_after_s(copied)
    return seconds if seconds is not None else wait_for_reset_s(openrouter_limits(copied, date_s(copied)))
