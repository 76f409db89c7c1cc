"""RenderPrompts through the runner."""

import apache_beam as beam

from tests.stages.harness import run_stage, source_row
from transforms.records.failure import FailureKind, Stage
from transforms.records.request import unpack
from transforms.render_prompts import RenderPrompts
from transforms.rules.fingerprint import RequestIdentity
from transforms.rules.prompt import PromptTemplate


def render(rows, template="Label: {{ row.text }}", redact=()):
    """Run the stage."""
    prompts = PromptTemplate("Be brief.", template, redact=redact)
    return run_stage(
        lambda root: root | beam.Create(rows) | RenderPrompts(prompts, RequestIdentity({"model": "m"}), list(redact))
    )


def test_each_row_becomes_a_request_that_carries_it():
    """Equal questions share their id, and each request its own row; the key is the id."""
    rows = [source_row("a", text="good"), source_row("b", 3, text="good"), source_row("c", 4, text="bad")]
    run = render(rows)
    keyed = [(key, unpack(packed)) for key, packed in run["requests"]]
    requests = {request.riders[0].row.row_id: request for _, request in keyed}
    assert sorted(requests) == ["a", "b", "c"]
    assert all(key == request.request_id for key, request in keyed)
    assert requests["a"].request_id == requests["b"].request_id != requests["c"].request_id
    assert requests["a"].prompt.turns == (("user", "Label: good"),)
    assert requests["a"].prompt.system == "Be brief."
    assert run["failures"] == []


def test_a_row_that_cannot_be_asked_about_is_a_dead_letter():
    """A missing column and a failing template, each with its kind and the whole row."""
    rows = [source_row("a", other="x"), source_row("b", 3, text=None)]
    run = render(rows, "{{ row.text.upper() }}")
    assert sorted((f.row_id, f.stage, f.kind, f.attempts) for f in run["failures"]) == [
        ("a", Stage.RENDER, FailureKind.MISSING_COLUMN, 0),
        ("b", Stage.RENDER, FailureKind.TEMPLATE_ERROR, 0),
    ]
    assert next(f for f in run["failures"] if f.row_id == "a").row == {"other": "x"}
    assert run["requests"] == []
    assert run.counters["RenderPrompts/rows_failed"] == 2


def test_redacted_columns_leave_what_audit_shows():
    """What is sent holds them; what is shown does not."""
    run = render([source_row("a", text="secret words")], redact=["text"])
    request = unpack(run["requests"][0][1])
    assert "secret words" in str(request.prompt)
    assert "secret words" not in str(request.shown_prompt)
    assert request.redacted_values == ("secret words",)
