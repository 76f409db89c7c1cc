"""What differs between two jobs, by the names that the job file has for it."""

from collections.abc import Mapping
from typing import Any

#: Parts of a job that an answer, its cost or its rows depend on; where it goes and how fast it runs are none of them.
_TELLING = ("input", "prompt", "answer", "model", "batching.mode")
#: Told as a whole: what is inside has no names of its own in the job file.
_WHOLE = ("answer.schema", "model.params.extra", "model.routing", "model.entry", "prompt.lookup")


def job_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what differs of input, prompt, answer, model and batching mode: {key, before, now} each, sorted by key.

    Args:
        before: a job as a manifest holds it.
        now: another.
    """
    old, new = _flat(before, ""), _flat(now, "")
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [
        {"key": key, "before": old.get(key), "now": new.get(key)}
        for key in keys
        if any(key == part or key.startswith(f"{part}.") for part in _TELLING)
    ]


def _flat(value: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, member in value.items():
        key = f"{path}.{name}" if path else name
        if isinstance(member, Mapping) and key not in _WHOLE:
            found |= _flat(member, key)
        else:
            found[key] = member
    return found
