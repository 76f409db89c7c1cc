"""What explain shows of a row whose job redacts columns."""

from typing import Any

import pytest

from pipelines.explain_hidden import hide_columns

JOB = {"audit": {"payloads": "full", "redact": ["card", "person"]}}


def _story(values: Any, **changes: Any) -> dict[str, Any]:
    return {"values": values, "answer": None, "failure": None, **changes}


def test_redacted_columns_are_not_shown_however_deep_they_lie() -> None:
    """Neither the columns, nor what the answer and the reason of a failure quote of them."""
    values = {"id": "1", "card": "4929-1234", "person": {"name": {"last": "Okonkwo"}}, "text": "good"}
    answer = {"field": "ans", "value": {"why": ["Okonkwo paid by 4929-1234"], "label": "good"}}
    failure = {"kind": "invalid_output", "reason": "'Okonkwo' is no label", "attempts": 1}
    told = hide_columns(_story(values, answer=answer, failure=failure), JOB)
    assert told["values"] == {"id": "1", "card": "[redacted]", "person": "[redacted]", "text": "good"}
    assert told["answer"]["value"] == {"why": ["[redacted] paid by [redacted]"], "label": "good"}
    assert told["failure"] == {"kind": "invalid_output", "reason": "'[redacted]' is no label", "attempts": 1}


def test_a_line_that_could_not_be_read_goes_as_a_whole() -> None:
    """Its columns can't be told apart."""
    assert hide_columns(_story("{broken 4929-1234"), JOB)["values"] == "[redacted]"


@pytest.mark.parametrize("job", [{}, {"audit": {"redact": []}}], ids=["no audit", "none named"])
def test_nothing_changes_where_nothing_is_redacted(job: dict[str, Any]) -> None:
    """A job that hides nothing shows its rows."""
    assert hide_columns(_story({"card": "4929"}), job) == {}


def test_a_row_without_values_has_nothing_to_hide() -> None:
    """A pending row has none."""
    assert hide_columns(_story(None), JOB) == {}
