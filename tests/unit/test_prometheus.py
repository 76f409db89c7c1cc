"""The Prometheus file of a run, read back by Prometheus' own parser."""

from prometheus_client.parser import text_string_to_metric_families

from pipelines.prometheus import prometheus_text

SUMMARY = {
    "run_id": "20261121T053412-3f9a2c",
    "job": "reviews",
    "status": "done",
    "rows": {"in": 10, "enriched": 8, "dead_lettered": 2, "pending": 0},
    "calls": {"sent": 12, "succeeded": 8, "failed": 4, "reused": 0},
    "failed_calls": {"rate_limited": 3, "refusal": 1},
    "dead_letters": [{"stage": "call", "kind": "refusal", "rows": 1}, {"stage": "read", "kind": "refusal", "rows": 1}],
    "tokens": {"input": 1000, "output": 90},
    "cost_usd": "0.000204",
    "calls_of_unknown_cost": 1,
    "duration_s": 2.5,
}
MANIFEST = {"model": {"provider": "openai", "name": "gpt-4o-mini"}, "ended_at": "2026-11-21T05:34:15.000000Z"}


def read(summary, manifest=MANIFEST):
    """Return {(name, labels without job): value}."""
    text = prometheus_text(summary, manifest).decode()
    return {
        (sample.name, tuple(value for label, value in sorted(sample.labels.items()) if label != "job")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_figures_are_those_of_the_summary():
    """Rows, calls, failures by kind, tokens, cost, and times."""
    told = read(SUMMARY)
    assert told["rowbeam_run_rows", ("enriched",)] == 8
    assert told["rowbeam_run_calls", ("sent",)] == 12
    assert told["rowbeam_run_failed_calls", ("rate_limited",)] == 3
    assert told["rowbeam_run_dead_letters", ("refusal",)] == 2
    assert told["rowbeam_run_tokens", ("input",)] == 1000
    assert told["rowbeam_run_cost_usd", ()] == 0.000204
    assert told["rowbeam_run_success", ()] == 1
    assert told["rowbeam_run_ended_at_seconds", ()] == 1795239255


def test_an_unknown_cost_is_absent_and_not_zero():
    """A dashboard must not show a free run."""
    told = read(SUMMARY | {"cost_usd": None, "status": "pending"})
    assert ("rowbeam_run_cost_usd", ()) not in told
    assert told["rowbeam_run_success", ()] == 0


def test_a_budget_is_shown_where_there_is_one():
    """Its size and what is left of it."""
    told = read(SUMMARY | {"budget": {"max_usd": "25", "per": "output", "charged_usd": "5", "left_usd": "20"}})
    assert (told["rowbeam_run_budget_max_usd", ()], told["rowbeam_run_budget_left_usd", ()]) == (25, 20)
    assert ("rowbeam_run_budget_max_usd", ()) not in read(SUMMARY)
