"""The sandbox over real HTTP: every kind of fault, storms, and the dead provider."""

import http.client
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import jsonschema_rs
import orjson
import pytest

from pipelines.sandbox.bill import read_bill
from pipelines.sandbox.faults import FaultPlan, Storm
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_http_builders import (
    DATED,
    MESSAGES,
    OPENAI,
    OPENROUTER,
    QUESTIONS,
    RESPONSES,
    SCHEMA,
    ask,
    body_for,
    eventually,
    finish_of,
    send,
    text_of,
)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningSandbox]:
    """One sandbox for the whole file."""
    with RunningSandbox(seed=5) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: RunningSandbox) -> RunningSandbox:
    """The sandbox as it was at its start."""
    running.set_faults()
    running.reset()
    return running


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize(
    ("fault", "status"), [("rate_limit", 429), ("server_error", 500), ("bad_gateway", 502), ("overloaded", 503)]
)
def test_refusing_faults_have_their_status_and_are_not_paid(
    sandbox: RunningSandbox, path: str, fault: str, status: int
) -> None:
    """Anthropic says 529 where the others say 503; a gateway answers in HTML."""
    sandbox.set_faults(**{fault: 1})
    got = ask(sandbox, path)
    assert got.status == (529 if path == MESSAGES and status == 503 else status)
    assert got.headers["content-type"] == ("text/html" if fault == "bad_gateway" else "application/json")
    assert got.raw.startswith(b"<html>" if fault == "bad_gateway" else b'{"')
    assert sandbox.bill()["accepted"] == 0
    assert sandbox.stats()["faults"] == {fault: 1}


def test_rate_limit_faults_say_the_wait_in_every_form(sandbox: RunningSandbox) -> None:
    """Seconds, fractions, a date, milliseconds, and nothing at all."""
    sandbox.set_faults(rate_limit=1, retry_after_s=0.25)
    forms = set()
    for number in range(60):
        headers = ask(sandbox, OPENAI, number).headers
        value = headers.get("retry-after", "")
        if value.endswith("GMT"):
            assert abs(parsedate_to_datetime(value).timestamp() - time.time()) < 3
            forms.add("date")
        else:
            forms.add((value, headers.get("retry-after-ms")))
    assert forms == {"date", ("1", None), ("0.250", None), ("", "250"), ("", None)}


def test_a_retry_can_succeed_and_the_bill_counts_one(sandbox: RunningSandbox) -> None:
    """With half of all attempts failing, every question gets its answer in the end."""
    sandbox.set_faults(server_error=0.5)
    for number in range(20):
        assert any(ask(sandbox, OPENAI, number).status == 200 for _ in range(40))
    bill = sandbox.bill(entries=True)
    assert (bill["accepted"], bill["distinct"]) == (20, 20)
    assert max(entry["attempt"] for entry in bill["entries"]) > 1


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize("fault", ["reset", "cut_body"])
def test_a_reply_lost_on_the_way_is_paid(sandbox: RunningSandbox, path: str, fault: str) -> None:
    """The client sees a broken connection or a body too short; the bill has the request, dropped."""
    sandbox.set_faults(**{fault: 1})
    with pytest.raises(ConnectionResetError if fault == "reset" else http.client.IncompleteRead):
        ask(sandbox, path)
    bill = sandbox.bill()
    assert (bill["accepted"], bill["dropped"], bill["in_flight"]) == (1, 1, 0)


def test_a_hang_lasts_until_the_client_goes_away(sandbox: RunningSandbox) -> None:
    """In flight while the client waits, dropped when it gives up, paid all along."""
    sandbox.set_faults(hang=1)
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=0.3)
    connection.request("POST", OPENAI, orjson.dumps(body_for(OPENAI, 0)), {"Authorization": "Bearer k"})
    with pytest.raises(TimeoutError):
        connection.getresponse()
    assert sandbox.bill()["in_flight"] == 1
    assert sandbox.stats()["concurrency"] == 1
    connection.close()
    assert eventually(lambda: sandbox.bill()["dropped"] == 1)
    assert eventually(lambda: sandbox.stats()["concurrency"] == 0)


