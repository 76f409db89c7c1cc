"""OpenRouter's batch API (beta): inline, not to be cancelled, results in the status reply (providers.md 5.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from transforms.providers import batch_states
from transforms.providers.batch_base import BatchPage, CreateFacts, FilePart, InlineCreate
from transforms.providers.batch_inline import InlineTransport
from transforms.providers.batch_lines import read_openai_line
from transforms.providers.openrouter import OpenRouter
from transforms.providers.reading import clean, mapping, parse_json, words
from transforms.records.batch import BatchLine, BatchState
from transforms.records.errors import ConfigError
from transforms.records.reply import CallError, HttpRequest, HttpResponse
from transforms.records.settings import ModelSettings

_MAX_REQUESTS = 5_000
_MAX_BYTES = 200_000_000
_ENDPOINT = "/v1/chat/completions"
_TAIL = b"]}"

#: What batches know of the `provider` object; require_parameters is for real time, where upstreams differ by call.
_ROUTING = ("only", "allow_fallbacks")
_DROPPED = "require_parameters"
_REFUSED: Mapping[str, str] = {"models": "an OpenRouter batch has one model"}


class OpenRouterBatch(InlineTransport):
    """Satisfies `BatchApi`. One model and one routing per batch; the `provider` object leaves the lines for the create.

    Args:
        settings: the job's `model`.
        provider: built from the same settings; gives the address, the headers and the reading of answers.
    """

    can_cancel = False
    body_path: tuple[str, ...] = ("response", "body")
    shows_progress = True

    def __init__(self, settings: ModelSettings, provider: OpenRouter) -> None:
        batch_states.refuse_extras(settings, _REFUSED)
        self.request_model = provider.request_model
        self._provider = provider
        self._head = _head(provider)
        self.limits = batch_states.limits_below(_MAX_REQUESTS, _MAX_BYTES, len(self._head) + len(_TAIL))

    def line(self, custom_id: str, body: dict[str, Any]) -> bytes:
        """Return the line of the request file for one request."""
        row = {name: value for name, value in body.items() if name != "provider"}
        return orjson.dumps({"custom_id": custom_id, "body": row})

    def create(self, key: str | None, facts: CreateFacts, input_file_id: str | None) -> HttpRequest | InlineCreate:  # noqa: ARG002 - nothing of them goes in
        """Return the create; all that is not requests stands before them, as OpenRouter's parser wants it."""
        return InlineCreate(self._url(), self._provider.all_headers(key), self._head, _TAIL)

    def read_batch(self, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a create or a status check."""
        state = _state(mapping(parse_json(response.body))) if 200 <= response.status < 300 else None
        return batch_states.refusal(self._provider, response) if state is None else state

    def read_status(self, provider_batch_id: str, response: HttpResponse) -> BatchState | CallError:
        """Read the reply to a status check; a 402 with a batch: its results wait until there is credit."""
        body = mapping(parse_json(response.body))
        state = _state(body) if response.status == 402 or 200 <= response.status < 300 else None
        if state is not None and response.status == 402:
            said = words(mapping(body.get("error")).get("message"))
            return replace(
                state, withheld=clean(said or "add credits to get the results"), problems=(), has_inline_results=False
            )
        if state is None:
            state = batch_states.gone(provider_batch_id, response)
        return batch_states.status_refusal(self._provider, response) if state is None else state

    def status(self, key: str | None, provider_batch_id: str) -> HttpRequest:
        """Return a status check."""
        return self._get(key, self._url(f"/{quote(provider_batch_id, safe='')}"))

    def listing(self, key: str | None, since_s: float) -> HttpRequest:
        """Return the request for the first page of batches created after `since_s`, less the slack for clocks."""
        moment = datetime.fromtimestamp(max(0.0, since_s - batch_states.CLOCK_SLACK_S), UTC)
        query = {"limit": batch_states.PAGE_SIZE, "created_after": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return self._get(key, self._url(query=query))

    def read_page(self, key: str | None, response: HttpResponse) -> BatchPage | CallError:
        """Read a page of a listing; the pages after the first are not filtered by time."""

        def following(last_id: str) -> HttpRequest:
            return self._get(key, self._url(query={"limit": batch_states.PAGE_SIZE, "after": last_id}))

        return batch_states.read_page(self._provider, response, _state, following)

    def is_ours(self, state: BatchState, facts: CreateFacts, since_s: float) -> bool | None:
        """Return False where time, size or model rule it out, else None: the batch may be ours."""
        if state.model is not None and not _is_same_model(state.model, self.request_model):
            return False
        return batch_states.may_be(state, facts, since_s)

    def cancel(self, key: str | None, provider_batch_id: str) -> HttpRequest | None:  # noqa: ARG002 - there is none
        """Return None: OpenRouter has no cancel, and its DELETE takes finished batches only."""
        return None

    def results(self, key: str | None, state: BatchState) -> Sequence[FilePart]:
        """Return the status check whose reply holds the results, where it held any."""
        if not (state.is_terminal and state.has_inline_results):
            return ()
        return (FilePart("results", self.status(key, state.provider_batch_id), None),)

    def read_line(self, line: bytes) -> BatchLine:
        """Read one element of `results`."""
        return read_openai_line(line, self._provider)

    def _url(self, path: str = "", query: Mapping[str, object] | None = None) -> str:
        return f"{self._provider.base_url}/batches{path}{'?' + urlencode(query) if query else ''}"

    def _get(self, key: str | None, url: str) -> HttpRequest:
        headers = self._provider.all_headers(key)
        headers.pop("content-type", None)
        return HttpRequest("GET", url, headers, b"")


def _head(provider: OpenRouter) -> bytes:
    """Return the create up to its first request; ConfigError for a routing that batches do not know."""
    routing = mapping(mapping(provider.identity()["body"]).get("provider"))
    for name in routing:
        if name not in _ROUTING and name != _DROPPED:
            raise ConfigError(
                f"model.routing.{name}: OpenRouter's batches know only {' and '.join(_ROUTING)}; remove it or set "
                "batching.mode: per_request"
            )
    head: dict[str, Any] = {"endpoint": _ENDPOINT, "model": provider.request_model}
    kept = {name: routing[name] for name in _ROUTING if name in routing}
    if kept:
        head["provider"] = kept
    head["completion_window"] = "24h"
    return orjson.dumps(head)[:-1] + b',"requests":['


def _state(body: Mapping[str, Any]) -> BatchState | None:
    results = body.get("results")
    reasons = batch_states.problems(body.get("error"))
    state = batch_states.openai_state(body, reasons, has_results=isinstance(results, list) and bool(results))
    return None if state is None else replace(state, has_inline_results=isinstance(results, list))


def _is_same_model(one: str, other: str) -> bool:
    """Tell whether two names may mean one model: variants (`:free`) and dated snapshots are taken together.

    Too wide costs a look at results; too narrow would pay for a batch twice.
    """
    first, second = one.partition(":")[0].lower(), other.partition(":")[0].lower()
    return first.startswith(second) or second.startswith(first)
