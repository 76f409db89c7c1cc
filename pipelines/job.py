"""The job file: YAML, environment and overrides in; a checked, frozen Job out, or one clear line.

Precedence: the file, then `ROWBEAM_A__B=value`, then `--set a.b=value`. Relative paths of the job (input, output,
templates, lookup files, model manifest, GGUF model) start at the job file's folder, wherever the command is run.
Nothing is interpolated: a job holds names of environment variables, never secrets.
"""

import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import rfc8785
from pydantic import BaseModel, PydanticUserError, ValidationError

from pipelines.job_errors import (
    closest,
    contradiction_lines,
    later_lines,
    model_at,
    secret_lines,
    show,
    validation_lines,
)
from pipelines.job_paths import with_absolute_paths
from pipelines.job_yaml import load_mapping, load_value
from transforms.records.errors import ConfigError
from transforms.records.settings import Job
from transforms.storage.gcs import StorageError
from transforms.storage.objects import is_remote, parent, read_bytes

_ENV_PREFIX = "ROWBEAM_"
_EXACT_INTEGER = 2**53
_FIELD_SUFFIXES = (
    "",
    "_model",
    "_usage",
    "_template_hash",
    "_variables_hash",
    "_template_source",
    "_lookup_hash",
    "_lookup_source",
    "_request_id",
)


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job that is ready to run.

    Attributes:
        job: the settings, with absolute paths.
        path: the job file, as it was named.
        folder: the job file's folder, absolute.
        sha256: hex digest of the settings with overrides and defaults, paths as the job wrote them, so that the
            same job has the same digest on every machine. The files it names are not part of it.
    """

    job: Job
    path: str
    folder: str
    sha256: str


def load_job(path: str, overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ) -> LoadedJob:
    """Read and check a job file.

    Args:
        path: the YAML file.
        overrides: `a.b=value` each, value as YAML scalar, [list] or {mapping}.
        environ: where `ROWBEAM_A__B=value` is looked up.

    Raises:
        ConfigError: anything is wrong; one line for each wrong key, which names the file or the override.
    """
    data = load_mapping(_read(path), path)
    origins: dict[tuple[str, ...], str] = {}
    for name in sorted(name for name in environ if name.startswith(_ENV_PREFIX)):
        _override(data, origins, _env_path(name), environ[name], name)
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError("--set: write --set key.path=value, such as --set pool.timeout=30s")
        _override(data, origins, tuple(key.strip().split(".")), value, "--set")
    job = _check(data, path, origins)
    folder = parent(path) if is_remote(path) else str(Path(path).resolve().parent)
    return LoadedJob(with_absolute_paths(job, folder, path), path, folder, _digest(job, path))


def check_columns(job: Job, columns: Sequence[str], source: str = "job") -> None:
    """Check every column the job names against the input's columns.

    Args:
        job: the job.
        columns: the input's column names.
        source: the job file's name, for errors.

    Raises:
        ConfigError: a key, type or redact column does not exist, or an answer column exists already.
    """
    named = {"input.key": job.input.key, "input.types": list(job.input.types), "audit.redact": job.audit.redact}
    for key, names in named.items():
        for name in names:
            if name not in columns:
                raise ConfigError(f'{source}: {key}: the input has no column "{name}"; {closest(name, list(columns))}')
    field = job.answer.field
    suffixes = (*_FIELD_SUFFIXES, "_error") if job.on_failure == "keep" else _FIELD_SUFFIXES
    taken = [name for suffix in suffixes if (name := field + suffix) in columns]
    if taken:
        raise ConfigError(
            f'{source}: answer.field: "{field}" would write the column "{taken[0]}", which the input has already; '
            "choose another name"
        )


def resolve_answer_schema(job: Job, folder: str, source: str = "job") -> dict[str, Any] | None:
    """Give the JSON Schema of the job's answers, checked against its own dialect; None for plain text.

    `answer.python` is imported with `folder` first on the path, so that a module beside the job file is found.

    Raises:
        ConfigError: the class can't be imported or is no pydantic model, or the schema is no valid JSON Schema.
    """
    if job.answer.python is not None:
        model = _model_class(job.answer.python, folder, source)
        try:
            schema = model.model_json_schema()
        except PydanticUserError as error:
            problem = str(error).splitlines()[0]
            raise ConfigError(f"{source}: answer.python: {job.answer.python} has no JSON Schema: {problem}") from error
    elif job.answer.json_schema is not None:
        schema = job.answer.json_schema
    else:
        return None
    reference = _outside_reference(schema)
    if reference is not None:
        raise ConfigError(
            f"{source}: answer.schema: $ref {show(reference)} leaves the schema; write what it names under $defs"
        )
    try:
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for(schema)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        place = ".".join(["answer.schema", *map(str, getattr(error, "instance_path", []))])
        problem = str(getattr(error, "message", error)).splitlines()[0]
        raise ConfigError(f"{source}: {place}: no valid JSON Schema: {problem}") from error
    return schema


def _read(path: str) -> bytes:
    try:
        return read_bytes(path)
    except StorageError as error:
        raise ConfigError(f"can't read the job file: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't read the job file: {error.strerror}; check the path") from error


def _env_path(name: str) -> tuple[str, ...]:
    """Give the key path of a variable: lower case, except for keys the job is free to choose (such as columns)."""
    path: tuple[str, ...] = ()
    for part in name.removeprefix(_ENV_PREFIX).split("__"):
        path = (*path, part.lower() if model_at(path) is not None else part)
    return path


def _override(
    data: dict[str, Any], origins: dict[tuple[str, ...], str], path: tuple[str, ...], text: str, origin: str
) -> None:
    """Put a value into the job in place, and remember where it came from."""
    name = ".".join(path)
    node = data
    for key in path[:-1]:
        inner = node.get(key)
        if inner is None:
            inner = node[key] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{origin} {name}: {key} holds a value, not keys; set {key} as a whole")
        node = inner
    node[path[-1]] = load_value(text, f"{origin} {name}")
    origins[path] = origin


def _check(data: dict[str, Any], path: str, origins: Mapping[tuple[str, ...], str]) -> Job:
    def place(keys: tuple[str, ...]) -> str:
        name = ".".join(keys)
        for length in range(len(keys), 0, -1):
            if keys[:length] in origins:
                return f"{origins[keys[:length]]} {name}"
        return f"{Path(path).name}: {name}" if name else Path(path).name

    for lines in (secret_lines(data, place), later_lines(data, place)):
        if lines:
            raise ConfigError(lines)
    try:
        job = Job.model_validate(data)
    except ValidationError as error:
        raise ConfigError(validation_lines(error, data, place)) from None
    if lines := contradiction_lines(job, place):
        raise ConfigError(lines)
    return job


def _digest(job: Job, path: str) -> str:
    try:
        canonical = rfc8785.dumps(_exact(job.model_dump(mode="json", by_alias=True)))
    except rfc8785.CanonicalizationError as error:
        raise ConfigError(f"{Path(path).name}: a value has no canonical JSON form ({error}); correct it") from error
    return hashlib.sha256(canonical).hexdigest()


def _exact(value: Any) -> Any:
    """Write integers that JSON numbers can't hold as text."""
    if isinstance(value, dict):
        return {key: _exact(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_exact(member) for member in value]
    return str(value) if isinstance(value, int) and abs(value) > _EXACT_INTEGER else value


def _model_class(name: str, folder: str, source: str) -> type[BaseModel]:
    module_name, separator, class_name = name.partition(":")
    if not separator or not module_name or not class_name:
        raise ConfigError(f'{source}: answer.python: {show(name)} is not allowed; write "package.module:Class"')
    try:
        with _first_on_path(folder):
            found = getattr(importlib.import_module(module_name), class_name, None)
    except KeyboardInterrupt:
        raise
    except SystemExit as error:
        raise ConfigError(
            f"{source}: answer.python: {module_name} ends the program when it is imported (sys.exit); move that call "
            'below if __name__ == "__main__":'
        ) from error
    except BaseException as error:  # a module may raise anything, and a run must not end as if it were done
        raise ConfigError(
            f"{source}: answer.python: can't import {module_name}: {error}; install it, or put it beside the job file"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        what = "has no such class" if found is None else "is no pydantic model"
        raise ConfigError(f"{source}: answer.python: {show(name)} {what}; name a subclass of pydantic.BaseModel")
    return found


@contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _outside_reference(schema: Any) -> str | None:
    """Find a $ref to another document, which would have to be fetched."""
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            return reference
        members = list(schema.values())
    else:
        members = schema if isinstance(schema, list) else []
    return next((found for member in members if (found := _outside_reference(member)) is not None), None)
