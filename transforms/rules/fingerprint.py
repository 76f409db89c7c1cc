"""Names made of content: request ids, batch keys, and the ids a provider sees.

Every name is a sha256 over a tag and RFC 8785 canonical JSON, so it depends on what is asked and on nothing else:
not on the process, the run (except where a run id enters on purpose) or the order of keys. DESIGN section 3.
"""

from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from typing import Any

import orjson

from transforms.records.request import Prompt
from transforms.rules.canonical import canonical_json

_REQUEST_TAG = "request"
_BATCH_TAG = "batch"
_BATCH_ID_TAG = "batch_id"
_RUN_TAG = "run_nonce"


def tagged_sha256(tag: str, obj: object) -> str:
    """Return the hex sha256 of the tag, a zero byte and the canonical JSON of `obj`.

    The tag keeps hashes of different things apart even where their content is equal.

    Raises:
        ValueError: `obj` holds text that is not Unicode.
    """
    return sha256(_prefix(tag) + canonical_json(obj)).hexdigest()


class RequestIdentity:
    """Gives request ids to the prompts of one job; the part all prompts share is hashed once.

    `request_id(prompt)` equals `tagged_sha256("request", {"identity": tagged_sha256("identity", identity),
    "prompt": [system, turns]})`. The prompt part is written by orjson for speed: it consists of strings, arrays
    and null only, and for those orjson's bytes are RFC 8785's (the same escapes, no spaces, other characters as
    they are; the two differ only in numbers and in the order of keys).
    """

    def __init__(self, identity: dict[str, Any]) -> None:
        """Hash the static part.

        Args:
            identity: everything but the prompt that can change an answer (`Provider.identity()`).
        """
        static = tagged_sha256("identity", identity)
        self._head = _prefix(_REQUEST_TAG) + b'{"identity":"' + static.encode("ascii") + b'","prompt":'

    def request_id(self, prompt: Prompt) -> str:
        """Return the hex sha256 that names this question; equal questions share it (P2).

        Raises:
            ValueError: the prompt holds text that is not Unicode; `PromptTemplate.render` never gives such a one.
        """
        return sha256(self._head + orjson.dumps((prompt.system, prompt.turns)) + b"}").hexdigest()


def batch_key(provider: str, model: str, request_ids: Iterable[str]) -> str:
    """Return the idempotency key of a group: the same requests give the same key in any order."""
    return tagged_sha256(_BATCH_TAG, {"provider": provider, "model": model, "request_ids": sorted(request_ids)})


def batch_id(run_id: str, batch_key: str) -> str:
    """Return the id of a group's execution record in one run: "b" and 20 hex digits, the same on every retry."""
    return "b" + tagged_sha256(_BATCH_ID_TAG, [run_id, batch_key])[:20]


def custom_id(run_id: str, request_id: str) -> str:
    """Return what a provider sees for a request inside a batch: run nonce, dash, 40 hex digits of the request id.

    49 characters, within the `^[A-Za-z0-9_-]{1,64}$` that every provider takes.
    """
    return f"{_nonce(run_id)}-{request_id[:40]}"


def stable_shard(request_id: str, shards: int) -> int:
    """Return a shard in 0..shards-1 that is a function of the request alone, so a retry groups alike."""
    return int(request_id[:15], 16) % shards


@cache
def _nonce(run_id: str) -> str:
    return tagged_sha256(_RUN_TAG, run_id)[:8]


def _prefix(tag: str) -> bytes:
    return b"rowbeam:" + tag.encode("utf-8") + b"\0"
