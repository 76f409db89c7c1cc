"""Anthropic: its versions, refusals, headers and models list (providers.md 0.1, 4.1, 4.6)."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from pipelines.sandbox.exchange import Completion, Problem, Refused, bearer
from pipelines.sandbox.limits import Gauge, Verdict

VERSIONS = ("2023-06-01", "2026-10-21")
MODELS = (
    "claude-haiku-5-5",
    "claude-sonnet-5-5",
    "claude-opus-5-5",
    "claude-sonnet-5",
    "claude-opus-4-8",
    "claude-sonnet-4-6",
    "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5-20250929",
)
_PAGE = 20
_SAMPLING = ("temperature", "top_p", "top_k")
_NO_CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
_WORDS: dict[Problem, tuple[int, str, str]] = {
    Problem.MISSING_KEY: (401, "authentication_error", "x-api-key header is required"),
    Problem.BAD_KEY: (401, "authentication_error", "invalid x-api-key"),
    Problem.NO_SUCH_MODEL: (404, "not_found_error", "model: {model}"),
    Problem.NO_SUCH_PATH: (404, "not_found_error", "Not Found"),
    Problem.NO_SUCH_THING: (404, "not_found_error", "Not Found"),
    Problem.FORBIDDEN: (403, "permission_error", "Your API key does not have permission to use this resource."),
    Problem.RATE_LIMIT: (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    Problem.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    Problem.SERVER_ERROR: (500, "api_error", "Internal server error"),
}


class Anthropic:
    """How Anthropic talks around the Messages format."""

    name = "anthropic"
    window_s = 60.0
    filters_prompts = False
    has_error_in_200 = False

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the `x-api-key` header's value, which wins, or the bearer key, or None."""
        return headers.get("x-api-key") or bearer(headers)

    def objection(self, headers: Mapping[str, str], query: str, body: Mapping[str, Any]) -> Refused | None:  # noqa: ARG002
        """Object to a missing or unknown version, and to what a version does not know."""
        version = headers.get("anthropic-version")
        if version is None:
            return Refused(Problem.INVALID, "anthropic-version: header is required")
        if version not in VERSIONS:
            return Refused(Problem.INVALID, f'anthropic-version: "{version}" is not a valid version')
        if version == "2026-10-21":
            for name in _SAMPLING:
                if name in body:
                    return Refused(Problem.INVALID, f"{name}: Extra inputs are not permitted")
        return None

    def refuse(self, refused: Refused, request_id: str) -> tuple[int, dict[str, Any]]:
        """Return status and `{"type": "error", "error": {...}, "request_id"}`."""
        status, kind, message = _words(refused)
        details = {"error_code": "ramp_limit_exceeded"} if _is_ramp(refused) else None
        error = {"type": kind, "message": message, **({"details": details} if details else {})}
        return status, {"type": "error", "error": error, "request_id": f"req_{request_id}"}

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the exchange's id and the organization."""
        return {"request-id": f"req_{request_id}", "anthropic-organization-id": "sandbox"}

    def limit_headers(self, verdict: Verdict, now_s: float) -> dict[str, str]:
        """Return anthropic-ratelimit-* with resets as RFC 3339 times, and retry-after in whole seconds."""
        headers: dict[str, str] = {}
        for name, gauge in (
            ("requests", verdict.requests),
            ("tokens", verdict.tokens),
            ("input-tokens", verdict.tokens),
        ):
            if gauge:
                headers |= _gauge_headers(f"anthropic-ratelimit-{name}", gauge, now_s)
        if 0 < verdict.wait_s < math.inf:
            headers["retry-after"] = str(math.ceil(verdict.wait_s))
        return headers

    def dress(self, body: dict[str, Any], completion: Completion) -> dict[str, Any]:  # noqa: ARG002
        """Add nothing: the format is Anthropic's own."""
        return body

    def models(self, query: str) -> dict[str, Any]:
        """Return a page of the models list: `limit` of them (20), after the one named by `after_id`."""
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        limit = int(asked["limit"]) if asked.get("limit", "").isdecimal() else _PAGE
        after = asked.get("after_id")
        start = MODELS.index(after) + 1 if after in MODELS else 0
        names = MODELS[start : start + limit]
        return {
            "data": [
                {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
                for name in names
            ],
            "has_more": start + limit < len(MODELS),
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
        }


def _gauge_headers(prefix: str, gauge: Gauge, now_s: float) -> dict[str, str]:
    reset = datetime.fromtimestamp(math.ceil(now_s + gauge.reset_s), UTC)
    return {
        f"{prefix}-limit": str(gauge.limit),
        f"{prefix}-remaining": str(gauge.remaining),
        f"{prefix}-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _is_ramp(refused: Refused) -> bool:
    return refused.problem is Problem.RATE_LIMIT and refused.variant % 4 == 3


def _words(refused: Refused) -> tuple[int, str, str]:
    """Return status, error type and message."""
    if refused.problem is Problem.NO_CREDIT:
        return (402, "billing_error", _NO_CREDIT) if refused.variant % 2 else (400, "invalid_request_error", _NO_CREDIT)
    if refused.problem in _WORDS:
        status, kind, text = _WORDS[refused.problem]
        return status, kind, text.format(model=refused.model)
    return 400, "invalid_request_error", refused.message
