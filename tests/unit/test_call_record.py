"""rules/call_record.py: what ledger and audit say about one exchange, and what they must not say."""

import hashlib
from dataclasses import replace
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.pool_builders import KEY, make_recorder, make_request
from transforms.providers import make_provider
from transforms.records.call import CallStatus, CostSource
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, FinishReason, HttpResponse, Reply, Usage
from transforms.records.settings import ModelSettings
from transforms.rules.call_record import Exchange, blank, reason_of

K = FailureKind
PROVIDER = make_provider(ModelSettings(provider="openai", name="gpt-4o-mini"), None)
USAGE = Usage(1000, 100, 0, None, None)


def make_reply(kind=K.OK, text="fine", finish=FinishReason.STOP, **changes):
    """Return a paid answer."""
    return Reply(kind, text, finish, str(finish), "gpt-4o-mini-2024-07-18", changes.pop("usage", USAGE), **changes)


def record(outcome=None, body=b'{"ok":true}', status=200, shown=b'{"messages":[]}', hidden=(), facts=(), **recorder):
    """Return the record of an exchange with that outcome; body None: no response came."""
    response = None if body is None else HttpResponse(status, {}, body)
    exchange = Exchange(
        request=make_request("r1", redacted_values=hidden),
        batch_id="b1",
        call_index=3,
        call_id="b1-000003",
        custom_id="c1",
        attempt=2,
        started_at_us=1_795_000_000_000_000,
        latency_ms=12.5,
        waited_ms=0.25,
        shown_body=shown,
        response=response,
        outcome=outcome or make_reply(),
        provider_request_id="req_1",
        **dict(facts),
    )
    return make_recorder(PROVIDER, **recorder).record(exchange)


def test_a_success_is_recorded_in_full():
    """Ids, times, tokens, cost, hashes and payloads are those of the exchange."""
    call = record()
    assert (call.call_id, call.call_index, call.attempt, call.status, call.kind) == (
        "b1-000003", 3, 2, CallStatus.SUCCESS, K.OK,
    )  # fmt: skip
    assert (call.http_status, call.latency_ms, call.waited_ms, call.provider_request_id) == (200, 12.5, 0.25, "req_1")
    assert (call.input_tokens, call.output_tokens, call.cache_write_input_tokens) == (1000, 100, None)
    assert (call.request_json, call.response_json, call.error_json) == ('{"messages":[]}', '{"ok":true}', None)
    assert (call.finish_reasons, call.response_model, call.text) == (("stop",), "gpt-4o-mini-2024-07-18", "fine")
    assert call.cost_usd == Decimal("0.00021")


@pytest.mark.parametrize(
    ("outcome", "usd", "source"),
    [
        pytest.param(make_reply(), Decimal("0.00021"), CostSource.PRICE_TABLE, id="by the table"),
        pytest.param(make_reply(provider_cost_usd=Decimal("0.5")), Decimal("0.5"), CostSource.PROVIDER, id="stated"),
        pytest.param(make_reply(usage=Usage()), None, CostSource.UNKNOWN, id="no usage"),
        pytest.param(make_reply(K.TRUNCATED, "cu", FinishReason.LENGTH), Decimal("0.00021"), CostSource.PRICE_TABLE,
                     id="truncated answers cost"),
        pytest.param(CallError(K.RATE_LIMITED, "slow down"), Decimal(0), CostSource.NOT_BILLED, id="refused"),
        pytest.param(CallError(K.TIMEOUT, "no reply", may_be_billed=True), None, CostSource.UNKNOWN, id="lost"),
        pytest.param(make_reply(service_tier="priority"), None, CostSource.UNKNOWN, id="a tier without a price"),
        pytest.param(make_reply(service_tier="default"), Decimal("0.00021"), CostSource.PRICE_TABLE, id="standard tier"),
        pytest.param(CallError(K.INVALID_RESPONSE, "a tool call", usage=USAGE, may_be_billed=True), Decimal("0.00021"),
                     CostSource.PRICE_TABLE, id="unusable, with usage"),
        pytest.param(CallError(K.INVALID_RESPONSE, "x", usage=USAGE, service_tier="flex"), None, CostSource.UNKNOWN,
                     id="unusable, at another tier"),
        pytest.param(CallError(K.INVALID_RESPONSE, "x", provider_cost_usd=Decimal("0.5")), Decimal("0.5"),
                     CostSource.PROVIDER, id="unusable, cost stated"),
        pytest.param(CallError(K.INVALID_RESPONSE, "x", usage=USAGE, response_model="gpt-4o"), Decimal("0.0035"),
                     CostSource.PRICE_TABLE, id="unusable, from another model"),
    ],
)  # fmt: skip
def test_the_cost_of_a_call(outcome, usd, source):
    """Known, nothing, or unknown with a reason; never a guess."""
    call = record(outcome)
    assert (call.cost_usd, call.cost_source) == (usd, source)
    assert usd is not None or call.cost_reason


