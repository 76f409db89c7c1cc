"""Secrets out of whatever is about to be written: logs, errors, payloads, reports (P9).

Two nets. Exact: the run's own secrets in every form they take on the way (as they are, escaped in JSON or a URL, inside
Base64). Patterns: what looks like a key of a known kind, for secrets nobody told us about. Hex digests of ours are
neither, and stay.
"""

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

REDACTED = "[redacted]"

#: Shorter values are no secrets (local servers take "none" or "EMPTY"), and would blank out ordinary words.
MIN_SECRET_CHARS = 8

_KEY_NAMES = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "api-key",
        "x-api-key",
        "api_key",
        "apikey",
        "x-goog-api-key",
        "ocp-apim-subscription-key",
    }
)
_QUOTING_LEVELS = 3
_QUOTES = r"""(?:\\?["'])?"""
# A pattern is tried only where its marker occurs, because looking for markers is many times faster. Group 1 stays.
_PATTERNS = tuple(
    (marker, re.compile(pattern))
    for marker, pattern in (
        ("sk-", r"sk-(?<![A-Za-z0-9]sk-)()[A-Za-z0-9_-]{16,}"),
        ("AIza", r"AIza(?<![A-Za-z0-9_-]AIza)()[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
        ("AKIA", r"()(?<![A-Za-z0-9])AKIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
        ("ASIA", r"()(?<![A-Za-z0-9])ASIA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    )
)
_BEARER = re.compile(r"((?i:bearer)\s+)(?:(?=[^\s\"']*\d)[A-Za-z0-9._~+/-]{12,}|[A-Za-z0-9._~+/-]{24,})=*")
_BASIC = re.compile(
    rf"((?i:authorization){_QUOTES}\s*[:=,]\s*{_QUOTES}(?i:basic)\s+)[A-Za-z0-9+/_-]{{4,}}=*",
)
_NAMED_KEY = re.compile(
    rf"((?i:api[-_]?key|subscription-key){_QUOTES}\s*[:=,]\s*{_QUOTES})(?=[^\s\"']*\d)[^\s\"',;&\\}}\])]{{12,}}",
)
# What each word of a JSON text holds whole or not at all: a secret of other characters may lie across two of them.
_ONE_WORD = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9._~+/=%-]+")
# In lower case, for patterns that take either; "key" is in all of the last one's.
_KEY, _KEY_MARKERS = "key", ("api-key", "api_key", "apikey", "subscription-key")
_KEPT = r"\1" + REDACTED


class Redactor:
    """Replaces secrets by "[redacted]". Built inside a worker from the environment; refuses to be pickled."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Derive every form of each secret; values shorter than MIN_SECRET_CHARS are not looked for."""
        forms = {form for secret in secrets if len(secret) >= MIN_SECRET_CHARS for form in _forms(secret)}
        # The longest first, so that a form that contains another is replaced as a whole.
        self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._shortest = min(map(len, forms), default=0)

    def text(self, text: str) -> str:
        """Return the text without secrets; the same object when there are none."""
        text = self.own(text)
        for marker, pattern in _PATTERNS:
            if marker in text:
                text = pattern.sub(_KEPT, text)
        lowered = text.lower()
        if "bearer" in lowered:
            text = _BEARER.sub(_KEPT, text)
        if "authorization" in lowered:
            text = _BASIC.sub(_KEPT, text)
        if _KEY in lowered and any(marker in lowered for marker in _KEY_MARKERS):
            text = _NAMED_KEY.sub(_KEPT, text)
        return text

    def own(self, text: str) -> str:
        """Return the text without the secrets given; what only looks like one stays. For answers, which are data."""
        if len(text) >= self._shortest:
            for form in self._forms:
                if form in text:
                    text = text.replace(form, REDACTED)
        return text

    def is_plain(self, text: str) -> bool:
        """Whether the text holds nothing that a secret is told by; `text` and `own` then leave it as it is.

        What is told apart here is found in a text wherever it is cut, as long as no cut goes through a word: texts
        whose every word is plain are plain together.
        """
        for form in self._forms:
            if form in text:
                return False
        for marker, _ in _PATTERNS:
            if marker in text:
                return False
        lowered = text.lower()
        if "bearer" in lowered or "authorization" in lowered:
            return False
        return not (_KEY in lowered and any(marker in lowered for marker in _KEY_MARKERS))

    @property
    def looks_for_words(self) -> bool:
        """Whether each secret given, in each of its forms, is one word: no punctuation of JSON, and not only digits."""
        return all(_ONE_WORD.fullmatch(form) for form in self._forms)

    def value(self, value: Any) -> Any:
        """Return a copy of nested dicts and lists with every text redacted, keys included.

        The whole value of a header that carries a key (authorization, api-key and their like) is redacted, whatever
        it looks like. Exceptions become their redacted text; other values stay as they are.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self._member(key, member) for key, member in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(member) for member in value]
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "replace"))
        return self.error(value) if isinstance(value, BaseException) else value

    def error(self, error: BaseException) -> str:
        """Return an exception's class and text on one line, without secrets."""
        words = " ".join(str(error).split())
        return self.text(f"{type(error).__name__}: {words}" if words else type(error).__name__)

    def _member(self, key: Any, member: Any) -> Any:
        if isinstance(key, str) and isinstance(member, str) and member and key.lower() in _KEY_NAMES:
            return REDACTED
        return self.value(member)

    def __repr__(self) -> str:
        """Say how many forms are looked for, never which."""
        return f"Redactor({len(self._forms)} forms)"

    def __reduce__(self) -> NoReturn:
        """Refuse: a pickled stage must not hold a secret."""
        raise TypeError("a Redactor holds secrets and is not pickled; build it in the worker's setup")


def _forms(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    plain = {
        secret,
        quote(raw, safe=""),
        quote(raw),
        quote_plus(raw),
    }
    # A log line quotes an error that quotes a reply: escapes upon escapes, where the secret has anything to escape.
    for _ in range(_QUOTING_LEVELS):
        plain |= {escaped(form)[1:-1] for form in plain for escaped in (json.dumps, _unicode_json, repr)}
    return plain | {form for shift in range(3) for form in _base64_forms(raw, shift)}


def _unicode_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _base64_forms(raw: bytes, shift: int) -> tuple[str, str]:
    """Return the Base64 digits that `raw` alone decides when it stands `shift` bytes into a group of three.

    That finds it in "Basic base64(user:key)" whatever the user is.
    """
    padded = b"\0" * shift + raw
    first = -(-shift * 8 // 6)
    last = len(padded) * 8 // 6
    return (
        b64encode(padded).decode("ascii")[first:last],
        urlsafe_b64encode(padded).decode("ascii")[first:last],
    )
