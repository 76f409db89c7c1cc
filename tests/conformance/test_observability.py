"""P4 beyond the ledger: what a collector and Prometheus hear of a run is what the audit holds."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.conformance.jobs import plain_rows, run
from tests.unit.otlp_receiver import attributes, collector


def test_spans_and_metrics_are_those_of_the_audit(make_job, output, sandbox, runner, monkeypatch):
    """One span per call, failed tries included, linked to the run's span; token sums and rows as in the audit."""
    sandbox.set_faults(server_error=0.3)
    with collector() as (address, told):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        result = run(make_job(plain_rows(20)), runner=runner)
    run_id = result.summary["run_id"]
    calls = output.query("SELECT call_id, outcome, input_tokens FROM {calls}")
    spans = {attributes(span).get("rowbeam.call_id"): span for span in told.spans}
    assert set(spans) - {None} == {call["call_id"] for call in calls}
    whole = spans[None]
    assert attributes(whole)["rowbeam.rows.enriched"] == 20
    assert all(span.links[0].span_id == whole.span_id for name, span in spans.items() if name)
    points = told.points("gen_ai.client.token.usage")
    sums = {attributes(point)["gen_ai.token.type"]: point.sum for point in points}
    assert sums == {"input": result.summary["tokens"]["input"], "output": result.summary["tokens"]["output"]}
    failed = sum(call["outcome"] == "server_error" for call in calls)
    errors = [
        point.count for point in told.points("gen_ai.client.operation.duration") if "error.type" in attributes(point)
    ]
    assert sum(errors) == failed > 0
    text = Path(output.folder, "runs", run_id, "metrics.prom").read_text(encoding="utf-8")
    samples = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["rowbeam_run_rows", "enriched"] == 20
    assert samples["rowbeam_run_calls", "sent"] == len(calls)
