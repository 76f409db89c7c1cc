"""Lookup files become data for templates; reading the bytes is the caller's business."""

import csv
import io
import json
from collections.abc import Callable

import yaml

from transforms.records.errors import ConfigError
from transforms.rules.canonical import canonical_json


def parse_lookup(name: str, suffix: str, data: bytes) -> object:
    """Return the data of one lookup file.

    Args:
        name: the lookup's name in the job, for errors.
        suffix: the file's suffix with its dot, in any case.
        data: the file's bytes, UTF-8 with or without a byte order mark.

    Returns:
        YAML and JSON: their value. CSV: a list with a dict of texts per line. Text: the text as it is.

    Raises:
        ConfigError: another suffix, or bytes that are not what the suffix says.
    """
    where = f"lookup {name!r}"
    parser = _PARSERS.get(suffix.lower())
    if parser is None:
        raise ConfigError(f"{where}: files ending in {suffix!r} are not read; use {', '.join(_PARSERS)}")
    try:
        value = parser(data.decode("utf-8-sig"))
        canonical_json(value)
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{where}: not UTF-8 at byte {exc.start}; save the file as UTF-8") from exc
    except (ValueError, csv.Error, yaml.YAMLError, RecursionError) as exc:
        problem = " ".join(str(exc).split())
        raise ConfigError(f"{where}: not a valid {suffix.lower()} file: {problem}") from exc
    return value


def _csv(text: str) -> list[dict[str, str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = next(reader, None)
    if not header:
        raise ValueError("the first line must name the columns")
    if len(set(header)) < len(header):
        raise ValueError("two columns have the same name")
    rows = []
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise ValueError(f"line {reader.line_num} has {len(row)} values for {len(header)} columns")
        rows.append(dict(zip(header, row, strict=True)))
    return rows


_PARSERS: dict[str, Callable[[str], object]] = {
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".json": json.loads,
    ".csv": _csv,
    ".txt": str,
}
