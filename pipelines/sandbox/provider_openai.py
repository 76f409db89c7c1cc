"""OpenAI: its refusals, headers and models list (providers.md 2.1, 2.6)."""

import math
from collections.abc import Mapping
from typing import Any

from pipelines.sandbox.exchange import Completion, Problem, Refused, bearer
from pipelines.sandbox.limits import Verdict, go_duration

MODELS = (
    "gpt-4.1-2025-04-14",
    "gpt-4.1-mini-2025-04-14",
    "gpt-4o-2024-08-06",
    "gpt-4o-2024-11-20",
    "gpt-4o-mini-2024-07-18",
    "gpt-5.4-mini-2026-03-17",
    "gpt-5.6-luna",
    "gpt-6-luna",
    "gpt-6.1-sol",
)
_BILLING_CODES = ("insufficient_quota", "credit_balance_exhausted")
_WORDS: dict[Problem, tuple[int, str, str | None, str]] = {
    Problem.MISSING_KEY: (401, "invalid_request_error", None, "You didn't provide an API key."),
    Problem.BAD_KEY: (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    Problem.NO_SUCH_MODEL: (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    Problem.NO_SUCH_PATH: (404, "invalid_request_error", None, "Invalid URL ({detail})"),
    Problem.NO_SUCH_THING: (404, "invalid_request_error", None, "{detail}"),
    Problem.FORBIDDEN: (403, "permission_error", None, "You have insufficient permissions for this operation."),
    Problem.SERVER_ERROR: (500, "server_error", None, "The server had an error while processing your request."),
    Problem.OVERLOADED: (
        503,
        "service_unavailable_error",
        "server_is_overloaded",
        "The server is currently overloaded. Please try again later.",
    ),
}


class OpenAI:
    """How OpenAI talks around a format."""

    name = "openai"
    window_s = 60.0
    filters_prompts = False
    has_error_in_200 = False

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the bearer key, or None."""
        return bearer(headers)

    def objection(self, headers: Mapping[str, str], query: str, body: Mapping[str, Any]) -> Refused | None:  # noqa: ARG002
        """Object to nothing: there are no versions."""
        return None

    def refuse(self, refused: Refused, request_id: str) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        """Return status and `{"error": {message, type, param, code}}`."""
        problem = refused.problem
        if problem is Problem.RATE_LIMIT:
            return _rate_limit(refused)
        if problem is Problem.NO_CREDIT:
            billing = _BILLING_CODES[refused.variant % len(_BILLING_CODES)]
            text = "You exceeded your current quota, please check your plan and billing details."
            return error(429, text, "insufficient_quota", None, billing)
        if problem in _WORDS:
            status, kind, code, text = _WORDS[problem]
            return error(status, text.format(model=refused.model, detail=refused.message), kind, None, code)
        return error(400, refused.message, "invalid_request_error", refused.param, refused.code)

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the exchange's id and what OpenAI says of itself."""
        return {"x-request-id": f"req_{request_id}", "openai-version": "2020-10-01", "openai-processing-ms": "1"}

    def limit_headers(self, verdict: Verdict, now_s: float) -> dict[str, str]:  # noqa: ARG002
        """Return x-ratelimit-* with resets as Go durations."""
        headers = {}
        for name, gauge in (("requests", verdict.requests), ("tokens", verdict.tokens)):
            if gauge:
                headers[f"x-ratelimit-limit-{name}"] = str(gauge.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(gauge.remaining)
                headers[f"x-ratelimit-reset-{name}"] = go_duration(gauge.reset_s)
        return headers | retry_after(verdict.wait_s)

    def dress(self, body: dict[str, Any], completion: Completion) -> dict[str, Any]:  # noqa: ARG002
        """Add nothing: the formats are OpenAI's own."""
        return body

    def models(self, query: str) -> dict[str, Any]:  # noqa: ARG002 - one page holds all
        """Return the models list."""
        return {"object": "list", "data": [model_entry(name) for name in MODELS]}


def error(
    status: int, message: str, kind: str | None, param: str | None = None, code: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Return a status with an error object in OpenAI's form."""
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}


def model_entry(name: str) -> dict[str, Any]:
    """Return one entry of a models list."""
    return {"id": name, "object": "model", "created": 1715367049, "owned_by": "system"}


def retry_after(wait_s: float) -> dict[str, str]:
    """Return both headers that say how long to wait; none when there is no wait or no end to it."""
    if not 0 < wait_s < math.inf:
        return {}
    return {"retry-after-ms": str(math.ceil(wait_s * 1000)), "retry-after": str(math.ceil(wait_s))}


def _rate_limit(refused: Refused) -> tuple[int, dict[str, Any]]:
    if refused.variant % 4 == 3:
        text = "Your traffic rose too fast. Please slow down and raise it gradually."
        return error(429, text, "rate_limit_error", None, "slow_down")
    if refused.wait_s == math.inf:
        text = f"Request too large for {refused.model} on tokens per min (TPM)."
        return error(429, text, "tokens", None, "rate_limit_exceeded")
    wait = go_duration(refused.wait_s)
    text = f"Rate limit reached for {refused.model} in organization org-sandbox. Please try again in {wait}."
    return error(429, text, "requests", None, "rate_limit_exceeded")