@pytest.mark.parametrize(
    ("outcome", "usd"),
    [
        pytest.param(make_reply(), "0.000105", id="answer"),  # 1,000 x 0.075 + 100 x 0.30 millionths
        pytest.param(make_reply(service_tier="batch"), "0.000105", id="the tier says batch"),
        pytest.param(make_reply(provider_cost_usd=Decimal("0.5")), "0.5", id="stated"),
        pytest.param(CallError(K.INVALID_RESPONSE, "a tool call", usage=USAGE), "0.000105", id="unusable, with usage"),
        pytest.param(CallError(K.EXPIRED, "not run in time"), "0", id="not run"),
    ],
)
def test_a_request_of_a_batch_is_priced_as_one(outcome, usd):
    """By the batch price, in the same record."""
    assert record(outcome, facts={"processing": "batch"}).cost_usd == Decimal(usd)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param(None, 0, "the reply was lost", id="no response"),
        pytest.param(b"gateway time-out", 504, "the reply was lost", id="a gateway's word for it"),
        pytest.param(b"<html>", 200, "the provider answered without a usable answer and may have charged for it", id="200"),
    ],
)  # fmt: skip
def test_an_unknown_cost_has_a_true_reason(body, status, words):
    """An answer that came but can't be used is not a lost one."""
    call = record(CallError(K.INVALID_RESPONSE, "no good", may_be_billed=True), body, status)
    assert (call.cost_usd, call.cost_source) == (None, CostSource.UNKNOWN)
    assert words in call.cost_reason


def test_a_reason_never_holds_the_key():
    """A provider that repeats the key as a tier or a model does not bring it into the ledger (P9)."""
    assert KEY not in record(make_reply(service_tier=KEY)).cost_reason
    call = record(CallError(K.INVALID_RESPONSE, "x", usage=USAGE, response_model=KEY))
    assert KEY not in call.response_model


def test_an_error_is_recorded_with_its_words():
    """Kind, message, code and the wait asked for; no finish reason, no text, no model."""
    call = record(CallError(K.OVERLOADED, "busy", "server_is_overloaded", 2.5), b"{}", 503)
    assert (call.status, call.kind, call.http_status) == (CallStatus.ERROR, K.OVERLOADED, 503)
    assert orjson.loads(call.error_json) == {
        "kind": "overloaded", "message": "busy", "code": "server_is_overloaded", "retry_after_s": 2.5,
    }  # fmt: skip
    assert (call.finish_reasons, call.text, call.response_model) == ((), None, None)


def test_no_response_leaves_its_columns_empty():
    """A connection that failed has neither status nor body."""
    call = record(CallError(K.CONNECTION_ERROR, "cannot connect"), None)
    assert (call.http_status, call.response_json) == (None, None)


@pytest.mark.parametrize(
    ("payloads", "request_json", "response_json"),
    [
        pytest.param("full", '{"q":1}', '{"a":2}', id="full"),
        pytest.param("none", None, None, id="none"),
        pytest.param(
            "hash",
            {"sha256": hashlib.sha256(b'{"q":1}').hexdigest(), "bytes": 7},
            {"sha256": hashlib.sha256(b'{"a":2}').hexdigest(), "bytes": 7},
            id="hash",
        ),
    ],
)
def test_payloads_obey_the_job(payloads, request_json, response_json):
    """In full, as size and digest, or not at all; the text for reuse and the prompt's hash stay whatever is chosen."""
    call = record(body=b'{"a":2}', shown=b'{"q":1}', payloads=payloads)
    if payloads == "hash":
        assert (orjson.loads(call.request_json), orjson.loads(call.response_json)) == (request_json, response_json)
    else:
        assert (call.request_json, call.response_json) == (request_json, response_json)
    assert (call.text, call.prompt_sha256) == ("fine", "p" * 64)


def test_bytes_that_are_no_text_are_recorded_all_the_same():
    """Whatever a provider sends can be written."""
    call = record(CallError(K.INVALID_RESPONSE, "what is this"), b"\xff\xfe{")
    assert call.response_json == "\\xff\\xfe{"


@pytest.mark.parametrize("where", ["body", "error"])
def test_the_key_is_never_recorded(where):
    """A provider that repeats the key in a body or an error does not get it into the record (P9)."""
    if where == "body":
        call = record(body=orjson.dumps({"echo": f"Bearer {KEY}"}))
    else:
        call = record(CallError(K.INVALID_REQUEST, f"bad header: Bearer {KEY}"), KEY.encode(), 400)
    assert KEY not in str(call)
    assert "[redacted]" in str(call)


