"""Azure OpenAI: what differs from OpenAI (providers.md 3.1, 3.2, 3.5, 3.6)."""

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from pipelines.sandbox.exchange import Completion, Finish, Problem, Refused, bearer
from pipelines.sandbox.limits import Verdict
from pipelines.sandbox.provider_openai import OpenAI, error, retry_after

#: Chat replies name the model behind a deployment, whatever the deployment is called.
SNAPSHOT = "gpt-4o-mini-2024-07-18"
_DENIED = (401, "401", "Access denied due to invalid subscription key or wrong API endpoint.")
_AZURE_WORDS: dict[Problem, tuple[int, str, str]] = {
    Problem.MISSING_KEY: _DENIED,
    Problem.BAD_KEY: _DENIED,
    Problem.NO_SUCH_MODEL: (404, "DeploymentNotFound", "The API deployment for this resource does not exist."),
    Problem.NO_SUCH_PATH: (404, "404", "Resource not found"),
    Problem.NO_SUCH_THING: (404, "notFound", "The specified resource was not found."),
    Problem.FORBIDDEN: (403, "forbidden", "The principal lacks the required data action to perform this operation."),
    Problem.OVERLOADED: (503, "ServiceUnavailable", "The service is temporarily unable to process your request."),
}
_HARMS = ("hate", "self_harm", "sexual", "violence")


class Azure(OpenAI):
    """How Azure OpenAI talks around OpenAI's formats.

    Args:
        is_dated: the URL family that needs `?api-version=`.
    """

    name = "azure_openai"
    window_s = 10.0
    filters_prompts = True

    def __init__(self, *, is_dated: bool) -> None:
        self._is_dated = is_dated

    def key(self, headers: Mapping[str, str]) -> str | None:
        """Return the `api-key` header's value or the bearer token, or None."""
        return headers.get("api-key") or bearer(headers)

    def objection(self, headers: Mapping[str, str], query: str, body: Mapping[str, Any]) -> Refused | None:  # noqa: ARG002
        """Object to a dated URL without its api-version."""
        if self._is_dated and not parse_qs(query).get("api-version"):
            return Refused(Problem.NO_SUCH_PATH)
        return None

    def refuse(self, refused: Refused, request_id: str) -> tuple[int, dict[str, Any]]:
        """Return status and error object; where Azure has its own words, those."""
        problem = refused.problem
        if problem is Problem.PROMPT_FILTERED:
            return _prompt_filtered(refused.variant)
        if problem is Problem.NO_CREDIT:
            return error(429, "You exceeded your current quota.", "insufficient_quota", None, "insufficient_quota")
        if problem is Problem.RATE_LIMIT:
            return 429, {"error": {"code": "429", "message": _rate_text(refused)}}
        if problem in _AZURE_WORDS:
            status, code, text = _AZURE_WORDS[problem]
            return status, {"error": {"code": code, "message": text}}
        return super().refuse(refused, request_id)

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the exchange's id under both of its names."""
        return {"apim-request-id": request_id, "x-request-id": request_id, "x-ms-region": "Sandbox"}

    def limit_headers(self, verdict: Verdict, now_s: float) -> dict[str, str]:  # noqa: ARG002
        """Return x-ratelimit-* with resets as plain seconds."""
        headers = {}
        for name, gauge in (("requests", verdict.requests), ("tokens", verdict.tokens)):
            if gauge:
                headers[f"x-ratelimit-limit-{name}"] = str(gauge.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(gauge.remaining)
                headers[f"x-ratelimit-reset-{name}"] = str(math.ceil(gauge.reset_s))
        return headers | retry_after(verdict.wait_s)

    def dress(self, body: dict[str, Any], completion: Completion) -> dict[str, Any]:
        """Add the content filter's findings; chat replies name the snapshot behind the deployment."""
        if "choices" not in body:
            return body
        body["model"] = SNAPSHOT
        is_filtered = completion.finish is Finish.FILTERED
        for choice in body["choices"]:
            choice["content_filter_results"] = {
                **_findings(completion.variant if is_filtered else None),
                "protected_material_text": {"detected": False, "filtered": False},
                "protected_material_code": {"detected": False, "filtered": False},
            }
            choice["message"].pop("annotations")
        body["prompt_filter_results"] = [
            {
                "prompt_index": 0,
                "content_filter_results": {**_findings(None), "jailbreak": {"detected": False, "filtered": False}},
            }
        ]
        return body


def _findings(harm: int | None) -> dict[str, Any]:
    """Return the four harm categories, with the numbered one filtered."""
    findings = {name: {"filtered": False, "severity": "safe"} for name in _HARMS}
    if harm is not None:
        findings[_HARMS[harm % len(_HARMS)]] = {"filtered": True, "severity": "high"}
    return findings


def _rate_text(refused: Refused) -> str:
    if refused.variant % 4 == 3:
        return "The system is currently experiencing high demand and is temporarily unable to process your request."
    wait = "" if refused.wait_s == math.inf else f" Please retry after {math.ceil(refused.wait_s)} seconds."
    return f"Requests to the deployment {refused.model} have exceeded the call rate limit of your tier.{wait}"


def _prompt_filtered(variant: int) -> tuple[int, dict[str, Any]]:
    # The docs use both spellings of the key (providers.md 3.5), so both occur here.
    key = "content_filter_result" if variant % 2 else "content_filter_results"
    inner = {
        "code": "ResponsibleAIPolicyViolation",
        key: {**_findings(variant), "jailbreak": {"detected": False, "filtered": False}},
    }
    text = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    return 400, {
        "error": {
            "message": text,
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": inner,
        }
    }