@pytest.mark.parametrize("path", QUESTIONS)
def test_wrong_json_is_a_success_whose_text_is_wrong(sandbox: RunningSandbox, path: str) -> None:
    """No text is the plain answer; it sticks to its request; without a schema nothing can be wrong."""
    sandbox.set_faults(wrong_json=1)
    texts = [text_of(path, ask(sandbox, path, number).json) for number in range(10)]
    assert text_of(path, ask(sandbox, path, 0).json) == texts[0]
    for text in texts:
        with pytest.raises((orjson.JSONDecodeError, jsonschema_rs.ValidationError)):
            jsonschema_rs.validate(SCHEMA, orjson.loads(text))
    assert text_of(path, ask(sandbox, path, response_format=None, text=None, output_config=None).json).endswith(".")
    assert sandbox.stats()["faults"] == {"wrong_json": 11}
    assert sandbox.bill()["accepted"] == 12


@pytest.mark.parametrize("path", QUESTIONS)
def test_refusals_have_each_formats_shape_and_are_paid(sandbox: RunningSandbox, path: str) -> None:
    """Chat: message.refusal; Responses: a refusal part; Anthropic: stop_reason with details."""
    sandbox.set_faults(refusal=1)
    body = ask(sandbox, path).json
    if "responses" in path:
        assert body["output"][0]["content"][0]["type"] == "refusal"
    elif path == MESSAGES:
        assert (body["stop_reason"], body["stop_details"]["type"]) == ("refusal", "refusal")
    else:
        message = body["choices"][0]["message"]
        assert message["content"] is None
        assert message["refusal"]
    assert sandbox.bill()["answered"] == 1


@pytest.mark.parametrize("path", QUESTIONS)
def test_truncated_answers_are_cut_and_say_so(sandbox: RunningSandbox, path: str) -> None:
    """Half an answer, the finish reason of the format, paid."""
    sandbox.set_faults(truncation=1)
    body = ask(sandbox, path).json
    assert finish_of(path, body) in ("length", "max_output_tokens", "max_tokens")
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text_of(path, body))
    assert sandbox.bill()["answered"] == 1


def test_azure_filters_prompts_unpaid_and_answers_paid(sandbox: RunningSandbox) -> None:
    """Both forms occur, with both spellings of the inner key; only filtered answers are on the bill."""
    sandbox.set_faults(content_filter=1)
    replies = [ask(sandbox, DATED, number) for number in range(30)]
    prompts = [got.json["error"] for got in replies if got.status == 400]
    answers = [got.json["choices"][0] for got in replies if got.status == 200]
    assert len(prompts) + len(answers) == 30
    assert all(error["code"] == "content_filter" and error["type"] is None for error in prompts)
    spellings = {name for error in prompts for name in error["innererror"]} - {"code"}
    assert spellings == {"content_filter_result", "content_filter_results"}
    assert all(choice["finish_reason"] == "content_filter" for choice in answers)
    assert any(harm.get("filtered") for choice in answers for harm in choice["content_filter_results"].values())
    assert sandbox.bill()["accepted"] == len(answers)


@pytest.mark.parametrize(
    ("path", "finish"),
    [(OPENAI, "content_filter"), (RESPONSES, "content_filter"), (MESSAGES, "refusal"), (OPENROUTER, "content_filter")],
)
def test_others_filter_answers_only(sandbox: RunningSandbox, path: str, finish: str) -> None:
    """A filtered answer is a 200 with the format's own finish reason."""
    sandbox.set_faults(content_filter=1)
    assert finish_of(path, ask(sandbox, path).json) == finish


def test_openrouter_puts_errors_into_a_200_in_all_its_places(sandbox: RunningSandbox) -> None:
    """Top-level error with and without choices, an error in the choice, and a bare finish reason; none is paid."""
    sandbox.set_faults(error_in_200=1)
    places = set()
    for number in range(60):
        got = ask(sandbox, OPENROUTER, number)
        assert got.status == 200
        body = got.json
        choices = body.get("choices")
        if "error" in body:
            assert isinstance(body["error"]["code"], int)
            places.add("top, choices empty" if choices == [] else "top, no choices")
        else:
            assert choices[0]["finish_reason"] == "error"
            places.add("choice" if "error" in choices[0] else "finish reason")
    assert places == {"top, choices empty", "top, no choices", "choice", "finish reason"}
    assert sandbox.bill()["accepted"] == 0


