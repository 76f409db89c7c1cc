"""A model family's own tokenizer, where this machine has both the tiktoken package and the family's vocabulary.

Nothing is ever downloaded: tiktoken is only asked for a vocabulary whose file already lies in its cache, whole.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from transforms.records.request import Prompt

#: Tokens that a chat format adds to each turn, and once to open the answer.
_TURN_TOKENS = 3
_OPENING_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A vocabulary by tiktoken's name, its file's name in tiktoken's cache, and that file's sha256."""

    name: str
    cached_as: str
    sha256: str


O200K = Vocabulary(
    "o200k_base",
    "fb374d419588a4632f3f557e76b4b70aebbca790",
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
)
CL100K = Vocabulary(
    "cl100k_base",
    "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
)
#: By how a model's name begins; the first that fits counts.
_FAMILIES: Mapping[str, Vocabulary] = {
    **dict.fromkeys(("gpt-5", "gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-oss", "chatgpt-4o", "o1", "o3", "o4"), O200K),
    **dict.fromkeys(("gpt-4", "gpt-3.5", "gpt-35"), CL100K),
}
_PROVIDERS = frozenset({"openai", "azure.ai.openai", "openrouter"})


class Tokenizer:
    """Counts tokens as the model does.

    Attributes:
        name: the vocabulary's.
    """

    def __init__(self, name: str, encoding: Any) -> None:
        self.name = name
        self._encoding = encoding

    def text_tokens(self, text: str) -> int:
        """Return the tokens of a text; special tokens in it count as plain text, as providers read them."""
        return len(self._encoding.encode_ordinary(text))

    def prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of a conversation with its frame."""
        texts = [text for _, text in prompt.turns]
        if prompt.system is not None:
            texts.append(prompt.system)
        return _OPENING_TOKENS + sum(self.text_tokens(text) + _TURN_TOKENS for text in texts)


def find_tokenizer(provider_name: str, model: str) -> Tokenizer | None:
    """Return the tokenizer of a model, or None where it is not known or not at hand."""
    vocabulary = vocabulary_of(provider_name, model)
    return None if vocabulary is None else load_tokenizer(vocabulary)


def vocabulary_of(provider_name: str, model: str) -> Vocabulary | None:
    """Return the vocabulary of a model's family, or None for families that publish none."""
    if provider_name not in _PROVIDERS:
        return None
    vendor, _, name = model.rpartition("/")
    if vendor not in ("", "openai"):
        return None
    return next((found for start, found in _FAMILIES.items() if name.startswith(start)), None)


def load_tokenizer(vocabulary: Vocabulary) -> Tokenizer | None:
    """Return the tokenizer if its file lies whole in tiktoken's cache and tiktoken is installed. No connection."""
    folder = _cache_folder()
    if folder is None:
        return None
    try:
        data = (folder / vocabulary.cached_as).read_bytes()
    except OSError:
        return None
    # tiktoken would remove a damaged file and download it.
    if hashlib.sha256(data).hexdigest() != vocabulary.sha256:
        return None
    try:
        return Tokenizer(vocabulary.name, import_module("tiktoken").get_encoding(vocabulary.name))
    except (ImportError, ValueError):
        return None


def _cache_folder() -> Path | None:
    """Return where tiktoken keeps what it has downloaded; None where its cache is switched off."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"
