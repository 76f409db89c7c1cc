"""Which models a provider serves: its models list, page by page (providers.md 2.1, 4.1, 5.1). Free of charge."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

import orjson

from transforms.providers.base import Provider
from transforms.providers.reading import words
from transforms.records.reply import CallError, HttpRequest, HttpResponse

Send = Callable[[HttpRequest], Awaitable[HttpResponse | CallError]]

#: Providers whose list holds every model that a request may name. Azure's holds base models, not deployments, and
#: servers of one's own may answer to names they don't list.
COMPLETE = frozenset({"openai", "anthropic", "openrouter"})
_PAGE = 1000
_MAX_PAGES = 50


@dataclass(frozen=True, slots=True)
class ServedModels:
    """The models list of a provider.

    Attributes:
        names: in the provider's order; None where the answer was no models list.
        is_complete: every page was read, and the provider lists all it serves.
    """

    names: list[str] | None
    is_complete: bool


def first_request(provider: Provider, probe: HttpRequest) -> HttpRequest:
    """Return the request of the list's first page.

    Args:
        provider: the job's.
        probe: its request that tries the key.
    """
    if provider.name == "anthropic":
        return replace(probe, url=f"{bare_url(probe)}?limit={_PAGE}")
    if provider.name == "openrouter":
        return replace(probe, url=provider.base_url + "/models")
    return probe


def bare_url(request: HttpRequest) -> str:
    """Return a request's address without its query."""
    return request.url.partition("?")[0]


async def read_list(provider: Provider, request: HttpRequest, response: HttpResponse, send: Send) -> ServedModels:
    """Read the list, and its further pages.

    Args:
        provider: the job's.
        request: of the first page.
        response: to it.
        send: makes one request.
    """
    names: list[str] = []
    for _ in range(_MAX_PAGES):
        page = _page(response)
        if page is None:
            return ServedModels(names or None, is_complete=False)
        names += page.names
        if not page.has_more:
            return ServedModels(names, is_complete=provider.name in COMPLETE)
        if page.last_id is None:
            break
        following = replace(request, url=f"{bare_url(request)}?limit={_PAGE}&after_id={quote(page.last_id, safe='')}")
        answer = await send(following)
        if isinstance(answer, CallError) or answer.status >= 400:
            break
        response = answer
    return ServedModels(names, is_complete=False)


@dataclass(frozen=True, slots=True)
class _Page:
    names: list[str]
    has_more: bool
    last_id: str | None


def _page(response: HttpResponse) -> _Page | None:
    """Read a page; None where it is no models list."""
    try:
        data = orjson.loads(response.body)
        names = [str(entry["id"]) for entry in data["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return _Page(names, data.get("has_more") is True, words(data.get("last_id")))
