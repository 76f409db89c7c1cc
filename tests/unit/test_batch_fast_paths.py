"""What is done a shorter way because there is one for each row: always the same as the long way."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.unit.batch_api_builders import CUSTOM_ID, make
from tests.unit.pool_builders import KEY, make_recorder, make_request
from tests.unit.storage_builders import make_call
from transforms.providers import make_provider
from transforms.providers.reading import NOT_JSON, clean, count, parse_json, tier, to_json
from transforms.records.call import CallRecord
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, FinishReason, HttpResponse, Reply, Usage
from transforms.records.settings import ModelSettings
from transforms.rules.call_record import Exchange
from transforms.rules.redaction import REDACTED
from transforms.storage.ledger_lines import decode, encode, parse_line

_PROVIDER = make_provider(ModelSettings(provider="openai", name="gpt-4o-mini"), None)
_RECORDER = make_recorder(_PROVIDER)
_MADE = make(provider="openai", name="gpt-4o-mini")
_NAMES = [field.name for field in fields(CallRecord)]
_ERROR = CallError(FailureKind.SERVER_ERROR, "broken", "code", 1.5)
_CUT = Reply(FailureKind.TRUNCATED, "fi", FinishReason.LENGTH, "length", "gpt-4o-mini", Usage(1, 2, None, None, None))
_QUOTES = r"""(?:\\?["'])?"""
#: Every pattern of the redactor, to be tried on every text, in its order.
_UNGATED = (
    r"sk-(?<![A-Za-z0-9]sk-)()[A-Za-z0-9_-]{16,}",
    r"AIza(?<![A-Za-z0-9_-]AIza)()[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",
    r"()(?<![A-Za-z0-9])A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])",
    r"((?i:bearer)\s+)(?:(?=[^\s\"']*\d)[A-Za-z0-9._~+/-]{12,}|[A-Za-z0-9._~+/-]{24,})=*",
    rf"((?i:authorization){_QUOTES}\s*[:=,]\s*{_QUOTES}(?i:basic)\s+)[A-Za-z0-9+/_-]{{4,}}=*",
    rf"((?i:api[-_]?key|subscription-key){_QUOTES}\s*[:=,]\s*{_QUOTES})(?=[^\s\"']*\d)[^\s\"',;&\\}}\])]{{12,}}",
)
_PIECES = (
    "sk-", "AIza", "AKIA", "ASIA", "akia", "Bearer ", "BEARER\t", "Authorization: Basic ", 'aUTHORIZATION\\":\\"basic ',
    "api-key", "API_KEY", "apikey=", "Subscription-Key: ", "key", "monKEY ", '": "', "=", " ", "\n", "\\", "ß", "İ",
    "0123456789ABCDEF", "abcdefghijklmnop1", "aB3" * 12, "A" * 35, KEY, KEY[:9], KEY[9:], REDACTED,
)  # fmt: skip
_TEXTS = st.lists(st.sampled_from(_PIECES), max_size=9).map("".join)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _dumped(value):
    return json.dumps(value).encode()


def _exchange(outcome, response=None):
    return Exchange(
        make_request("r1"), "b1", 3, "b1-000003", "c1", 1, 1_795_000_000_000_000, 1.0, 0.0, b"{}", response, outcome,
        "req_1", "batch",
    )  # fmt: skip


@pytest.mark.parametrize("outcome", [pytest.param(_ERROR, id="error"), pytest.param(_CUT, id="cut off")])
@pytest.mark.parametrize("response", [None, HttpResponse(200, {}, b"{}")], ids=["no response", "response"])
def test_a_record_made_at_once_has_every_field_in_its_place_and_of_its_type(outcome, response):
    """As the constructor, which names and orders them, would have made it."""
    call = make_recorder(_PROVIDER).record(_exchange(outcome, response))
    assert list(vars(call)) == _NAMES
    assert call == CallRecord(**vars(call))
    assert hash(call) == hash(CallRecord(**vars(call)))
    for field in fields(CallRecord):
        TypeAdapter(field.type).validate_python(vars(call)[field.name], strict=True)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.none() | st.text() | st.just("half \ud83d"),
            "request_json": st.none() | st.text(),
            "cost_usd": st.none() | st.decimals(0, 10**6, places=18),
            "kind": st.sampled_from(FailureKind),
            "finish_reasons": st.lists(st.sampled_from(["stop", "length"]), max_size=2).map(tuple),
            "latency_ms": st.floats(0, 1e9),
        },
    )
)
def test_a_line_is_that_of_the_record_and_gives_it_back(changes):
    """Field by field in their order, whichever way the record was made."""
    call = make_call(**changes)
    line = encode(call)
    assert encode(CallRecord.of(dict(vars(call)))) == line
    assert list(json.loads(line).items()) == list(json.loads(json.dumps(asdict(call), default=str)).items())
    assert decode(parse_line(line)) == call


