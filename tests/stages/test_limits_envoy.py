"""transforms/_envoy.py: leave to send from a real gRPC server that speaks Envoy's rate limit protocol."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from apache_beam.io.components import rate_limit_pb2
from google.protobuf.duration_pb2 import Duration

from tests.unit.pool_builders import Script, kinds, make_desk
from tests.unit.pool_scripts import answer
from transforms import _worker
from transforms.records.answer import PendingRequest
from transforms.records.failure import FailureKind
from transforms.records.settings import PoolSettings

_METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_WINDOW_S = 0.4


class Service(grpc.GenericRpcHandler):
    """Allows so many calls in each window, as the service does: what comes above is told when the next begins."""

    def __init__(self, per_window):
        self.per_window = per_window
        self.questions, self.allowed = [], []
        self.window = self.used = 0

    def service(self, details):
        if details.method != _METHOD:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self.answer,
            request_deserializer=rate_limit_pb2.RateLimitRequest.FromString,
            response_serializer=rate_limit_pb2.RateLimitResponse.SerializeToString,
        )

    def answer(self, question, _context):
        now = time.monotonic()
        self.questions.append(question)
        if now // _WINDOW_S != self.window:
            self.window, self.used = now // _WINDOW_S, 0
        self.used += question.hits_addend
        if self.used <= self.per_window:
            self.allowed.append(now)
            return rate_limit_pb2.RateLimitResponse(overall_code=rate_limit_pb2.RateLimitResponse.OK)
        left_s = _WINDOW_S - now % _WINDOW_S
        over = rate_limit_pb2.RateLimitResponse.OVER_LIMIT
        status = rate_limit_pb2.RateLimitResponse.DescriptorStatus(
            code=over, duration_until_reset=Duration(nanos=int(left_s * 1e9))
        )
        return rate_limit_pb2.RateLimitResponse(overall_code=over, statuses=[status])


@contextmanager
def serving(service):
    """Serve on a free port; yields host:port. One thread: the service counts without a lock."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(5)


def permits(address):
    """Return what a worker makes of the job's setting."""
    envoy = {
        "address": address,
        "domain": "llm",
        "descriptors": [{"provider": "openai", "model": "mini"}],
        "timeout": "2s",
    }
    return _worker._permits(PoolSettings(rate_limiter={"envoy": envoy}))


def test_each_call_waits_for_the_services_leave():
    """More than a window allows wait for the next; the service hears the job's domain and descriptors."""
    service, script = Service(per_window=4), Script(answer)
    with serving(service) as address, make_desk(script, permits=permits(address)) as desk:
        results = desk.ask([str(n) for n in range(10)])
    assert set(kinds(results).values()) == {FailureKind.OK}
    assert len(service.allowed) == len(script.sent) == 10
    sends = sorted(sent.at for sent in script.sent)
    assert all(allowed <= sent for allowed, sent in zip(service.allowed, sends, strict=True))
    assert sends[-1] - sends[0] >= _WINDOW_S
    question = service.questions[0]
    assert (question.domain, question.hits_addend) == ("llm", 1)
    assert [(entry.key, entry.value) for entry in question.descriptors[0].entries] == [
        ("provider", "openai"),
        ("model", "mini"),
    ]


def test_nothing_is_sent_while_the_service_is_away(monkeypatch):
    """After Beam's own tries the rest is left pending, and the run can be started again."""
    monkeypatch.setattr("apache_beam.io.components.rate_limiter._RPC_RETRY_DELAY_SECONDS", 0.01)
    with serving(Service(1)) as address:
        pass
    script = Script(answer)
    with make_desk(script, permits=permits(address)) as desk:
        results = desk.ask(["a", "b"])
    assert script.sent == []
    assert all(isinstance(result, PendingRequest) for result in results.values())
    assert f"the rate limiter at {address} gives no answer" in results["a"].reason


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"address": "http://limiter:8081"}, id="a-url"),
        pytest.param({"address": "limiter"}, id="no-port"),
        pytest.param({"descriptors": []}, id="counted-under-nothing"),
        pytest.param({"descriptors": [{}]}, id="an-empty-descriptor"),
        pytest.param({"domain": ""}, id="no-domain"),
        pytest.param({"tls": True}, id="an-unknown-key"),
    ],
)
def test_a_setting_that_can_not_work_is_refused_before_the_run(change):
    """Not by the first worker."""
    envoy = {"address": "limiter:8081", "domain": "llm", "descriptors": [{"a": "b"}]}
    PoolSettings(rate_limiter={"envoy": envoy})
    with pytest.raises(ValueError, match=next(iter(change))):
        PoolSettings(rate_limiter={"envoy": envoy | change})
