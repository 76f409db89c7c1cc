"""Which path belongs to which provider and format."""

from dataclasses import dataclass
from urllib.parse import unquote

from pipelines.sandbox.api_chat import ChatApi
from pipelines.sandbox.api_messages import MessagesApi
from pipelines.sandbox.api_responses import ResponsesApi
from pipelines.sandbox.exchange import Api, House
from pipelines.sandbox.provider_anthropic import Anthropic
from pipelines.sandbox.provider_azure import Azure
from pipelines.sandbox.provider_openai import OpenAI
from pipelines.sandbox.provider_openrouter import OpenRouter

_OPENAI, _ANTHROPIC, _OPENROUTER = OpenAI(), Anthropic(), OpenRouter()
_AZURE_DATED, _AZURE_V1 = Azure(is_dated=True), Azure(is_dated=False)
_CHAT, _LOOSE_CHAT = ChatApi(is_strict=True), ChatApi(is_strict=False)
_RESPONSES, _MESSAGES = ResponsesApi(), MessagesApi()

_DEPLOYMENTS, _DEPLOYMENT_CHAT = "/openai/deployments/", "/chat/completions"

#: What to add to the sandbox's address to get a provider's base URL (Azure and Anthropic: nothing).
BASE_PATHS = {
    "openai": "/v1",
    "openai_compatible": "/v1",
    "azure_openai": "",
    "anthropic": "",
    "openrouter": "/api/v1",
}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a path leads.

    Attributes:
        api: the format of a question; None for a models list or an unknown path.
        what: question, models, key, or unknown.
        deployment: the model named by the path (Azure), or None.
    """

    house: House
    api: Api | None
    what: str = "question"
    deployment: str | None = None


_ROUTES = {
    ("POST", "/v1/chat/completions"): Route(_OPENAI, _CHAT),
    ("POST", "/v1/responses"): Route(_OPENAI, _RESPONSES),
    ("POST", "/openai/v1/chat/completions"): Route(_AZURE_V1, _CHAT),
    ("POST", "/openai/v1/responses"): Route(_AZURE_V1, _RESPONSES),
    ("POST", "/openai/responses"): Route(_AZURE_DATED, _RESPONSES),
    ("POST", "/v1/messages"): Route(_ANTHROPIC, _MESSAGES),
    ("POST", "/api/v1/chat/completions"): Route(_OPENROUTER, _LOOSE_CHAT),
    ("GET", "/openai/v1/models"): Route(_AZURE_V1, None, "models"),
    ("GET", "/openai/models"): Route(_AZURE_DATED, None, "models"),
    ("GET", "/api/v1/models"): Route(_OPENROUTER, None, "models"),
    ("GET", "/api/v1/key"): Route(_OPENROUTER, None, "key"),
}


def find_route(method: str, path: str, *, has_anthropic_version: bool) -> Route:
    """Return where a request goes; an unknown path goes to the provider it looks like, to be refused in its words."""
    route = _ROUTES.get((method, path))
    if route:
        return route
    if method == "POST" and path.startswith(_DEPLOYMENTS) and path.endswith(_DEPLOYMENT_CHAT):
        name = unquote(path[len(_DEPLOYMENTS) : -len(_DEPLOYMENT_CHAT)])
        return Route(_AZURE_DATED, _CHAT, deployment=name)
    if method == "GET" and path == "/v1/models":
        return Route(_ANTHROPIC if has_anthropic_version else _OPENAI, None, "models")
    return Route(_house_of(path, has_anthropic_version=has_anthropic_version), None, "unknown")


def _house_of(path: str, *, has_anthropic_version: bool) -> House:
    if path.startswith("/openai/"):
        return _AZURE_V1
    if path.startswith("/api/"):
        return _OPENROUTER
    return _ANTHROPIC if has_anthropic_version else _OPENAI
