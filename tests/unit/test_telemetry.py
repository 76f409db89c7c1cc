"""Telemetry: what a collector hears of calls and runs, and that nothing is sent where nobody asks."""

import socket
import time
from decimal import Decimal

import pytest

from tests.unit.otlp_receiver import attributes, collector
from tests.unit.storage_builders import RUN, make_call, make_failed_call
from transforms.providers.telemetry import open_telemetry, wanted_signals
from transforms.records.call import CallType, CostSource
from transforms.records.failure import FailureKind
from transforms.rules.telemetry_names import run_span_ids, server_attributes, span_attributes, span_name

BASE = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("environ", "signals"),
    [
        pytest.param({}, set(), id="nobody asks"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, {"traces", "metrics"}, id="both"),
        pytest.param({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, {"traces"}, id="traces alone"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, {"metrics"}, id="one off"
        ),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, set(), id="all off"),
    ],
)
def test_the_environment_says_what_is_sent(environ, signals):
    """OpenTelemetry's own variables switch telemetry on, signal by signal."""
    assert wanted_signals(environ) == signals
    assert environ or open_telemetry(RUN, BASE, environ) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(BASE, {"server.address": "api.openai.com", "server.port": 443}, id="https"),
        pytest.param("http://127.0.0.1:8400/v1", {"server.address": "127.0.0.1", "server.port": 8400}, id="a port"),
        pytest.param("", {}, id="none"),
    ],
)
def test_the_server_is_named_by_its_address(url, expected):
    """server.address and server.port, without the path."""
    assert server_attributes(url) == expected


def test_unknown_counts_are_left_out_and_never_zero():
    """A call without usage has no usage attributes, and a cost that is unknown is absent."""
    call = make_call(
        input_tokens=None,
        output_tokens=None,
        cache_read_input_tokens=None,
        cost_usd=None,
        cost_source=CostSource.UNKNOWN,
    )
    told = span_attributes(call, {})
    assert not [name for name in told if name.startswith("gen_ai.usage")]
    assert "rowbeam.usage.cost" not in told
    assert told["rowbeam.usage.cost_source"] == "unknown"


def test_payloads_and_answers_are_never_told():
    """What is sent holds no text of request, response or answer."""
    call = make_call(request_json="secret-question", response_json="secret-answer", text="secret-text")
    assert "secret" not in repr(span_attributes(call, {}))


def test_an_exchange_of_a_batch_is_named_by_what_it_was():
    """Spans of HTTP exchanges say upload, create ... and are no chat."""
    call = make_call(call_type=CallType.HTTP, cost_reason="create of a batch; providers bill answers only")
    assert span_name(call) == "batch create"
    assert "gen_ai.operation.name" not in span_attributes(call, {})


def test_a_collector_hears_of_calls_and_of_the_run(monkeypatch):
    """Real OTLP over HTTP: one span per call with its times and a link to the run's span, and the metrics' sums."""
    with collector() as (address, told):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        telemetry = open_telemetry(RUN, BASE)
        telemetry.observe(make_call(0))
        telemetry.observe(make_failed_call(1, FailureKind.RATE_LIMITED, http_status=429, cost_usd=Decimal(0)))
        telemetry.observe_batch([make_call(2), make_call(3, cost_usd=None, cost_source=CostSource.UNKNOWN)])
        summary = {"job": "reviews", "status": "done", "cost_usd": "0.1", "rows": {"in": 2}, "calls": {"sent": 2}}
        telemetry.run_ended(summary, 1_795_000_000_000_000_000, 1_795_000_001_000_000_000)
        telemetry.close()
    spans = {span.name: span for span in told.spans}
    assert sorted(span.name for span in told.spans) == ["chat gpt-4o-mini", "chat gpt-4o-mini", "run reviews"]
    run = spans["run reviews"]
    assert (int.from_bytes(run.trace_id, "big"), int.from_bytes(run.span_id, "big")) == run_span_ids(RUN)
    first = next(span for span in told.spans if attributes(span).get("rowbeam.call_id") == "b1-000000")
    assert first.links[0].span_id == run.span_id
    assert first.start_time_unix_nano == 1_795_000_000_000_000_000
    assert first.end_time_unix_nano - first.start_time_unix_nano == 512_250_000
    facts = attributes(first)
    assert facts["gen_ai.usage.input_tokens"] == 100
    assert facts["gen_ai.response.finish_reasons"] == ["stop"]
    assert facts["server.address"] == "api.openai.com"
    durations = told.points("gen_ai.client.operation.duration")
    assert sorted(attributes(point).get("error.type", "") for point in durations) == ["", "rate_limited"]
    tokens = {attributes(point)["gen_ai.token.type"]: point.sum for point in told.points("gen_ai.client.token.usage")}
    assert tokens == {"input": 400, "output": 80}
    assert [point.as_double for point in told.points("rowbeam.client.cost")] == [pytest.approx(0.000069)]
    assert [point.as_int for point in told.points("rowbeam.client.unknown_cost")] == [1]


def test_a_collector_that_never_answers_costs_spans_and_nothing_else(monkeypatch, caplog):
    """Nothing is raised, closing waits for its seconds and no longer, and says once that something was lost."""
    monkeypatch.setattr("transforms.providers.telemetry._SHUTDOWN_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        telemetry = open_telemetry(RUN, BASE)
        telemetry.observe(make_call(0))
        began = time.monotonic()
        telemetry.close()
        assert time.monotonic() - began < 10
    assert [record.message for record in caplog.records] == ["telemetry_lost"]


def test_an_error_of_the_sdk_never_reaches_a_call(monkeypatch, caplog):
    """The first one switches telemetry off, with a warning; the call that met it goes on."""
    with collector() as (address, told):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        telemetry = open_telemetry(RUN, BASE)
        monkeypatch.setattr(telemetry, "_observe", lambda _record: 1 / 0)
        telemetry.observe(make_call(0))
        telemetry.observe(make_call(1))
        telemetry.close()
    assert [record.message for record in caplog.records] == ["telemetry_off"]
    assert told.spans == []


def test_a_malformed_setting_switches_it_off_and_stops_nothing(monkeypatch, caplog):
    """What the SDK refuses at its start is a warning."""
    monkeypatch.setattr("transforms.providers.telemetry.Telemetry.__init__", lambda *_: 1 / 0)
    assert open_telemetry(RUN, BASE, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
    assert [record.message for record in caplog.records] == ["telemetry_off"]
