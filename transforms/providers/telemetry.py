"""Spans and metrics of calls and runs for an OpenTelemetry collector, where the environment names one.

Switched on by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT or the one of traces or metrics), sent over
OTLP/HTTP by the SDK of the `otel` extra; without them nothing is imported and a call costs nothing more. A collector
that is slow or away costs spans, never rows: the SDK queues and drops. Each call is a trace of its own, so that
OTEL_TRACES_SAMPLER thins out a job of a million rows, with a link to its run's span.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from transforms.records.call import CallRecord, CallStatus, CallType
from transforms.rules.telemetry_names import (
    COST,
    DURATION,
    DURATION_BUCKETS,
    TOKEN_BUCKETS,
    TOKEN_USAGE,
    UNKNOWN_COST,
    Attribute,
    error_attributes,
    metric_attributes,
    run_span_ids,
    server_attributes,
    span_attributes,
    span_name,
)

_LOG = logging.getLogger("rowbeam.telemetry")
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SIGNALS = {"traces": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "metrics": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"}
_SHUTDOWN_S = 5.0


def wanted_signals(environ: Mapping[str, str]) -> frozenset[str]:
    """Return which of "traces" and "metrics" the environment asks for (OpenTelemetry's environment variables)."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    return frozenset(
        signal
        for signal, endpoint in _SIGNALS.items()
        if (environ.get(endpoint) or environ.get(_ENDPOINT))
        and environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip().lower() == "otlp"
    )


def open_telemetry(run_id: str, base_url: str, environ: Mapping[str, str] = os.environ) -> "Telemetry | None":
    """Return what tells a collector of this process's calls; None where none is asked for or the SDK is missing."""
    signals = wanted_signals(environ)
    if not signals:
        return None
    try:
        return Telemetry(run_id, base_url, signals)
    except ImportError as error:
        reason = f"{_ENDPOINT} is set, but the SDK is not installed ({error}); pip install 'rowbeam[otel]'"
    except Exception as error:  # noqa: BLE001 - whatever the SDK dislikes, such as a malformed header: calls go on
        reason = f"OpenTelemetry could not be set up: {error!r}; look at the OTEL_ variables"
    _LOG.warning("telemetry_off", extra={"reason": reason})
    return None


