"""What tests of the sandbox over HTTP share: questions in every provider's shape, and replies."""

import http.client
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from pipelines.sandbox.server import RunningSandbox

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative", "neutral"]}, "sure": {"type": "boolean"}},
    "required": ["label", "sure"],
    "additionalProperties": False,
}
CHAT_FORMAT = {"type": "json_schema", "json_schema": {"name": "review", "strict": True, "schema": SCHEMA}}
OPENAI, DATED = "/v1/chat/completions", "/openai/deployments/mini/chat/completions?api-version=2024-10-21"
RESPONSES, MESSAGES, OPENROUTER = "/v1/responses", "/v1/messages", "/api/v1/chat/completions"
AZURE, AZURE_RESPONSES = "/openai/v1/chat/completions", "/openai/responses?api-version=2025-04-01-preview"
QUESTIONS = [OPENAI, RESPONSES, DATED, AZURE, AZURE_RESPONSES, MESSAGES, OPENROUTER]


class Got(NamedTuple):
    """A reply: status, headers with lower-case names, raw body."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


def ask(sandbox: RunningSandbox, path: str, number: int = 0, key: str | None = "k", **changes: Any) -> Got:
    """Send question `number` in the shape the path asks for; a change to None leaves a field out."""
    body = {**body_for(path, number), **changes}
    body = {name: value for name, value in body.items() if value is not None}
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers |= {"api-key": key} if path.startswith("/openai") else {"Authorization": f"Bearer {key}"}
    if path == MESSAGES:
        headers["anthropic-version"] = "2026-10-21"
    return send(sandbox, "POST", path, headers, orjson.dumps(body))


def body_for(path: str, number: int) -> dict[str, Any]:
    """Return a good request body for the path."""
    prompt = f"Label review {number}, please."
    if "responses" in path:
        return {
            "model": "m",
            "input": prompt,
            "text": {"format": {"type": "json_schema", "name": "r", "schema": SCHEMA}},
        }
    messages = [{"role": "user", "content": prompt}]
    if path == MESSAGES:
        config = {"format": {"type": "json_schema", "schema": SCHEMA}}
        return {"model": "m", "max_tokens": 64, "messages": messages, "output_config": config}
    model = {} if "deployments" in path else {"model": "openai/gpt-4o-mini" if path == OPENROUTER else "m"}
    return {**model, "messages": messages, "response_format": CHAT_FORMAT}


def send(
    sandbox: RunningSandbox, method: str, path: str, headers: dict[str, str], body: bytes | None = None, timeout: float = 20
) -> Got:  # fmt: skip
    """Make one exchange on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Got(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def text_of(path: str, body: Any) -> str:
    """Return the answer's text from a success body."""
    if "responses" in path:
        return body["output"][0]["content"][0]["text"]
    return body["content"][0]["text"] if path == MESSAGES else body["choices"][0]["message"]["content"]


def finish_of(path: str, body: Any) -> str:
    """Return how the provider says the answer ended."""
    if "responses" in path:
        return (body["incomplete_details"] or {}).get("reason", body["status"])
    return body["stop_reason"] if path == MESSAGES else body["choices"][0]["finish_reason"]


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait up to five seconds for something another process is about to do."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
