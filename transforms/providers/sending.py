"""One try of one request: the exchange, what its reply means, and its record in the ledger before anybody sees it (P4)."""

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from transforms.providers.admission import Admission
from transforms.providers.base import Provider
from transforms.providers.session import Job
from transforms.providers.transport import HttpTransport, transport_error
from transforms.records.call import BatchEnded, CallRecord
from transforms.records.reply import CallError, HttpResponse, Reply
from transforms.records.settings import PoolSettings
from transforms.rules.call_record import CallRecorder

_MIN_TIMEOUT_S = 0.001  # no try is given less


class Tried(NamedTuple):
    """What a try gave; ended_at is monotonic seconds."""

    outcome: Reply | CallError
    record: CallRecord
    ended_at: float


class Sender:
    """Sends what was admitted, on the pool's loop; counts in `stats` what was sent.

    Args:
        provider, key, settings, recorder, record: as of the pool.
        admission: told of the end of each try.
        stats: of the pool.
    """

    def __init__(
        self,
        provider: Provider,
        key: str | None,
        settings: PoolSettings,
        admission: Admission,
        recorder: CallRecorder,
        record: Callable[[CallRecord | BatchEnded], None],
        stats: Counter[str],
    ) -> None:
        self._provider = provider
        self._key = key
        self._settings = settings
        self._admission = admission
        self._recorder = recorder
        self._record = record
        self._stats = stats

    async def send(self, job: Job, transport: HttpTransport) -> Tried:
        """Make a try that was admitted, and return how it ended; its record is stored by then."""
        request = job.http_request(self._provider, self._key)
        # The pool's loop counts by the same clock.
        sent_at = time.monotonic()
        job.first_sent_at = job.first_sent_at or sent_at
        job.attempt += 1
        self._stats["requests_sent"] += 1
        started_at_us = time.time_ns() // 1000
        response: HttpResponse | None = None
        outcome: Reply | CallError
        left_s = self._settings.deadline - (sent_at - job.first_sent_at)
        try:
            response = await transport.send(request, max(_MIN_TIMEOUT_S, min(self._settings.timeout, left_s)))
        except Exception as exc:  # noqa: BLE001 - transport_error raises again what it does not know
            outcome = transport_error(exc)
        else:
            outcome = self._recorder.clean(self._provider.read(response))
        now = time.monotonic()
        self._admission.settle(job, sent_at, now, time.time(), response, outcome)
        shown = job.shown_body(self._provider, request)
        provider_id = self._provider.request_id(response) if response else None
        exchange = job.exchange(started_at_us, sent_at, now, shown, response, outcome, provider_id)
        record = self._recorder.record(exchange)
        self._admission.charge(job, record.cost_usd)
        self._record(record)
        job.session.observe(record)
        return Tried(outcome, record, now)