class Telemetry:
    """Tells of one process's calls. Thread-safe; never raises for a collector's sake.

    Args:
        run_id: of the run that makes the calls.
        base_url: the API's address.
        signals: of "traces" and "metrics".
    """

    def __init__(self, run_id: str, base_url: str, signals: frozenset[str]) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.trace import Link, SpanContext, TraceFlags

        # The environment's OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go over this.
        self._resource = resource = Resource({"service.name": "rowbeam"}).merge(
            Resource.create({}) if _is_named() else Resource({})
        )
        self._run_id = run_id
        self._server = server_attributes(base_url)
        self._link = Link(SpanContext(*run_span_ids(run_id), is_remote=True, trace_flags=TraceFlags(1)))
        self._traces = _tracer_provider(resource) if "traces" in signals else None
        self._metrics = _meter_provider(resource) if "metrics" in signals else None
        self._tracer = None if self._traces is None else self._traces.get_tracer("rowbeam")
        self._instruments = None if self._metrics is None else _Instruments(self._metrics.get_meter("rowbeam"))
        self._is_off = False
        # The exporter's own words about a collector that is away come again and again; `close` says it once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def observe(self, record: CallRecord) -> None:
        """Tell of one exchange that is in the ledger: a real-time call, or one with the batch API. Never raises."""
        self._try(self._observe, record)

    def observe_batch(self, records: Iterable[CallRecord]) -> None:
        """Tell of answers that came in a batch: measured, with neither a span nor a duration of their own. Never raises."""
        if self._instruments is not None:
            self._try(self._observe_batch, records)

    def _observe(self, record: CallRecord) -> None:
        attributes = metric_attributes(record, self._server)
        if self._instruments is not None and record.call_type is CallType.LLM:
            self._instruments.add(record, attributes)
            self._instruments.add_duration(record, attributes)
        if self._tracer is not None:
            self._span(record, attributes)

    def _observe_batch(self, records: Iterable[CallRecord]) -> None:
        assert self._instruments is not None  # noqa: S101 - the caller looked
        for record in records:
            self._instruments.add(record, metric_attributes(record, self._server))

    def _try(self, tell: Callable[[Any], None], what: Any) -> None:
        """Tell, and fall silent for good at the first error of the SDK: a call must not fail for it."""
        if self._is_off:
            return
        try:
            tell(what)
        except Exception as error:  # noqa: BLE001 - whatever it was, the call is in the ledger
            self._is_off = True
            _LOG.warning("telemetry_off", extra={"reason": repr(error)})

    def run_ended(self, summary: Mapping[str, Any], started_at_ns: int, ended_at_ns: int) -> None:
        """Tell of the whole run; from the launcher, once."""
        if self._traces is None:
            return
        from opentelemetry.trace import SpanKind

        provider = _tracer_provider(self._resource, run_span_ids(self._run_id))
        rows = summary["rows"]
        attributes: dict[str, Attribute] = {
            "rowbeam.run_id": self._run_id,
            "rowbeam.job": summary["job"],
            "rowbeam.run.status": summary["status"],
            **{f"rowbeam.rows.{name}": count for name, count in rows.items() if count is not None},
            **{f"rowbeam.calls.{name}": count for name, count in summary["calls"].items() if count is not None},
        }
        if summary["cost_usd"] is not None:
            attributes["rowbeam.usage.cost"] = float(summary["cost_usd"])
        span = provider.get_tracer("rowbeam").start_span(
            f"run {summary['job']}", kind=SpanKind.INTERNAL, attributes=attributes, start_time=started_at_ns
        )
        span.end(ended_at_ns)
        _shut_down([provider])

    def close(self) -> None:
        """Send what is queued, for a few seconds at most; what a collector did not take by then is lost."""
        _shut_down([provider for provider in (self._traces, self._metrics) if provider is not None])

    def _span(self, record: CallRecord, attributes: dict[str, Attribute]) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        assert self._tracer is not None  # noqa: S101 - the caller looked
        started_ns = record.started_at_us * 1000
        span = self._tracer.start_span(
            span_name(record),
            kind=SpanKind.CLIENT,
            attributes=span_attributes(record, attributes),
            links=[self._link],
            start_time=started_ns,
        )
        if record.status is CallStatus.ERROR:
            span.set_status(Status(StatusCode.ERROR, str(record.kind)))
        span.end(started_ns + int(record.latency_ms * 1_000_000))


class _Instruments:
    """The metrics of calls."""

    def __init__(self, meter: Any) -> None:
        self._duration = meter.create_histogram(
            DURATION, "s", "How long a call took", explicit_bucket_boundaries_advisory=DURATION_BUCKETS
        )
        self._tokens = meter.create_histogram(
            TOKEN_USAGE, "{token}", "Tokens of an answer", explicit_bucket_boundaries_advisory=TOKEN_BUCKETS
        )
        self._cost = meter.create_counter(COST, "USD", "Cost of calls, where it is known")
        self._unknown = meter.create_counter(UNKNOWN_COST, "{call}", "Calls whose cost nobody knows")

    def add(self, record: CallRecord, attributes: dict[str, Attribute]) -> None:
        for kind, count in (("input", record.input_tokens), ("output", record.output_tokens)):
            if count is not None:
                self._tokens.record(count, attributes | {"gen_ai.token.type": kind})
        if record.cost_usd is None:
            self._unknown.add(1, attributes)
        else:
            self._cost.add(float(record.cost_usd), attributes)

    def add_duration(self, record: CallRecord, attributes: dict[str, Attribute]) -> None:
        self._duration.record(record.latency_ms / 1000, attributes | error_attributes(record))


def _shut_down(providers: list[Any]) -> None:
    """Flush and close; the SDK would try for a minute where nobody listens, so only its first seconds are waited for."""
    threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in providers]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _SHUTDOWN_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        _LOG.warning(
            "telemetry_lost", extra={"reason": "the collector did not take all of it in time; no row is affected"}
        )


def _is_named() -> bool:
    return bool(os.environ.get("OTEL_SERVICE_NAME") or os.environ.get("OTEL_RESOURCE_ATTRIBUTES"))


def _tracer_provider(resource: Any, ids: tuple[int, int] | None = None) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class FixedIds(IdGenerator):
        def generate_trace_id(self) -> int:
            return ids[0] if ids else 0

        def generate_span_id(self) -> int:
            return ids[1] if ids else 0

    provider = TracerProvider(resource=resource, id_generator=FixedIds() if ids else None, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _meter_provider(resource: Any) -> Any:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource, shutdown_on_exit=False
    )
