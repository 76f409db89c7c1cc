"""The hash of a rendered prompt; apart from `prompt.py`, so that whoever only checks it loads no template engine."""

from hashlib import sha256

import orjson

from transforms.records.request import Prompt


def prompt_sha256(prompt: Prompt) -> str:
    """Return the hex sha256 of the canonical JSON of [system, turns].

    Raises:
        TypeError: the prompt holds text that is not Unicode.
    """
    return sha256(orjson.dumps((prompt.system, prompt.turns))).hexdigest()
