"""providers/openai: answers of chat completions and responses, and what is no answer."""

import pytest
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tests.unit.provider_openai_builders import USAGE, answer, completion, provider, response
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import CallError, FinishReason, Reply, Usage

CHAT = [
    pytest.param(completion(), Kind.OK, FinishReason.STOP, "hi", None, id="stop"),
    pytest.param(completion("", "stop"), Kind.OK, FinishReason.STOP, "", None, id="empty-text"),
    pytest.param(completion('{"la', "length"), Kind.TRUNCATED, FinishReason.LENGTH, '{"la', None, id="length"),
    pytest.param(completion(None, "length"), Kind.TRUNCATED, FinishReason.LENGTH, None, None, id="all-reasoning"),
    pytest.param(
        completion(None, refusal="I can't."), Kind.REFUSAL, FinishReason.REFUSAL, None, "I can't.", id="refusal"
    ),
    pytest.param(
        completion(None, "content_filter"), Kind.CONTENT_FILTERED, FinishReason.CONTENT_FILTER, None, None, id="filter"
    ),
]


@pytest.mark.parametrize(("body", "kind", "finish", "text", "explanation"), CHAT)
def test_a_chat_completion_is_read(body, kind, finish, text, explanation):
    """Each way a completion can end is an outcome of its own; the body is one that OpenAI's types accept."""
    ChatCompletion.model_validate(body, strict=True)
    assert provider().read(response(body)) == Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=body["choices"][0]["finish_reason"],
        response_model="gpt-4o-mini-2024-07-18",
        usage=USAGE,
        response_id="chatcmpl-1",
        explanation=explanation,
    )


ANSWERS = [
    pytest.param(answer(), Kind.OK, FinishReason.STOP, "completed", "hi", None, id="completed"),
    pytest.param(
        answer(
            parts=[
                {"type": "output_text", "text": "a", "annotations": []},
                {"type": "output_text", "text": "b", "annotations": []},
            ]
        ),
        Kind.OK,
        FinishReason.STOP,
        "completed",
        "ab",
        None,
        id="two-parts",
    ),
    pytest.param(
        answer("incomplete", incomplete_details={"reason": "max_output_tokens"}),
        Kind.TRUNCATED,
        FinishReason.LENGTH,
        "max_output_tokens",
        "hi",
        None,
        id="truncated",
    ),
    pytest.param(
        answer("incomplete", output=[], incomplete_details={"reason": "content_filter"}),
        Kind.CONTENT_FILTERED,
        FinishReason.CONTENT_FILTER,
        "content_filter",
        None,
        None,
        id="filtered",
    ),
    pytest.param(
        answer(parts=[{"type": "refusal", "refusal": "No."}]),
        Kind.REFUSAL,
        FinishReason.REFUSAL,
        "completed",
        None,
        "No.",
        id="refusal",
    ),
]


@pytest.mark.parametrize(("body", "kind", "finish", "raw", "text", "explanation"), ANSWERS)
def test_a_response_object_is_read(body, kind, finish, raw, text, explanation):
    """Text parts are joined, reasoning is passed over, and each ending is an outcome of its own."""
    Response.model_validate(body)
    assert provider(api="responses").read(response(body)) == Reply(
        kind=kind,
        text=text,
        finish_reason=finish,
        raw_finish_reason=raw,
        response_model="gpt-4o-mini-2024-07-18",
        usage=USAGE,
        response_id="resp_1",
        explanation=explanation,
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_error", Kind.SERVER_ERROR),
        ("rate_limit_exceeded", Kind.RATE_LIMITED),
        ("invalid_prompt", Kind.CONTENT_FILTERED),
        ("bio_policy", Kind.CONTENT_FILTERED),
        ("misalignment_policy_violation", Kind.CONTENT_FILTERED),
        ("data_residency_mismatch", Kind.INVALID_REQUEST),
    ],
)
def test_a_failed_response_is_classified_by_its_code(code, kind):
    """HTTP 200 with status failed is an error, and says which; its usage is kept."""
    body = answer("failed", output=[], error={"code": code, "message": "It failed."})
    outcome = provider(api="responses").read(response(body))
    assert (outcome.kind, outcome.code, outcome.message, outcome.usage) == (kind, code, "It failed.", USAGE)


def test_a_failed_response_without_a_reason_is_a_server_error():
    """Nothing more is known, so another try may cure it."""
    assert provider(api="responses").read(response(answer("failed"))).kind is Kind.SERVER_ERROR


UNUSABLE = [
    pytest.param({}, completion() | {"choices": []}, id="no-choices"),
    pytest.param({}, {"id": "x"}, id="choices-missing"),
    pytest.param({}, completion(None), id="no-text"),
    pytest.param({}, completion(None, "tool_calls", tool_calls=[{"id": "t"}]), id="tool-call"),
    pytest.param({}, b"<html>Bad gateway</html>", id="html"),
    pytest.param({}, b'{"id": "chatcmpl-1", "choi', id="cut"),
    pytest.param({}, b"", id="empty"),
    pytest.param({}, b"[]", id="array"),
    pytest.param({"api": "responses"}, answer(output=[]), id="no-output"),
    pytest.param({"api": "responses"}, answer("in_progress"), id="unfinished"),
    pytest.param({"api": "responses"}, b"null", id="null"),
]


@pytest.mark.parametrize(("changes", "body"), UNUSABLE)
def test_a_2xx_without_an_answer_is_an_invalid_response(changes, body):
    """It quotes the body, may have been billed, and is never taken for an answer."""
    outcome = provider(**changes).read(response(body))
    assert isinstance(outcome, CallError)
    assert (outcome.kind, outcome.may_be_billed) == (Kind.INVALID_RESPONSE, True)
    assert outcome.message.startswith("HTTP 200 with ")


def test_an_unusable_body_is_quoted_to_500_bytes():
    """The record shows what came, but not all of it."""
    outcome = provider().read(response(b"x" * 5000))
    assert outcome.message == "HTTP 200 with a body that is not JSON: " + "x" * 500


def test_usage_may_be_missing():
    """Absent counters are None."""
    body = completion()
    del body["usage"]
    assert provider().read(response(body)).usage == Usage()


@pytest.mark.parametrize(
    ("api", "body", "lacking"),
    [
        pytest.param("chat_completions", completion(), completion(None), id="chat"),
        pytest.param("responses", answer(), answer(parts=[]), id="responses"),
    ],
)
@pytest.mark.parametrize(
    ("said", "tier"),
    [("priority", "priority"), ("Default", "default"), (None, None), (7, None), ("x" * 99, "x" * 50 + " ...")],
)
def test_the_service_tier_is_read(api, body, lacking, said, tier):
    """Answers, and errors that carry usage, name the tier and the model that decide their price."""
    for given_body, kind in ((body, Reply), (lacking, CallError)):
        outcome = provider(api=api).read(response({**given_body, "service_tier": said}))
        assert isinstance(outcome, kind)
        assert (outcome.service_tier, outcome.response_model) == (tier, "gpt-4o-mini-2024-07-18")
        assert outcome.usage == USAGE


def test_an_answer_broken_off_names_its_tier():
    """What was run before the break is priced like an answer."""
    outcome = provider().read(response({**completion(finish="error"), "service_tier": "flex"}))
    assert isinstance(outcome, CallError)
    assert (outcome.service_tier, outcome.usage) == ("flex", USAGE)
