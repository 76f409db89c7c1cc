"""Results of every provider's batches as the sandbox answers, and the ways in which single lines are changed."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import orjson

from pipelines.sandbox.running import RunningSandbox
from tests.stages.harness import SCHEMA, asked_row
from transforms.providers import make_provider
from transforms.records.request import Lane, ModelRequest, Prompt, PromptHashes
from transforms.records.settings import ModelSettings
from transforms.rules.fingerprint import custom_id

RUN_ID = "20261121T053412-3f9a2c"
KEY_ENV = "ALIKE_API_KEY"
KEY = "sk-canary-0123456789abcdef"
COUNT = 22

MODELS: Mapping[str, dict[str, Any]] = {
    "chat": {"provider": "openai", "name": "gpt-4o-mini"},
    "responses": {"provider": "openai", "name": "gpt-4o-mini", "api": "responses"},
    "azure": {
        "provider": "azure_openai",
        "name": "gpt-4o-mini",
        "deployment": "mini",
        "batch_deployment": "mini-batch",
    },
    "anthropic": {"provider": "anthropic", "name": "claude-haiku-4-5", "params": {"max_output_tokens": 64}},
    "openrouter": {"provider": "openrouter", "name": "openai/gpt-4o-mini"},
}


@dataclass(frozen=True)
class Case:
    """One provider's batch: its settings and schema, the requests in their order, and a result line of each."""

    model: ModelSettings
    schema: dict[str, Any] | None
    requests: list[ModelRequest]
    lines: list[bytes]


def make_case(sandbox: RunningSandbox, name: str, schema: dict[str, Any] | None) -> Case:
    """Ask the sandbox each request in real time, and write its answers as that provider's batches do."""
    facts = MODELS[name]
    model = ModelSettings(**facts, base_url=sandbox.base_url(facts["provider"]),
                          api_key_env=KEY_ENV)  # fmt: skip
    provider = make_provider(model, schema)
    requests = [_request(number) for number in range(COUNT)]
    lines = []
    with httpx.Client() as client:
        for number, request in enumerate(requests):
            asked = provider.request(provider.body(request.prompt), KEY)
            body = client.post(asked.url, headers=asked.headers, content=asked.body).json()
            lines.append(_line(facts["provider"], number, request, body))
    return Case(model, schema, requests, lines)


def with_schema(name: str) -> dict[str, Any] | None:
    """Return the schema of a provider's case: answers that are JSON hold quotes, free text has none."""
    return None if name in ("azure", "responses") else SCHEMA


def _request(number: int) -> ModelRequest:
    request_id = f"{number:02x}" * 32
    system = None if number % 5 == 4 else 'You label "reviews" 100 %.'
    words = f"Review {number}: {'é ü 漢 ' * (number % 3)}" + ("a task-based key" if number % 7 == 3 else '"good"\n')
    return ModelRequest(
        request_id, Prompt(system, (("user", words),)), None, PromptHashes("p" * 64, "t" * 64, f"{number:064x}", None),
        Lane.MAIN, request_id, riders=(asked_row(f"row-{number}"),),
    )  # fmt: skip


def _line(provider: str, number: int, request: ModelRequest, body: dict[str, Any]) -> bytes:
    named = {"custom_id": custom_id(RUN_ID, request.request_id)}
    if provider == "anthropic":
        return orjson.dumps({**named, "result": {"type": "succeeded", "message": body}})
    response = {"status_code": 200, "request_id": f"req_{number:032x}", "body": body}
    return orjson.dumps({"id": f"batch_req_{number:024x}", **named, "response": response, "error": None})


def _body(line: dict[str, Any]) -> dict[str, Any]:
    body = (line["response"] or {}).get("body") if "response" in line else line["result"].get("message")
    return body if isinstance(body, dict) else {}


def _leaves(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        _leaves(value[key], found)
    return found


def _set_leaf(line: dict[str, Any], draw: random.Random) -> None:
    holder, key = draw.choice(_leaves(line, []))
    holder[key] = draw.choice(
        [None, 0, -1, 1.5, True, "", " ", "stop", "sk-abcdefghijklmnopqrstu", [], {}, 10**17, KEY]
    )


def _set_text(line: dict[str, Any], draw: random.Random) -> None:
    texts = [(holder, key) for holder, key in _leaves(_body(line), []) if key in ("content", "text")]
    for holder, key in texts:
        if isinstance(holder[key], str):
            holder[key] = draw.choice(
                [
                    "",
                    " ",
                    "half \ud83d",
                    "a/b\u2028\x7f\x00é\\u",
                    f"it is {KEY}!",
                    "Bearer abcdefgh12345678",
                    "risk-free",
                ]
            )


def _set_counts(line: dict[str, Any], draw: random.Random) -> None:
    for holder, key in _leaves(_body(line).get("usage") or {}, []):
        if type(holder[key]) is int:
            holder[key] = draw.choice([0, 7, draw.randrange(10**5), 10 ** draw.randrange(14, 21)])


def _drop_leaf(line: dict[str, Any], draw: random.Random) -> None:
    holder, key = draw.choice(_leaves(line, []))
    del holder[key]


def _add_key(line: dict[str, Any], draw: random.Random) -> None:
    holder = draw.choice([line, _body(line), _body(line).get("usage") or line])
    holder[draw.choice(["error", "id", "extra", "object", "service_tier"])] = draw.choice(
        ["x", "flex", {"code": "no"}, 3]
    )


#: Changes of a parsed line.
_CHANGES: tuple[Callable[[dict[str, Any], random.Random], None], ...] = (
    _set_leaf, _set_text, _set_text, _set_counts, _set_counts, _drop_leaf, _add_key,
)  # fmt: skip


def _double_key(line: bytes, draw: random.Random) -> bytes:
    text = line.decode()
    key = draw.choice(['"id":', '"content":', '"text":', '"usage":', '"request_id":', '"model":', '"custom_id":'])
    start = text.find(key)
    value = draw.choice(['"x"', "null", "3", '{"prompt_tokens":1}'])
    return line if start < 0 else f"{text[:start]}{key}{value},{text[start:]}".encode()


def changed(line: bytes, seed: int) -> bytes:
    """Return a line as it is, written otherwise, changed in its values, or broken; by the seed."""
    draw = random.Random(seed)
    way = draw.randrange(12)
    if way < 5:
        parsed = json.loads(line)
        draw.choice(_CHANGES)(parsed, draw)
        return json.dumps(parsed, ensure_ascii=draw.random() < 0.5, separators=(",", ":")).encode("utf-8", "replace")
    ways: dict[int, Callable[[], bytes]] = {
        5: lambda: json.dumps(json.loads(line)).encode(),
        6: lambda: _double_key(line, draw),
        7: lambda: line[: draw.randrange(len(line))],
        8: lambda: line.replace(b"o", b"\xff", 1) if draw.random() < 0.5 else line + b"\n" + line,
        9: lambda: line.replace(b"a", b"\\u0061", draw.randrange(1, 9)),
    }
    return ways[way]() if way in ways else line
