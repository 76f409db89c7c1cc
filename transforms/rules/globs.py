"""Globs over the names of objects: `*`, `?` and `[...]` within a name, `**` across folders."""

import re

_MAGIC = re.compile(r"(\*\*|\*|\?|\[[^]]+\])")
_WORDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return what a whole name must match."""
    return re.compile("".join(map(_as_regex, _MAGIC.split(pattern))))


def fixed_prefix(pattern: str) -> str:
    """Return what every matching name begins with."""
    return _MAGIC.split(pattern, maxsplit=1)[0]


def _as_regex(part: str) -> str:
    if part.startswith("[") and len(part) > 2:
        return "[" + ("^" if part[1] in "!^" else "") + re.escape(part[1:-1].lstrip("!^")).replace(r"\-", "-") + "]"
    return _WORDS.get(part, re.escape(part))
