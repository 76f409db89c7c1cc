"""What is wrong with a job, in one line each: the key's path, the value, what is allowed, the cure."""

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import orjson
from pydantic import BaseModel, ValidationError

from transforms.records.settings import Job

Place = Callable[[tuple[str, ...]], str]
"""Gives the beginning of a line: the file or override, and the key's path."""

_MAX_LINES = 10
_SHOWN_CHARS = 60
_SECRET_KEYS = frozenset({"api_key", "apikey", "x_api_key", "authorization"})
_FREE_NAMES = frozenset({"input", "prompt", "answer"})  # a column or an answer's member may have any name
_SECRET_VALUE = re.compile(r"\s*(?:Bearer\s+)?sk-[A-Za-z0-9_\-]{8,}\s*")
_URL_LOGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^/\s]*@")
_PATTERN_WORDS = {
    "name": "use letters, digits, dot, _ and -, at most 100, beginning with a letter or digit",
    "answer.field": "use letters, digits and _, not beginning with a digit",
    "input.bigquery.table": "write project.dataset.table",
    "model.api_key_secret": "write projects/P/secrets/S/versions/V, or .../latest",
    "sinks.bigquery.dataset": "write project.dataset",
    "sinks.bigquery.prefix": "use letters, digits and _, at most 100, beginning with a letter",
}


def validation_lines(error: ValidationError, data: dict[str, Any], place: Place) -> str:
    """Turn pydantic's findings into lines, one for each key that is wrong.

    Args:
        error: what checking `data` as a Job raised.
        data: the job as read, overrides applied.
        place: how a line begins.
    """
    lines: dict[tuple[str, ...], str] = {}
    for found in error.errors(include_url=False):
        path = _data_path(found["loc"], data)
        if path not in lines:
            lines[path] = f"{place(path)}: {_sentence(found, path, data)}"
    return "\n".join(list(lines.values())[:_MAX_LINES])


def secret_lines(data: dict[str, Any], place: Place) -> str:
    """Give a line for each value that looks like a secret, never showing it; "" when there is none."""
    cure = "set model.api_key_env to the name of an environment variable that holds it"
    lines = []
    for path, value in _leaves(data, ()):
        key = path[-1].lower().replace("-", "_")
        text = value if isinstance(value, str) else ""
        is_key = key in _SECRET_KEYS and path[0] not in _FREE_NAMES and value is not None
        if is_key or _SECRET_VALUE.fullmatch(text):
            lines.append(f"{place(path)}: secrets don't belong in a job; remove it, and {cure}")
        elif _URL_LOGIN.match(text):
            lines.append(f"{place(path)}: this address holds a login; remove it, and {cure}")
    return "\n".join(lines)


def later_lines(data: dict[str, Any], place: Place) -> str:
    """Give a line for each path in a store that can't be read or written; "" when there is none."""
    found = []
    input_settings = data.get("input")
    paths = input_settings.get("path") if isinstance(input_settings, dict) else None
    named = [(("input", "path"), path) for path in (paths if isinstance(paths, list) else [paths])]
    for path, value in [*named, (("output",), data.get("output"))]:
        if isinstance(value, str) and "://" in value and not value.startswith("gs://"):
            found.append(
                f"{place(path)}: {show(value)} is in a store that can't be read or written; name a local path, or a gs:// one"
            )
    return "\n".join(found)


def contradiction_lines(job: Job, place: Place) -> str:
    """Give a line for each value that is empty or goes against another; "" when there is none."""
    lines = []
    if not job.output.strip():
        lines.append(f"{place(('output',))}: is empty; name the folder for the results, such as out")
    if not job.model.name.strip():
        lines.append(f"{place(('model', 'name'))}: is empty; name the model")
    lines += [
        f'{place(("audit", "redact"))}: the column "{name}" is in input.key too, and rows go by their key in all '
        "outputs, so it would show; take it out of one of the two"
        for name in job.audit.redact
        if name in job.input.key
    ]
    return "\n".join(lines)


def show(value: Any) -> str:
    """Write a value for an error message, cut to a readable length."""
    shown = orjson.dumps(value, default=str).decode()
    return shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "..."


def closest(name: str, known: list[str]) -> str:
    """Give "; did you mean X?" for a likely slip, else what there is."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"


def model_at(path: tuple[str, ...]) -> type[BaseModel] | None:
    """Give the settings class that a key path of the job holds, or None where it holds something else."""
    model: type[BaseModel] | None = Job
    for key in path:
        if model is None:
            return None
        field = {info.alias or name: info for name, info in model.model_fields.items()}.get(key)
        model = None if field is None else _model_in(field.annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Give the settings class of an annotation such as X or X | None."""
    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def keys_of(model: type[BaseModel]) -> list[str]:
    """List the keys a part of the job may have, as the job file spells them."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _data_path(location: tuple[int | str, ...], data: Any) -> tuple[str, ...]:
    """Drop from pydantic's location the names of union members, which are no keys of the job."""
    path: list[str] = []
    node = data
    for number, part in enumerate(location):
        if isinstance(node, dict) and (part in node or number == len(location) - 1):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            continue
        path.append(str(part))
    return tuple(path)


def _sentence(found: Any, path: tuple[str, ...], data: dict[str, Any]) -> str:
    name = ".".join(path)
    if found["type"] == "extra_forbidden":
        return _unknown_key(path)
    if found["type"] == "missing":
        return "is missing; add it"
    value = _value_at(path, data)
    if found["type"] == "value_error":
        problem = str(found["ctx"]["error"])
        return f"{show(value)} {problem}" if not isinstance(value, dict) else problem
    if found["type"] == "string_pattern_mismatch" and name in _PATTERN_WORDS:
        return f"{show(value)} is not allowed; {_PATTERN_WORDS[name]}"
    return f"{show(value)} is not allowed; {_cure(found, value)}"


def _cure(found: Any, value: Any) -> str:
    context = found.get("ctx", {})
    cures: dict[str, str] = {
        "literal_error": f"use {context.get('expected')}",
        "list_type": f"write a list: [{value}]",
        "string_type": f'write text: "{value}"' if isinstance(value, int | float) else "write text",
        "model_type": "write keys and values below it",
        "dict_type": "write keys and values below it",
    }
    bounds = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    for kind, bound in bounds.items():
        cures[kind] = f"give a number {words[bound]} {context.get(bound)}"
    message = str(found["msg"]).removeprefix("Input ")
    return cures.get(found["type"], f"it {message}")


def _unknown_key(path: tuple[str, ...]) -> str:
    model = model_at(path[:-1])
    known = keys_of(model) if model is not None else []
    close = difflib.get_close_matches(path[-1], known, n=1)
    elsewhere = [".".join(other) for other in _all_paths(Job, ()) if other[-1] == path[-1]]
    if not close and elsewhere:
        return f"unknown key; did you mean {elsewhere[0]}?"
    return f"unknown key; {closest(path[-1], known)}"


def _all_paths(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key in keys_of(model):
        yield (*above, key)
        inner = model_at((*above, key))
        if inner is not None:
            yield from _all_paths(inner, (*above, key))


def _value_at(path: tuple[str, ...], data: Any) -> Any:
    for part in path:
        data = data[int(part)] if isinstance(data, list) else data.get(part)
    return data


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _leaves(value, (*path, str(number)))
    else:
        yield path, node
