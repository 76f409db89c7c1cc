"""OpenRouter: its cost, its upstreams, its refusals and its errors inside a 200 (providers.md 5.1, 5.2)."""

import math
from collections.abc import Mapping
from typing import Any

from pipelines.sandbox.exchange import Completion, Finish, Problem, Refused, bearer
from pipelines.sandbox.limits import Verdict

MODELS = (
    "openai/gpt-4o-mini",
    "openai/gpt-6-luna",
    "anthropic/claude-haiku-4.5",
    "anthropic/claude-haiku-5.5",
    "google/gemini-3.5-flash",
    "meta-llama/llama-3.3-70b-instruct",
)
#: Prices in hundred-millionths of a dollar per token: 0.15 and 0.60 USD a million.
_INPUT_PRICE, _OUTPUT_PRICE = 15, 60
_UPSTREAMS = {"openai": "OpenAI", "anthropic": "Anthropic", "google": "Google"}
_NATIVE = {"Anthropic": {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}}
#: code, metadata.error_type and message of what goes wrong behind a 200.
_UPSTREAM_ERRORS: tuple[tuple[int, str, str], ...] = (
    (502, "provider_unavailable", "Provider returned error"),
    (429, "rate_limit_exceeded", "Provider returned error"),
    (503, "provider_overloaded", "Provider is overloaded"),
    (500, "server", "Internal Server Error"),
)
_REFUSALS: dict[Problem, tuple[int, str, str]] = {
    Problem.MISSING_KEY: (401, "authentication", "No auth credentials found"),
    Problem.BAD_KEY: (401, "authentication", "User not found."),
    Problem.NO_CREDIT: (402, "payment_required", "Insufficient credits. Add more using the credits page."),
    Problem.NO_SUCH_PATH: (404, "not_found", "Not Found"),
    Problem.NO_SUCH_THING: (404, "not_found", "Not Found"),
    Problem.FORBIDDEN: (403, "permission_denied", "This key may not use this endpoint."),
    Problem.RATE_LIMIT: (429, "rate_limit_exceeded", "Rate limit exceeded"),
    Problem.OVERLOADED: (503, "provider_overloaded", "No provider available that meets your routing requirements"),
    Problem.SERVER_ERROR: (500, "server", "Internal Server Error"),
}


class OpenRouter:
    """How OpenRouter talks around the chat format."""

    name = "openrouter"
    window_s = 60.0
    filters_prompts = False
    has_error_in_200 = True

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the bearer key, or None."""
        return bearer(headers)

    def objection(self, headers: Mapping[str, str], query: str, body: Mapping[str, Any]) -> Refused | None:  # noqa: ARG002
        """Object to nothing: there are no versions."""
        return None

    def refuse(self, refused: Refused, request_id: str) -> tuple[int, dict[str, Any]]:  # noqa: ARG002
        """Return status and `{"error": {code: int, message, metadata}}`."""
        if refused.problem is Problem.NO_SUCH_MODEL:
            return _error(400, "invalid_request", f"{refused.model} is not a valid model ID")
        if refused.problem in (Problem.INVALID, Problem.PROMPT_FILTERED):
            return _error(400, "invalid_request", refused.message)
        code, kind, message = _REFUSALS[refused.problem]
        if refused.problem is Problem.RATE_LIMIT and refused.variant % 2:
            # An upstream's limit: the reason is only in the metadata.
            raw = f"{refused.model} is temporarily rate-limited upstream. Please retry shortly."
            return _error(code, kind, "Provider returned error", provider_name=_upstream(refused.model), raw=raw)
        return _error(code, kind, message)

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the generation's id."""
        return {"X-Generation-Id": f"gen-{request_id}"}

    def limit_headers(self, verdict: Verdict, now_s: float) -> dict[str, str]:
        """Return X-RateLimit-* (reset in epoch milliseconds) and Retry-After, on refusals only."""
        if verdict.wait_s <= 0:
            return {}
        headers = {} if verdict.wait_s == math.inf else {"Retry-After": str(math.ceil(verdict.wait_s))}
        gauge = verdict.requests or verdict.tokens
        if gauge:
            headers["X-RateLimit-Limit"] = str(gauge.limit)
            headers["X-RateLimit-Remaining"] = str(gauge.remaining)
            headers["X-RateLimit-Reset"] = str(int((now_s + gauge.reset_s) * 1000))
        return headers

    def dress(self, body: dict[str, Any], completion: Completion) -> dict[str, Any]:
        """Add provider, native finish reason and cost, or put the error into the body."""
        upstream = _upstream(completion.model)
        body["id"] = f"gen-{completion.id}"
        body["provider"] = upstream
        for choice in body["choices"]:
            finish = choice["finish_reason"]
            choice["native_finish_reason"] = _NATIVE.get(upstream, {}).get(finish, finish)
            choice["message"].pop("annotations")
            choice["message"]["reasoning"] = None
        if completion.finish in (Finish.EMPTY, Finish.ERROR):
            return _spoiled(body, completion, upstream)
        body["usage"] |= _cost(completion)
        return body

    def models(self, query: str) -> dict[str, Any]:  # noqa: ARG002 - one page holds all
        """Return the models list, with prices in USD per token."""
        pricing = {"prompt": "0.00000015", "completion": "0.0000006"}
        return {
            "data": [
                {"id": name, "name": name, "created": 1715367049, "context_length": 128000, "pricing": pricing}
                for name in MODELS
            ]
        }


def key_info(*, has_credit: bool) -> dict[str, Any]:
    """Return the body of `GET /key`."""
    usage = 0.0 if has_credit else 25.0
    return {
        "data": {
            "label": "sk-or-v1-sandbox",
            "limit": 25.0,
            "limit_remaining": 25.0 - usage,
            "usage": usage,
            "is_free_tier": False,
        }
    }


def _upstream(model: str) -> str:
    return _UPSTREAMS.get(model.partition("/")[0], "Together")


def _error(code: int, kind: str, message: str, **metadata: str) -> tuple[int, dict[str, Any]]:
    return code, {"error": {"code": code, "message": message, "metadata": {"error_type": kind, **metadata}}}


def _cost(completion: Completion) -> dict[str, Any]:
    # Integers first, so that the sum of the parts is the whole to the last digit.
    prompt, answer = completion.input_tokens * _INPUT_PRICE, completion.output_tokens * _OUTPUT_PRICE
    return {
        "cost": (prompt + answer) / 10**8,
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": prompt / 10**8,
            "upstream_inference_completions_cost": answer / 10**8,
        },
    }


def _spoiled(body: dict[str, Any], completion: Completion, upstream: str) -> dict[str, Any]:
    """Return a 200 that is no answer: empty, or an error in one of its four places."""
    body["usage"] |= {"completion_tokens": 0, "total_tokens": completion.input_tokens, "cost": 0}
    if completion.finish is Finish.EMPTY:
        return body
    form, which = divmod(completion.variant, len(_UPSTREAM_ERRORS))
    code, kind, message = _UPSTREAM_ERRORS[which]
    error = _error(code, kind, message, provider_name=upstream, raw="upstream connect error")[1]["error"]
    match form % 4:
        case 0:
            return {"error": error, "user_id": "user_sandbox"}
        case 1:
            return {**body, "choices": [], "error": error}
        case 2:
            body["choices"][0]["error"] = error
            return {**body, "usage": None}
        case _:
            return {**body, "usage": None}
