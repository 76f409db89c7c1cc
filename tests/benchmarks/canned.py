"""The one answer that the benchmarks' servers give, in the shape and with the headers of each provider."""

import orjson

LABELS = ("positive", "negative", "neutral")
_TEXT = '{"label":"positive"}'

OPENAI_BODY = orjson.dumps(
    {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion",
        "created": 1794000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 82,
            "completion_tokens": 7,
            "total_tokens": 89,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_34a54ae93c",
    }
)
OPENAI_HEADERS = {
    "content-type": "application/json",
    "x-request-id": "req_7d1f0c6f5f1e4a6db1f4d3a1c55f0a11",
    "openai-processing-ms": "480",
    "openai-version": "2020-10-01",
    "x-ratelimit-limit-requests": "30000000",
    "x-ratelimit-limit-tokens": "15000000000",
    "x-ratelimit-remaining-requests": "29999999",
    "x-ratelimit-remaining-tokens": "14999999000",
    "x-ratelimit-reset-requests": "2ms",
    "x-ratelimit-reset-tokens": "4ms",
}

ANTHROPIC_BODY = orjson.dumps(
    {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": _TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 82,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 7,
            "service_tier": "standard",
        },
    }
)
ANTHROPIC_HEADERS = {"content-type": "application/json", "request-id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def http_response(headers: dict[str, str], body: bytes) -> bytes:
    """Return a whole HTTP/1.1 response of status 200."""
    lines = [f"{name}: {text}" for name, text in headers.items()]
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, f"content-length: {len(body)}", "", ""])
    return head.encode("ascii") + body
