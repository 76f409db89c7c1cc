"""The JSON value inside a model's text: strict reading, reading past fences and prose, and careful recovery.

A value comes out only if the text states it. Recovery (json_repair) mends quotes, commas and brackets; a result that
lost or gained a word, a number or an empty text against the source is refused, because a wrong answer in a table is
worse than a re-ask.
"""

import json
import re
from collections.abc import Iterator
from math import isfinite
from typing import Any

_FENCE = re.compile(r"```[\w-]*[ \t]*\r?\n?(.*?)```", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_WORD = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[^\W\d_]+")
_BRACKETS = re.compile(r"[{}\[\]]")
_OPENERS = re.compile(r"[{\[]")
_MAX_STARTS = 200
_MAX_REPAIR_CHARS = 20_000
_MAX_REPAIR_DEPTH = 100
_NOT_A_NUMBER = re.compile(r"[:,\[]\s*[+-]?(?:nan|inf)", re.IGNORECASE)
_COMPLETE_ENDS = "}]\"'"
_PYTHON_WORDS = {"none": "null"}


class NotJsonError(ValueError):
    """The text holds no JSON value, or more than one; the message is a clause for a sentence."""


class AmbiguousJsonError(NotJsonError):
    """The text states something, but not one clear JSON value: two values, a key twice, NaN. Recovery would guess."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise AmbiguousJsonError(f"the key {json.dumps(name)} occurs twice in one object")
            seen.add(name)
    return members


def _float(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise AmbiguousJsonError(f"the number {text[:40]} is too large")
    return number


def _constant(text: str) -> None:
    raise AmbiguousJsonError(f"{text} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_float, parse_constant=_constant)


def read_json(text: str) -> Any:
    """Return the value of a text that is one JSON document; white space around it is allowed.

    Raises:
        NotJsonError: it is none, or nested too deeply to read.
        AmbiguousJsonError: a key occurs twice in one object, or NaN, Infinity or a number beyond a double occurs.
    """
    try:
        return _DECODER.decode(text)
    except NotJsonError:
        raise
    except json.JSONDecodeError as exc:
        raise NotJsonError(f"{exc.msg} (character {exc.pos + 1})") from exc
    except (ValueError, RecursionError) as exc:
        raise NotJsonError("it is too large or nested too deeply to read") from exc


def find_json(text: str, kinds: tuple[type, ...]) -> Any:
    """Return the one JSON object or array of the wanted kinds that stands between fences or inside prose.

    Args:
        text: a model's whole answer.
        kinds: what the value may be, of dict and list.

    Raises:
        NotJsonError: there is none.
        AmbiguousJsonError: there are several that differ, or the first is ambiguous in itself.
    """
    found: list[Any] = []
    for body in (*_FENCE.findall(text), text):
        found.extend(value for value in _values_in(body, kinds) if value not in found)
        if found:
            break
    if len(found) > 1:
        raise AmbiguousJsonError(f"it holds {len(found)} different JSON values, so which one is the answer is unclear")
    if not found:
        raise NotJsonError("it holds no complete JSON value")
    return found[0]


def recover_json(text: str, kinds: tuple[type, ...]) -> Any:
    """Return the value of almost-JSON: single quotes, trailing commas, comments, missing brackets.

    Raises:
        NotJsonError: nothing was found that says exactly what the text says.
    """
    body = _outermost(text)
    if not body or len(body) > _MAX_REPAIR_CHARS or _is_runaway(body):
        raise NotJsonError("it holds no JSON value that could be repaired")
    # Seldom needed, and a tenth of the time that a command takes to start.
    from json_repair import repair_json

    try:
        value = repair_json(body, return_objects=True, skip_json_loads=True)
    except Exception as exc:  # json_repair guards its own parsing with many kinds of errors
        raise NotJsonError("it is not JSON and could not be repaired") from exc
    if not isinstance(value, kinds) or not value or not _says_the_same(body, value):
        raise NotJsonError("it is not JSON and could not be repaired without loss")
    return value


def unfenced(text: str) -> str:
    """Return the text without white space and without the one fence that may enclose all of it."""
    whole = text.strip()
    match = _FENCE.fullmatch(whole)
    return match.group(1).strip() if match else whole


def _values_in(text: str, kinds: tuple[type, ...]) -> Iterator[Any]:
    position = 0
    for _ in range(_MAX_STARTS):
        match = _OPENERS.search(text, position)
        if match is None:
            return
        try:
            value, position = _DECODER.raw_decode(text, match.start())
        except AmbiguousJsonError:
            raise
        except (ValueError, RecursionError):
            position = match.start() + 1
            continue
        if isinstance(value, kinds):
            yield value


def _outermost(text: str) -> str:
    """Return the part from the first opening bracket to the last closing one (to the end if there is none)."""
    fenced = _FENCE.search(text)
    body = fenced.group(1) if fenced else text
    start = _OPENERS.search(body)
    if start is None:
        return ""
    end = max(body.rfind("}"), body.rfind("]"))
    return body[start.start() : end + 1] if end > start.start() else body[start.start() :]


def _is_runaway(body: str) -> bool:
    """Tell whether brackets open without end, as a model in a loop writes; json_repair is quadratic in their depth."""
    depth = deepest = 0
    for match in _BRACKETS.finditer(body):
        depth += 1 if match.group() in "{[" else -1
        deepest = max(deepest, depth)
    return deepest > _MAX_REPAIR_DEPTH


def _says_the_same(source: str, value: Any) -> bool:
    plain = _ESCAPE.sub(_unescape, source)
    texts = list(_scalars(value))
    if source.rstrip()[-1] not in _COMPLETE_ENDS or source.replace('\\"', "").count('"') % 2:
        return False  # it stops inside a text or a number
    if _NOT_A_NUMBER.search(source):
        return False
    if texts.count("") > source.count('""') + source.count("''"):
        return False
    return _words(plain) == _words(" ".join(texts))


def _unescape(match: re.Match[str]) -> str:
    if match.group(1):
        return chr(int(match.group(1), 16))
    return " " if match.group(2) in "nrtbf" else match.group(2)


def _words(text: str) -> list[str]:
    words = []
    for word in _WORD.findall(text):
        if word[0].isdecimal() and word.isascii():
            words.append(repr(float(word)))
        else:
            folded = word.casefold()
            words.append(_PYTHON_WORDS.get(folded, folded))
    return words


def _scalars(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield str(name)
            yield from _scalars(member)
    elif isinstance(value, list):
        for member in value:
            yield from _scalars(member)
    else:
        yield str(value)
