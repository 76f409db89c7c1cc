"""The job that is measured: distinct reviews of some 200 characters, each to be labelled with one of three words."""

import csv
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.benchmarks.canned import LABELS

_SYSTEM = "You label customer reviews."
_QUESTION = "Label the sentiment of this review.\n\nReview: "
_PARTS = (
    "The box arrived two days late and a corner was dented",
    "I have used it every morning for a month now",
    "the handle feels solid and the lid closes with a click",
    "for the price I had hoped for a longer cable",
    "my daughter took it to school and has not put it down since",
    "the second one I bought behaves just like the first",
)
_SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": list(LABELS)}},
    "required": ["label"],
    "additionalProperties": False,
}
Provider = Literal["openai", "anthropic"]
_MODELS: dict[str, str] = {"openai": "gpt-4o-mini-2024-07-18", "anthropic": "claude-haiku-4-5-20251001"}
KEY_ENV = "BENCHMARK_API_KEY"
KEY = "key-of-the-benchmarks-1"


def review(number: int) -> str:
    """Return the text of a row; no two numbers give the same."""
    words = [_PARTS[(number + step) % len(_PARTS)] for step in range(3)]
    return f"{words[0]}; {words[1]}, and {words[2]}. Order {number}, bought from shop {number % 97}."


def prompt(number: int) -> str:
    """Return the question about a row."""
    return _QUESTION + review(number)


def request_body(number: int) -> dict[str, Any]:
    """Return the OpenAI request that the job makes of a row."""
    return {
        "model": _MODELS["openai"],
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": prompt(number)}],
        "max_completion_tokens": 64,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": _SCHEMA, "strict": True},
        },
    }


def write_case(
    folder: Path, rows: int, base_url: str, provider: Provider = "openai", pool: dict[str, Any] | None = None
) -> Path:
    """Write the rows and the job file; return the job file's path."""
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "stars", "text"])
        writer.writerows(row_values(number).values() for number in range(rows))
    job = {**job_settings(base_url, provider), **({"pool": pool} if pool else {})}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")
    return path


def job_settings(base_url: str, provider: Provider = "openai") -> dict[str, Any]:
    """Return the job file's content."""
    return {
        "name": "benchmark",
        "input": {"path": "reviews.csv", "key": ["id"]},
        "output": "out",
        "prompt": {"system": _SYSTEM, "template": _QUESTION + "{{ row.text }}"},
        "answer": {"field": "sentiment", "schema": _SCHEMA},
        "model": {
            "provider": provider,
            "name": _MODELS[provider],
            "base_url": f"{base_url}/v1",
            "api_key_env": KEY_ENV,
            "params": {"max_output_tokens": 64},
        },
    }


def row_values(number: int) -> dict[str, object]:
    """Return a row as it is read from the file."""
    return {"id": f"r{number:07d}", "stars": number % 5 + 1, "text": review(number)}


def model_name(provider: Provider) -> str:
    """Return the model asked for."""
    return _MODELS[provider]