SECRETS = ["Anna", "Anna Müller", 'Zoë "Z" O\'Neill', "two\nlines", "back\\slash", "</tag>", "日本語 😀"]
SHAPES = [
    pytest.param(lambda v: orjson.dumps({"content": f"re: {v}!"}), id="in a string"),
    pytest.param(lambda v: orjson.dumps({"content": orjson.dumps({"name": v}).decode()}), id="in JSON in a string"),
    pytest.param(lambda v: ascii_json({"content": f"re: {v}!"}), id="escaped to ASCII"),
    pytest.param(lambda v: ascii_json({"content": ascii_json({"name": v}).decode()}), id="escaped to ASCII twice"),
    pytest.param(lambda v: ascii_json({"a": v}).replace(b"<", b"\\u003C"), id="escaped as others do"),
    pytest.param(lambda v: orjson.dumps({v: 1}), id="as a key"),
    pytest.param(lambda v: orjson.dumps({"a": [[v]]})[:-2], id="in a body cut short"),
    pytest.param(lambda v: b"<html>" + v.encode(), id="in HTML"),
]


def ascii_json(value):
    """Return JSON as servers in Python write it."""
    import json

    return json.dumps(value).encode()


@pytest.mark.parametrize("value", SECRETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_redacted_values_are_not_in_the_response_however_it_is_written(shape, value):
    """The column shows no value of a redacted field, and JSON stays JSON."""
    body = shape(value)
    call = record(body=body, hidden=("Anna", value))
    assert "[redacted]" in call.response_json
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        shown = call.response_json
    else:
        shown = str(orjson.loads(call.response_json))
        assert "[redacted]" in shown
    core = max(value.replace("\n", " ").replace('"', " ").replace("\\", " ").split(), key=len)
    assert core not in shown


@pytest.mark.parametrize("value", SECRETS)
def test_redacted_values_are_not_in_the_error(value):
    """A provider that quotes the prompt in its error does not get it into the record."""
    call = record(CallError(K.INVALID_REQUEST, f"can't take {value}"), None, hidden=(value,))
    assert orjson.loads(call.error_json)["message"] == "can't take [redacted]"


@given(st.lists(st.text(max_size=8), max_size=4), st.text(max_size=40))
def test_blanking_leaves_no_value_and_hides_nothing_twice(values, text):
    """Whatever values and text are, no value that is not itself part of the mark remains."""
    blanked = blank(text, tuple(values))
    for value in values:
        if value.strip():
            assert value not in blanked.replace("[redacted]", "\0")
    if not any(value.strip() for value in values):
        assert blanked == text


def test_blanking_takes_the_longest_value():
    """A value that is part of another does not leave the other's rest behind."""
    assert blank("Anna Smith and Anna", ("Anna", "Anna Smith")) == "[redacted] and [redacted]"
    assert blank("seen red", ("red", "seen")) == "[redacted] [redacted]"


def test_deep_json_does_not_break_the_record():
    """A reply nested deeper than JSON is written is blanked as text."""
    body = b"[" * 900 + b'"Anna"' + b"]" * 900
    assert "Anna" not in record(body=body, hidden=("Anna",)).response_json


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        pytest.param(CallError(K.TIMEOUT, "no reply in time"), "no reply in time", id="error"),
        pytest.param(make_reply(K.TRUNCATED, "c", FinishReason.LENGTH), "raise model.params.max_output_tokens", id="cut"),
        pytest.param(make_reply(K.REFUSAL, None, explanation="I can't"), "the model refused to answer: I can't", id="no"),
        pytest.param(make_reply(K.REFUSAL, None), "the model refused to answer", id="no, without words"),
        pytest.param(make_reply(K.CONTENT_FILTERED, None), "the provider's filter cut it out", id="filtered"),
    ],
)  # fmt: skip
def test_the_reason_is_one_sentence(outcome, words):
    """Each end that is not OK says what happened, and the cure where there is one."""
    assert words in reason_of(outcome)


def test_a_reply_that_repeats_the_key_is_cleaned_before_it_travels():
    """Its text and the model's name lose the run's own key; all else of the reply is as it was (P9)."""
    reply = make_reply(text=f"your key is {KEY}!")
    cleaned = make_recorder(PROVIDER).clean(replace(reply, response_model=f"gpt {KEY}"))
    assert cleaned == replace(reply, text="your key is [redacted]!", response_model="gpt [redacted]")


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(make_reply(), id="plain answer"),
        pytest.param(make_reply(text="a key looks like sk-abcdEFGH1234_-abcdEFGH"), id="only looks like a key"),
        pytest.param(make_reply(K.REFUSAL, None, FinishReason.REFUSAL), id="no text"),
        pytest.param(make_reply(text=""), id="empty text"),
        pytest.param(CallError(K.SERVER_ERROR, f"broken {KEY}"), id="error"),
    ],
)
def test_any_other_outcome_is_left_as_it_is(outcome):
    """The same object comes back: an answer is data, and an error's words are cleaned where they are shown."""
    assert make_recorder(PROVIDER).clean(outcome) is outcome
