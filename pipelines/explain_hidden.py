"""What a row's story must not show: the values of the columns that `audit.redact` names.

The user's own files hold them; a story is part of the audit, and its page goes to people who must not see them.
"""

from collections.abc import Mapping
from typing import Any

from transforms.rules.call_record import blank
from transforms.rules.hidden import hidden_values
from transforms.rules.redaction import REDACTED


def hide_columns(story: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a story that show a row's own data, without what the job's `audit.redact` names.

    A line that could not be read has no columns to tell apart: it goes as a whole, and so do answers' hidden words.

    Args:
        story: its keys values, answer and failure are looked at.
        job: of the run that is told.
    """
    columns = (job.get("audit") or {}).get("redact") or []
    values, failure = story["values"], story["failure"]
    if not columns or values is None:
        return {}
    if not isinstance(values, dict):
        return {"values": REDACTED}
    hidden = hidden_values(values, columns)
    shown = {name: REDACTED if name in columns and value is not None else value for name, value in values.items()}
    told: dict[str, Any] = {"values": shown, "answer": _blanked(story["answer"], hidden)}
    if failure:
        told["failure"] = _blanked(failure, hidden)
    return told


def _blanked(value: Any, hidden: tuple[str, ...]) -> Any:
    """Blank the hidden words in the texts of a JSON value; its keys stay."""
    if isinstance(value, str):
        return blank(value, hidden)
    if isinstance(value, dict):
        return {key: _blanked(member, hidden) for key, member in value.items()}
    if isinstance(value, list):
        return [_blanked(member, hidden) for member in value]
    return value