def test_responses_fail_inside_a_200_and_chat_does_not(sandbox: RunningSandbox) -> None:
    """Only formats that have the form use it; elsewhere the fault leaves the request alone."""
    sandbox.set_faults(error_in_200=1)
    body = ask(sandbox, RESPONSES).json
    assert (body["status"], body["output"]) == ("failed", [])
    assert body["error"]["code"]
    assert [finish_of(path, ask(sandbox, path).json) for path in (OPENAI, MESSAGES)] == ["stop", "end_turn"]
    assert sandbox.bill()["accepted"] == 2


@pytest.mark.parametrize("path", QUESTIONS)
def test_empty_answers_hold_nothing_and_cost_nothing(sandbox: RunningSandbox, path: str) -> None:
    """No choices, no output, no content."""
    sandbox.set_faults(empty_choices=1)
    body = ask(sandbox, path).json
    assert body["output" if "responses" in path else "content" if path == MESSAGES else "choices"] == []
    assert sandbox.bill()["accepted"] == 0


def test_latency_is_kept_slow_is_tenfold_and_all_is_in_the_bill_file(tmp_path: Path) -> None:
    """Fixed seconds plus jitter at most; the file outlives the sandbox, each entry with its state."""
    waits, path = [], tmp_path / "bill.jsonl"
    with RunningSandbox(latency_s=0.05, jitter_s=0.05, bill_path=path) as sandbox:
        for plan in (FaultPlan(), FaultPlan(slow=1)):
            sandbox.set_faults(plan)
            start = time.monotonic()
            ask(sandbox, OPENAI)
            waits.append(time.monotonic() - start)
        sandbox.set_faults(reset=1)
        with pytest.raises(ConnectionResetError):
            ask(sandbox, OPENAI, 1)
    assert 0.05 <= waits[0] < 0.5
    assert 0.5 <= waits[1] < 2
    assert [(entry["seq"], entry["state"], entry["fault"]) for entry in read_bill(path)] == [
        (1, "answered", None),
        (2, "answered", "slow"),
        (3, "dropped", "reset"),
    ]


def test_a_storm_answers_429_to_everything_and_passes(sandbox: RunningSandbox) -> None:
    """By number of request; what comes after is answered, and tries in the storm are no attempts."""
    sandbox.set_faults(storms=(Storm(from_request=1, to_request=3),))
    assert [ask(sandbox, path).status for path in (OPENAI, MESSAGES, OPENROUTER, OPENAI)] == [200, 429, 429, 200]
    assert sandbox.stats()["faults"] == {"storm": 2}
    sandbox.set_faults(storms=(Storm(from_s=0, to_s=0.2),))
    assert ask(sandbox, DATED).status == 429
    time.sleep(0.25)
    assert ask(sandbox, DATED).status == 200
    assert [entry["attempt"] for entry in sandbox.bill(entries=True)["entries"]] == [1, 2, 1]


def test_a_dead_provider_is_dead_for_everything_but_its_own_pages(sandbox: RunningSandbox) -> None:
    """503, Anthropic 529, models lists too; switched on and off while it runs."""
    sandbox.set_faults(dead=True)
    assert [ask(sandbox, path).status for path in QUESTIONS] == [503, 503, 503, 503, 503, 529, 503]
    assert send(sandbox, "GET", "/v1/models", {"Authorization": "Bearer k"}).status == 503
    sandbox.set_faults()
    assert ask(sandbox, OPENAI).status == 200


def test_a_wrong_plan_sent_live_changes_nothing(sandbox: RunningSandbox) -> None:
    """The refusal names the key; the plan in place stays."""
    sandbox.set_faults(server_error=1)
    got = send(sandbox, "POST", "/_sandbox/faults", {}, b'{"weather": 1}')
    assert got.status == 400
    assert "weather" in got.json["error"]
    assert ask(sandbox, OPENAI).status == 500
    assert send(sandbox, "GET", "/_sandbox/nothing", {}).status == 404