def test_a_record_made_at_once_can_no_more_be_changed_than_another():
    """It is frozen."""
    call = CallRecord.of(dict(vars(make_call())))
    with pytest.raises(AttributeError):
        call.text = "other"  # type: ignore[misc]


@given(_TEXTS)
def test_looking_for_markers_first_finds_what_trying_every_pattern_finds(text):
    """A pattern that is left out would have found nothing."""
    wanted = text.replace(KEY, REDACTED)
    for pattern in _UNGATED:
        wanted = re.sub(pattern, r"\1" + REDACTED, wanted)
    # KEY has neither escapes nor a Base64 form among the pieces.
    assert _RECORDER.redactor.text(text) == wanted


@given(st.none() | _TEXTS, st.none() | _TEXTS)
def test_a_reply_is_cleaned_as_its_parts_are(text, model):
    """Looked through together, changed each alone."""
    reply = Reply(FailureKind.OK, text, FinishReason.STOP, "stop", model, Usage())
    own = _RECORDER.redactor.own
    cleaned = _RECORDER.clean(reply)
    assert (cleaned.text, cleaned.response_model) == tuple(
        None if part is None else own(part) for part in (text, model)
    )


@given(_JSON.map(_dumped))
def test_what_was_written_last_reads_as_if_it_were_parsed(raw):
    """The value that is kept is the one that other bytes of the same content give."""
    value = parse_json(raw)
    if value is NOT_JSON:
        return
    written = to_json(value)
    assert repr(parse_json(written)) == repr(parse_json(bytes(bytearray(written))))


@given(_JSON, st.sampled_from([200, 200, 400, 429, 500]))
def test_a_row_is_read_as_its_bytes_would_be(body, status):
    """Also when another row was read in between."""
    line = {"custom_id": CUSTOM_ID, "response": {"status_code": status, "request_id": "q", "body": body}, "error": None}
    first = _MADE.api.read_line(_dumped(line))
    if first.response is None:
        return
    at_once = _MADE.provider.read(first.response)
    _MADE.api.read_line(b'{"custom_id":"other","response":{"status_code":200,"body":{"id":"other"}}}')
    assert _MADE.provider.read(first.response) == at_once


@pytest.mark.parametrize(
    "name", ["default", "standard", "auto", "batch", "flex", "priority", "Default", " flex", "new"]
)
def test_a_known_tier_is_what_cleaning_makes_of_it(name):
    """So that it need not be cleaned."""
    assert tier(name) == clean(name, 50).lower()


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(0, 0), (7, 7), (2**63 - 1, 2**63 - 1), (2**63, None), (-1, None), (True, None), (1.0, None), ("1", None)],
)
def test_a_counter_is_a_whole_number_that_fits(value, wanted):
    """Nothing else is read as one."""
    assert count(value) == wanted


def test_equal_token_counts_have_equal_costs_and_others_their_own():
    """The key that remembered costs are found by holds every count."""
    recorder = make_recorder(_PROVIDER)
    one = [Usage(1000, output, 0, None, None) for output in (100, 200, 100, 7)]
    replies = [Reply(FailureKind.OK, "t", FinishReason.STOP, "stop", "gpt-4o-mini-2024-07-18", use) for use in one]
    costs = [recorder.record(_exchange(reply, HttpResponse(200, {}, b"{}"))).cost_usd for reply in replies]
    alone = [
        make_recorder(_PROVIDER).record(_exchange(reply, HttpResponse(200, {}, b"{}"))).cost_usd for reply in replies
    ]
    assert costs == alone
    assert costs[0] == costs[2] != costs[1]
    assert all(isinstance(cost, Decimal) for cost in costs)


def test_threads_that_read_rows_at_once_do_not_read_each_others():
    """Each gets the value of its own bytes, whichever was written last."""

    def read(number):
        return all(parse_json(to_json({"n": number, "i": i})) == {"n": number, "i": i} for i in range(2_000))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(4)))
