"""What one worker process needs to make calls: provider, key, ledger segment and pool, shared by all its bundles.

Held per (run, process) with a count of its users, so that the main and the repair lane share one set of limits.
"""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transforms._budget import RunBudget
from transforms.providers import make_provider
from transforms.providers.base import Provider
from transforms.providers.batch_http import BatchHttp
from transforms.providers.permits import Permits
from transforms.providers.pool import CallPool
from transforms.providers.secret import read_secret
from transforms.providers.telemetry import Telemetry, open_telemetry
from transforms.records.call import BatchEnded, CallRecord
from transforms.records.errors import ConfigError, InternalError
from transforms.records.run import CallSettings
from transforms.records.settings import PoolSettings
from transforms.rules.call_record import CallRecorder
from transforms.rules.price import PriceTable
from transforms.rules.redaction import Redactor
from transforms.rules.shares import whole_units
from transforms.storage.lease_watch import LeaseWatch
from transforms.storage.limit_shares import LimitShares
from transforms.storage.open_segment import Segment, open_segment


@dataclass
class Worker:
    """A process's means of making calls."""

    pool: CallPool
    segment: Segment
    provider: Provider
    key: str | None
    budget: RunBudget | None
    telemetry: Telemetry | None = None
    closers: list[Any] = field(default_factory=list)
    users: int = 0
    is_shared: bool = False

    def end_bundle(self) -> None:
        """Make safe what a bundle has recorded, and let other processes have what its calls did not spend."""
        self.segment.sync()
        if self.is_shared and self.budget is not None:
            # Not every runner calls teardown: what is not given back now would count as spent for good.
            self.budget.purse.give_back()

    def leave_bundle(self) -> None:
        """Make safe what is on record, for a retry in whichever process; what can't be written now is tried at the end."""
        with suppress(InternalError):
            self.segment.sync()

    def batch_http(self) -> BatchHttp:
        """Return the process's connections for batch APIs, made on first use."""
        with _lock:
            for closer in self.closers:
                if isinstance(closer, BatchHttp):
                    return closer
            http = BatchHttp()
            self.closers.append(http)
            return http


#: Why a worker sends no more.
_LOST = "this run lost its lease on the output (another run may have taken it over)"

_workers: dict[str, Worker] = {}
_lock = threading.Lock()


def acquire(settings: CallSettings) -> Worker:
    """Return this process's worker for a run, made on first use. Raises ConfigError when the key is missing."""
    with _lock:
        worker = _workers.get(settings.run_id)
        if worker is None:
            worker = _workers[settings.run_id] = _make(settings)
        worker.users += 1
        return worker


def release(settings: CallSettings) -> None:
    """Give the worker back; the last user closes its connections and its ledger segment."""
    with _lock:
        worker = _workers.get(settings.run_id)
        if worker is None:
            return
        worker.users -= 1
        if worker.users:
            return
        del _workers[settings.run_id]
    _close(worker)


def _close(worker: Worker) -> None:
    """Close the pool first, then what it wrote to; each is closed also where another's closing fails."""
    with ExitStack() as stack:
        for closer in reversed(worker.closers):
            stack.callback(closer.close)
        if worker.budget is not None:
            stack.callback(worker.budget.close)
        stack.callback(worker.segment.close)
        stack.callback(worker.pool.close)


def current() -> Worker | None:
    """Return the worker in use in this process, if any (for the progress display)."""
    return next(iter(_workers.values()), None)


def read_key(provider: Provider) -> str | None:
    """Return the provider's key, from Secret Manager or the environment; ConfigError names where it should be."""
    if provider.key_secret is not None:
        key, place = read_secret(provider.key_secret), f"the secret {provider.key_secret}"
    elif provider.key_env is not None:
        key, place = os.environ.get(provider.key_env, "").strip(), f"the environment variable {provider.key_env}"
        if not key:
            raise ConfigError(f"{place} is not set; it must hold the API key")
    else:
        return None
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"{place} holds a line break or another character that no API key has; set it again, to the key alone"
        )
    return key


def _make(settings: CallSettings) -> Worker:
    provider = make_provider(settings.model, settings.schema)
    key = read_key(provider)
    closers: list[Any] = []
    pool_settings = settings.pool
    if _is_embedded(settings):
        from transforms.providers.embedded import EmbeddedServer

        server = EmbeddedServer(settings.model)
        provider.base_url = server.base_url
        closers.append(server)
        in_flight = min(pool_settings.max_in_flight, settings.model.slots)
        pool_settings = pool_settings.model_copy(update={"max_in_flight": in_flight})
    segment = open_segment(settings.ledger, settings.run_id)
    recorder = CallRecorder(
        run_id=settings.run_id,
        provider_name=provider.name,
        request_model=provider.request_model,
        price_model=provider.price_model,
        payloads=settings.audit.payloads,
        redactor=Redactor([key] if key else []),
        prices=PriceTable(),
    )
    # Reads the price list while the first call is out: at its answer, on the loop's thread, it would hold all up.
    threading.Thread(
        target=recorder.prices.rates, args=(provider.name, provider.price_model), name="rowbeam-prices", daemon=True
    ).start()
    budget = None if settings.budget.max_usd is None else RunBudget(settings, provider, recorder.prices)
    purse = None if budget is None else budget.purse
    telemetry = open_telemetry(settings.run_id, provider.base_url)
    record: Callable[[CallRecord | BatchEnded], None] = segment.append
    if telemetry is not None:
        closers.append(telemetry)
        record = partial(_keep_and_tell, segment, telemetry)
    pool = CallPool(
        provider,
        key,
        pool_settings,
        settings.batching,
        recorder=recorder,
        record=record,
        purse=purse,
        shares=_shares(settings),
        permits=_permits(pool_settings),
    )
    if settings.shared_limits:
        closers.append(LeaseWatch(settings.ledger, settings.run_id, partial(_give_up, pool)))
    return Worker(pool, segment, provider, key, budget, telemetry, closers, is_shared=settings.shared_limits)


def _give_up(pool: CallPool) -> None:
    with suppress(RuntimeError):  # the pool was closed at this moment
        pool.give_up(_LOST)


def _shares(settings: CallSettings) -> LimitShares | None:
    """Return this process's place among those that share the run's limits; None where it has them for itself."""
    if not settings.shared_limits or _is_embedded(settings):
        return None
    pool = settings.pool
    whole = whole_units(pool.max_in_flight, pool.requests_per_minute, pool.tokens_per_minute)
    return LimitShares(settings.ledger, settings.run_id, whole)


def _is_embedded(settings: CallSettings) -> bool:
    """Say whether each process runs a model server of its own, whose limits are nobody else's."""
    return settings.model.provider == "llama_cpp" and settings.model.base_url is None


def _permits(settings: PoolSettings) -> Permits | None:
    """Return who gives leave to each call; None where the job names nobody."""
    if settings.rate_limiter is None:
        return None
    # Imported here: it brings gRPC, which other jobs have no use for.
    from transforms._envoy import envoy_allow

    envoy = settings.rate_limiter.envoy
    return Permits(envoy_allow(envoy), f"at {envoy.address}")


def _keep_and_tell(segment: Segment, telemetry: Telemetry, record: CallRecord | BatchEnded) -> None:
    """Put a record into the ledger, and then tell the collector of it."""
    segment.append(record)
    if isinstance(record, CallRecord):
        telemetry.observe(record)
