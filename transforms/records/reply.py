"""What a provider answered, in our words (OpenTelemetry GenAI names, dots as underscores)."""

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from transforms.records.failure import FailureKind
from transforms.records.quick import quick
from transforms.records.usage import Usage

__all__ = ["CallError", "FinishReason", "HttpRequest", "HttpResponse", "RateLimits", "Reply", "Usage"]


class FinishReason(StrEnum):
    """Normalised finish reasons (providers.md 12.4); the raw value is kept beside it."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALL = "tool_call"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"
    ERROR = "error"


@quick
@dataclass(frozen=True, slots=True)
class RateLimits:
    """What rate-limit headers said, None where they were silent; reset_* are seconds from now."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None


@quick
@dataclass(frozen=True, slots=True)
class Reply:
    """A paid-for answer: the provider finished a completion, whatever became of it.

    Attributes:
        kind: FailureKind.OK for a normal stop, else TRUNCATED, REFUSAL or CONTENT_FILTERED.
        text: the answer's text; may be None or partial when kind is not OK.
        finish_reason: normalised; raw_finish_reason: the provider's own word.
        response_model: the model that answered, as the provider named it, or None.
        usage: token counts.
        response_id: the provider's id of the answer (body), or None.
        provider_cost_usd: the price the provider itself stated, or None.
        explanation: the refusal's or filter's own words, or None.
        service_tier: the tier that ran the request, in the provider's word, or None; it decides the price.
    """

    kind: FailureKind
    text: str | None
    finish_reason: FinishReason
    raw_finish_reason: str | None
    response_model: str | None
    usage: Usage
    response_id: str | None = None
    provider_cost_usd: Decimal | None = None
    explanation: str | None = None
    service_tier: str | None = None


@dataclass(frozen=True, slots=True)
class CallError:
    """A call that gave no answer.

    Attributes:
        kind: what happened (providers.md 12.3).
        message: the provider's or transport's words, for people; never holds a secret.
        code: the provider's own error code or type, or None.
        retry_after_s: seconds the server asked to wait, or None.
        no_retry: the server forbade a retry (x-should-retry: false), whatever the kind says.
        force_retry: the server asked for a retry (x-should-retry: true).
        usage: token counts, where an error carried them.
        may_be_billed: True when the provider may have run the request (lost reply, time-out, cut body).
        response_model, provider_cost_usd, service_tier: as in Reply, where an error carried usage.
    """

    kind: FailureKind
    message: str
    code: str | None = None
    retry_after_s: float | None = None
    no_retry: bool = False
    force_retry: bool = False
    usage: Usage = field(default_factory=Usage)
    may_be_billed: bool = False
    response_model: str | None = None
    provider_cost_usd: Decimal | None = None
    service_tier: str | None = None


@quick
@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP exchange to make: absolute url, headers without the content-length, and the body."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


@quick
@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back: header names in lower case, body decoded from any content-encoding."""

    status: int
    headers: dict[str, str]
    body: bytes
