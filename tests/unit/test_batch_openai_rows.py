"""Lines of results in OpenAI's shape, and replies of any shape: nothing raises, and no row is taken for another."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.batch_api_builders import CUSTOM_ID, KEY, Made, make, response, row
from transforms.records.batch import BatchLine
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, Reply


def openai_batch() -> Made:
    """Return the adapter for a job's model."""
    return make(provider="openai", name="gpt-4o-mini")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        pytest.param(row(400, {"error": {"message": "no", "type": "invalid_request_error"}}), Kind.INVALID_REQUEST),
        pytest.param(row(429, {"error": {"message": "no", "type": "insufficient_quota"}}), Kind.QUOTA_EXHAUSTED),
        pytest.param(row("500", {}, {"message": "broken"}), Kind.SERVER_ERROR, id="both"),
        pytest.param(row(200, None, {"code": "x", "message": "m"}), Kind.SERVER_ERROR, id="200_with_error"),
        pytest.param(row(0, {}, {"code": "x", "message": "m"}), Kind.SERVER_ERROR, id="status_0"),
        pytest.param(row(0, {"error": {"message": "m"}}), Kind.SERVER_ERROR, id="status_0_error_in_body"),
        pytest.param(row(0, {}), Kind.INVALID_RESPONSE, id="status_0_silent"),
        pytest.param(row(response=None, error={"code": "batch_expired", "message": "late"}), Kind.EXPIRED),
        pytest.param(row(response=None, error={"code": "batch_cancelled", "message": "m"}), Kind.CANCELLED),
        pytest.param(row(0, {}, {"code": "batch_canceled"}), Kind.CANCELLED, id="one_l"),
        pytest.param(row(response=None, error={"code": "insufficient_quota"}), Kind.QUOTA_EXHAUSTED, id="money"),
        pytest.param(row(response=None, error="broken"), Kind.SERVER_ERROR, id="text"),
        pytest.param(row(response=None), Kind.INVALID_RESPONSE, id="neither"),
        pytest.param(row(body=[]), Kind.INVALID_RESPONSE, id="no_body"),
        pytest.param(row(503, "<html>busy</html>"), Kind.OVERLOADED, id="page"),
    ],
)
def test_a_rows_outcome_is_its_status(line, kind):
    """Status codes decide; errors without one keep their words, and expired and cancelled rows their names."""
    outcome = openai_batch().outcome(line)
    assert isinstance(outcome, CallError)
    assert outcome.kind is kind
    said = line.get("error")
    if isinstance(said, dict) and "message" in said:
        assert said["message"] in outcome.message


def test_a_good_row_is_read_like_real_time():
    """The response is one that the provider reads, with the provider's id beside it."""
    made = openai_batch()
    line = made.api.read_line(orjson.dumps(row()))
    reply = made.provider.read(line.response)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.usage.input_tokens, line.custom_id) == ("hi", 9, CUSTOM_ID)
    assert line.provider_request_id == "4e7a"


@pytest.mark.parametrize("line", [b'{"custom_id": "a', b"[]", b'{"response": null}', b'{"custom_id": 7}', b"\xff"])
def test_a_line_without_a_request_is_quoted(line):
    """What names no request is an error that shows its start."""
    found = openai_batch().api.read_line(line)
    assert found == BatchLine(None, None, found.error)
    assert found.error.kind is Kind.INVALID_RESPONSE
    assert line.decode("utf-8", "replace") in found.error.message


def test_a_row_nested_too_deeply_is_an_error_of_its_own():
    """JSON that can be read but not written again gives no answer, and raises nothing."""
    deep = b'{"a":' * 400 + b"1" + b"}" * 400
    api = openai_batch().api
    found = api.read_line(b'{"custom_id":"a","response":{"status_code":200,"body":' + deep + b"}}")
    assert openai_batch().provider.read(found.response).kind is Kind.INVALID_RESPONSE
    assert api.read_line(b'{"custom_id":"a","error":' + deep + b"}").error.kind is Kind.SERVER_ERROR


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "body", "message", "status_code", "code", "type", "data", "id", "results"]), inner
    ),
    max_leaves=8,
)  # fmt: skip


@given(answer=JSON, error=JSON, raw=st.binary(max_size=30))
def test_no_line_raises(answer, error, raw):
    """Whatever a line holds, it gives exactly one of response and error."""
    made = openai_batch()
    for line in (raw, json.dumps({"custom_id": "a", "response": answer, "error": error}).encode()):
        found = made.api.read_line(line)
        assert (found.response is None) != (found.error is None)
        if found.response is not None:
            made.provider.read(found.response)


@given(body=JSON, status=st.sampled_from([200, 202, 400, 402, 404, 410, 500]))
def test_no_reply_raises(body, status):
    """Whatever a reply holds, it is read."""
    api = openai_batch().api
    reply = response(json.dumps(body).encode(), status)
    api.read_batch(reply)
    api.read_status("batch_1", reply)
    api.read_page(KEY, reply)
    api.read_file(reply)
