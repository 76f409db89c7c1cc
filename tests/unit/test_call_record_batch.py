"""Records of a batch's requests: what they share is worked out once, and nothing of one gets into another."""

from decimal import Decimal

import pytest

from tests.unit.pool_builders import KEY, make_recorder, make_request
from transforms.providers import make_provider
from transforms.records.failure import FailureKind
from transforms.records.reply import FinishReason, HttpResponse, Reply, Usage
from transforms.records.settings import ModelSettings
from transforms.rules import call_record
from transforms.rules.call_record import Exchange

_PROVIDER = make_provider(ModelSettings(provider="openai", name="gpt-4o-mini"), None)
_MODEL = "gpt-4o-mini-2024-07-18"
_AT_US = 1_795_000_000_000_000
_USAGE = Usage(1000, 100, 0, None, None)


def _exchange(usage=_USAGE, model=_MODEL, shown=b"{}", body=b"{}", **facts):
    reply = Reply(FailureKind.OK, "fine", FinishReason.STOP, "stop", model, usage, **facts)
    return Exchange(
        make_request("r1"), "b1", 3, "b1-000003", "c1", 1, _AT_US, 1.0, 0.0, shown, HttpResponse(200, {}, body), reply,
        None, "batch",
    )  # fmt: skip


@pytest.mark.parametrize("kept", [pytest.param(10_000, id="all kept"), pytest.param(1, id="one kept")])
def test_every_request_of_a_batch_has_its_own_cost(kept, monkeypatch):
    """Whatever was priced before it by the same recorder."""
    monkeypatch.setattr(call_record, "_COSTS_KEPT", kept)
    recorder = make_recorder(_PROVIDER)
    wanted = [
        (_exchange(), "0.000105"),
        (_exchange(Usage(1000, 200, 0, None, None)), "0.000135"),
        (_exchange(provider_cost_usd=Decimal("0.5")), "0.5"),
        (_exchange(Usage(1000, None, 0, None, None)), None),
        (_exchange(model="gpt-4o-2024-08-06"), "0.00175"),
        (_exchange(service_tier="flex"), None),
    ]
    for _ in range(2):
        found = [recorder.record(exchange).cost_usd for exchange, _ in wanted]
        assert found == [None if usd is None else Decimal(usd) for _, usd in wanted]


@pytest.mark.parametrize(
    ("shown", "body", "wanted"),
    [
        pytest.param('{"a":"KEY"}', '{"b":1}', ('{"a":"[redacted]"}', '{"b":1}'), id="request"),
        pytest.param('{"a":1}', '{"b":"KEY"}', ('{"a":1}', '{"b":"[redacted]"}'), id="response"),
        pytest.param("KEY", "KEY", ("[redacted]", "[redacted]"), id="both"),
        pytest.param('{"a":1}', '{"b":1}', ('{"a":1}', '{"b":1}'), id="neither"),
        pytest.param("bearer", "0123456789abcdef", ("bearer", "0123456789abcdef"), id="half in each is none"),
    ],
)
def test_a_secret_is_blanked_where_it_is_and_nowhere_else(shown, body, wanted):
    """Request and response are looked through together, and changed each alone."""
    exchange = _exchange(shown=shown.replace("KEY", KEY).encode(), body=body.replace("KEY", KEY).encode())
    call = make_recorder(_PROVIDER).record(exchange)
    assert (call.request_json, call.response_json) == wanted
