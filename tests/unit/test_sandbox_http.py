"""The sandbox over real HTTP: every provider's shapes, every kind of fault, the limits and the bill."""

import http.client
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sandbox.__main__ import main
from pipelines.sandbox.bill import read_bill
from pipelines.sandbox.faults import FaultPlan, Storm
from pipelines.sandbox.rehearsal import Admitted, Rehearsal
from pipelines.sandbox.routes import find_route
from pipelines.sandbox.server import RunningSandbox

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["positive", "negative", "neutral"]}, "sure": {"type": "boolean"}},
    "required": ["label", "sure"],
    "additionalProperties": False,
}
CHAT_FORMAT = {"type": "json_schema", "json_schema": {"name": "review", "strict": True, "schema": SCHEMA}}
OPENAI, DATED = "/v1/chat/completions", "/openai/deployments/mini/chat/completions?api-version=2024-10-21"
RESPONSES, MESSAGES, OPENROUTER = "/v1/responses", "/v1/messages", "/api/v1/chat/completions"
AZURE, AZURE_RESPONSES = "/openai/v1/chat/completions", "/openai/responses?api-version=2025-04-01-preview"
QUESTIONS = [OPENAI, RESPONSES, DATED, AZURE, AZURE_RESPONSES, MESSAGES, OPENROUTER]

FIELDS = [
    "model",
    "messages",
    "input",
    "max_tokens",
    "max_output_tokens",
    "response_format",
    "text",
    "output_config",
    "system",
]


class Got(NamedTuple):
    """A reply: status, headers with lower-case names, raw body."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)


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


def ask(sandbox: RunningSandbox, path: str, number: int = 0, key: str | None = "k", **changes: Any) -> Got:
    """Send question `number` in the shape the path asks for; a change to None leaves a field out."""
    body = {**body_for(path, number), **changes}
    body = {name: value for name, value in body.items() if value is not None}
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers |= {"api-key": key} if path.startswith("/openai") else {"Authorization": f"Bearer {key}"}
    if path == MESSAGES:
        headers["anthropic-version"] = "2026-10-21"
    return send(sandbox, "POST", path, headers, orjson.dumps(body))


def body_for(path: str, number: int) -> dict[str, Any]:
    """Return a good request body for the path."""
    prompt = f"Label review {number}, please."
    if "responses" in path:
        return {
            "model": "m",
            "input": prompt,
            "text": {"format": {"type": "json_schema", "name": "r", "schema": SCHEMA}},
        }
    messages = [{"role": "user", "content": prompt}]
    if path == MESSAGES:
        config = {"format": {"type": "json_schema", "schema": SCHEMA}}
        return {"model": "m", "max_tokens": 64, "messages": messages, "output_config": config}
    model = {} if "deployments" in path else {"model": "openai/gpt-4o-mini" if path == OPENROUTER else "m"}
    return {**model, "messages": messages, "response_format": CHAT_FORMAT}


def send(
    sandbox: RunningSandbox, method: str, path: str, headers: dict[str, str], body: bytes | None = None, timeout: float = 20
) -> Got:  # fmt: skip
    """Make one exchange on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Got(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def text_of(path: str, body: Any) -> str:
    """Return the answer's text from a success body."""
    if "responses" in path:
        return body["output"][0]["content"][0]["text"]
    return body["content"][0]["text"] if path == MESSAGES else body["choices"][0]["message"]["content"]


def finish_of(path: str, body: Any) -> str:
    """Return how the provider says the answer ended."""
    if "responses" in path:
        return (body["incomplete_details"] or {}).get("reason", body["status"])
    return body["stop_reason"] if path == MESSAGES else body["choices"][0]["finish_reason"]


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait up to five seconds for something another process is about to do."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("path", QUESTIONS)
def test_an_answer_is_schema_valid_deterministic_and_on_the_bill(sandbox: RunningSandbox, path: str) -> None:
    """Twice the same question: the same text, two entries, one distinct request."""
    first, second, other = ask(sandbox, path), ask(sandbox, path), [ask(sandbox, path, n) for n in range(1, 9)]
    assert first.status == 200
    jsonschema_rs.validate(SCHEMA, orjson.loads(text_of(path, first.json)))
    assert text_of(path, first.json) == text_of(path, second.json)
    assert len({text_of(path, got.json) for got in other}) > 1
    bill = sandbox.bill(entries=True)
    assert (bill["accepted"], bill["distinct"], bill["answered"], bill["in_flight"]) == (10, 9, 10, 0)
    assert [entry["attempt"] for entry in bill["entries"][:3]] == [1, 2, 1]
    assert bill["entries"][0]["path"] == path.partition("?")[0]
    assert bill["entries"][0]["body_sha256"] == bill["entries"][1]["body_sha256"]


def test_equal_questions_written_differently_are_one_request_on_the_bill(sandbox: RunningSandbox) -> None:
    """Key order and white space are not part of a request; its bytes still have a hash of their own."""
    body = body_for(OPENAI, 0)
    headers = {"Authorization": "Bearer k"}
    send(sandbox, "POST", OPENAI, headers, orjson.dumps(body))
    send(sandbox, "POST", OPENAI, headers, orjson.dumps(dict(reversed(body.items())), option=orjson.OPT_INDENT_2))
    bill = sandbox.bill(entries=True)
    assert (bill["accepted"], bill["distinct"]) == (2, 1)
    assert bill["entries"][0]["body_sha256"] != bill["entries"][1]["body_sha256"]


@pytest.mark.parametrize("path", QUESTIONS)
def test_without_a_schema_the_answer_is_a_sentence(sandbox: RunningSandbox, path: str) -> None:
    """Plain text is short, and its tokens are a quarter of its characters."""
    body = ask(sandbox, path, response_format=None, text=None, output_config=None).json
    text, usage = text_of(path, body), body["usage"]
    assert text.endswith(".")
    assert (usage.get("completion_tokens") or usage["output_tokens"]) == (len(text) + 3) // 4
    assert (usage.get("prompt_tokens") or usage["input_tokens"]) == (len("Label review 0, please.") + 3) // 4


@pytest.mark.parametrize("path", QUESTIONS)
def test_a_token_limit_below_the_answer_truncates_it(sandbox: RunningSandbox, path: str) -> None:
    """A limit of two tokens ends the answer after two, and the provider says so."""
    name = "max_output_tokens" if "responses" in path else "max_tokens"
    body = ask(sandbox, path, **{name: 2}).json
    assert finish_of(path, body) in ("length", "max_output_tokens", "max_tokens")
    assert len(text_of(path, body)) == 8


def test_answers_follow_from_request_and_seed_in_every_process(sandbox: RunningSandbox) -> None:
    """This process makes the same texts as the server; with another seed it makes others."""
    texts = [text_of(OPENAI, ask(sandbox, OPENAI, number).json) for number in range(12)]
    assert _texts_made_here(seed=5) == texts
    assert _texts_made_here(seed=6) != texts


def _texts_made_here(seed: int) -> list[str]:
    rehearsal = Rehearsal(FaultPlan(), seed, None, None)
    route = find_route("POST", OPENAI, has_anthropic_version=False)
    texts = []
    for number in range(12):
        raw = orjson.dumps(body_for(OPENAI, number), option=orjson.OPT_INDENT_2)
        admitted = rehearsal.judge(route, OPENAI, "", {"authorization": "Bearer k"}, raw)
        assert isinstance(admitted, Admitted)
        texts.append(rehearsal.complete(admitted).text)
    return texts


def test_azure_adds_what_azure_adds(sandbox: RunningSandbox) -> None:
    """Filter findings, the snapshot behind the deployment, the gateway's id; bearer works as well."""
    got = ask(sandbox, DATED)
    assert got.headers["apim-request-id"]
    assert got.json["model"] == "gpt-4o-mini-2024-07-18"
    assert got.json["choices"][0]["content_filter_results"]["hate"] == {"filtered": False, "severity": "safe"}
    assert got.json["prompt_filter_results"][0]["content_filter_results"]["jailbreak"]["detected"] is False
    headers = {"Authorization": "Bearer k"}
    assert send(sandbox, "POST", AZURE, headers, orjson.dumps(body_for(AZURE, 0))).status == 200
    assert ask(sandbox, AZURE_RESPONSES).json["model"] == "m"


def test_openrouter_states_the_price(sandbox: RunningSandbox) -> None:
    """The cost is the sum of its parts, and follows from the tokens."""
    got = ask(sandbox, OPENROUTER)
    usage = got.json["usage"]
    details = usage["cost_details"]
    parts = details["upstream_inference_prompt_cost"], details["upstream_inference_completions_cost"]
    assert usage["cost"] == pytest.approx(sum(parts))
    assert usage["cost"] == (usage["prompt_tokens"] * 15 + usage["completion_tokens"] * 60) / 10**8
    assert got.json["provider"] == "OpenAI"
    assert got.json["choices"][0]["native_finish_reason"] == "stop"
    assert got.headers["x-generation-id"].startswith("gen-")


@pytest.mark.parametrize(
    ("path", "bad", "status", "where"),
    [
        pytest.param(OPENAI, {"model": None}, 400, "model parameter", id="openai model"),
        pytest.param(OPENAI, {"messages": None}, 400, "'messages'", id="openai messages"),
        pytest.param(OPENAI, {"messages": []}, 400, "empty array", id="openai no messages"),
        pytest.param(OPENAI, {"max_tokens": 0}, 400, "max_completion_tokens", id="openai limit"),
        pytest.param(OPENAI, {"stream": True}, 400, "does not stream", id="stream"),
        pytest.param(OPENAI, {"response_format": {"type": "json_schema"}}, 400, "schema.name", id="nameless schema"),
        pytest.param(RESPONSES, {"input": None}, 400, "'input'", id="responses input"),
        pytest.param(DATED, {"messages": None}, 400, "'messages'", id="azure messages"),
        pytest.param(MESSAGES, {"model": None}, 400, "model: Field required", id="anthropic model"),
        pytest.param(MESSAGES, {"max_tokens": None}, 400, "max_tokens: Field required", id="anthropic max_tokens"),
        pytest.param(MESSAGES, {"messages": None}, 400, "messages: Field required", id="anthropic messages"),
        pytest.param(MESSAGES, {"temperature": 1}, 400, "temperature: Extra inputs", id="anthropic temperature"),
        pytest.param(OPENROUTER, {"messages": None}, 400, "'messages'", id="openrouter messages"),
        pytest.param(OPENAI, {"model": "no-such-model"}, 404, "model_not_found", id="openai model name"),
        pytest.param(AZURE, {"model": "no-such-model"}, 404, "DeploymentNotFound", id="azure deployment name"),
        pytest.param(MESSAGES, {"model": "no-such-model"}, 404, "not_found_error", id="anthropic model name"),
        pytest.param(OPENROUTER, {"model": "no-such-model"}, 400, "not a valid model ID", id="openrouter model name"),
    ],
)
def test_a_wrong_request_gets_the_providers_own_refusal(
    sandbox: RunningSandbox, path: str, bad: dict[str, Any], status: int, where: str
) -> None:
    """Status and words are the provider's, and nothing is on the bill."""
    got = ask(sandbox, path, **bad)
    assert got.status == status
    assert where in got.raw.decode()
    assert sandbox.bill()["accepted"] == 0


def test_a_strict_schema_is_checked_as_the_provider_checks_it(sandbox: RunningSandbox) -> None:
    """An open object is a 400 at OpenAI and Anthropic, and passes OpenRouter."""
    loose = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    named = {"type": "json_schema", "json_schema": {"name": "r", "strict": True, "schema": loose}}
    assert "additionalProperties" in ask(sandbox, OPENAI, response_format=named).json["error"]["message"]
    config = {"format": {"type": "json_schema", "schema": loose}}
    assert "additionalProperties" in ask(sandbox, MESSAGES, output_config=config).json["error"]["message"]
    assert ask(sandbox, OPENROUTER, response_format=named).status == 200


def test_anthropic_versions_differ_in_sampling(sandbox: RunningSandbox) -> None:
    """The older version takes temperature; a missing or unknown version is a 400."""
    body = orjson.dumps({**body_for(MESSAGES, 0), "temperature": 0.5})
    for version, status in (("2023-06-01", 200), ("2026-10-21", 400), ("2020-01-01", 400), (None, 400)):
        headers = {"x-api-key": "k", **({"anthropic-version": version} if version else {})}
        assert send(sandbox, "POST", MESSAGES, headers, body).status == status


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        pytest.param(OPENAI, {429}, ["insufficient_quota"], id="openai"),
        pytest.param(DATED, {429}, ["insufficient_quota"], id="azure"),
        pytest.param(MESSAGES, {400, 402}, ["credit balance is too low"], id="anthropic"),
        pytest.param(OPENROUTER, {402}, ["Insufficient credits"], id="openrouter"),
    ],
)
def test_keys_are_refused_and_accounts_run_dry(
    sandbox: RunningSandbox, path: str, status: set[int], words: list[str]
) -> None:
    """No key and a bad key are a 401; a key without money gets each of the provider's billing refusals."""
    assert [ask(sandbox, path, key=key).status for key in (None, "bad-key")] == [401, 401]
    refusals = [ask(sandbox, path, number, key="no-credit") for number in range(12)]
    assert {got.status for got in refusals} == status
    assert all(word in got.raw.decode() for got in refusals for word in words)
    assert all("retry-after" not in got.headers for got in refusals)
    assert sandbox.bill()["accepted"] == 0


def test_models_lists_answer_each_provider_in_its_shape(sandbox: RunningSandbox) -> None:
    """The free probe of a key: 200 with one, 401 without (OpenRouter shows its models to anyone)."""
    bearer = {"Authorization": "Bearer k"}
    assert send(sandbox, "GET", "/v1/models", bearer).json["object"] == "list"
    anthropic = send(sandbox, "GET", "/v1/models", bearer | {"anthropic-version": "2026-10-21"}).json
    assert anthropic["data"][0]["type"] == "model"
    assert send(sandbox, "GET", "/openai/v1/models", {"api-key": "k"}).json["object"] == "list"
    assert "pricing" in send(sandbox, "GET", "/api/v1/models", {}).json["data"][0]
    assert send(sandbox, "GET", "/api/v1/key", bearer).json["data"]["limit_remaining"] == 25
    assert (
        send(sandbox, "GET", "/api/v1/key", {"Authorization": "Bearer no-credit"}).json["data"]["limit_remaining"] == 0
    )
    for path in ("/v1/models", "/openai/v1/models", "/api/v1/key"):
        assert send(sandbox, "GET", path, {}).status == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", OPENAI),
        ("POST", "/v1/embeddings"),
        ("POST", DATED.partition("?")[0]),
        ("GET", "/api/x"),
        ("POST", "/openai/x"),
    ],
)
def test_an_unknown_path_is_a_404(sandbox: RunningSandbox, method: str, path: str) -> None:
    """What the sandbox does not serve does not exist, nor does a dated Azure URL without its version."""
    headers = {"Authorization": "Bearer k"}
    assert send(sandbox, method, path, headers, orjson.dumps(body_for(OPENAI, 0))).status == 404


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


@pytest.fixture(scope="module")
def limited() -> Iterator[RunningSandbox]:
    """A sandbox with room for six requests and 6,000 tokens at once."""
    with RunningSandbox(requests_per_minute=6, tokens_per_minute=6000) as sandbox:
        yield sandbox


@pytest.mark.parametrize("path", [OPENAI, AZURE, MESSAGES, OPENROUTER])
def test_limits_let_the_burst_through_and_then_say_how_long(limited: RunningSandbox, path: str) -> None:
    """Six at once (Azure one: it looks at ten seconds), then 429 with the true wait, about ten seconds."""
    limited.reset()
    burst = 1 if path == AZURE else 6
    passed = [ask(limited, path, number) for number in range(burst)]
    assert [got.status for got in passed] == [200] * burst
    refused = ask(limited, path, 99)
    assert refused.status == 429
    assert refused.headers["retry-after"] in ("9", "10")
    assert limited.bill()["accepted"] == burst
    assert limited.stats()["faults"] == {"limit": 1}
    prefix, suffix = {MESSAGES: ("anthropic-ratelimit-requests-", "")}.get(path, ("x-ratelimit-", "-requests"))
    if path == OPENROUTER:
        assert "x-ratelimit-limit" not in passed[0].headers
        assert int(refused.headers["x-ratelimit-reset"]) / 1000 - time.time() == pytest.approx(60, abs=5)
        return
    assert passed[0].headers[f"{prefix}limit{suffix}"] == "6"
    assert refused.headers[f"{prefix}remaining{suffix}"] == "0"
    reset = refused.headers[f"{prefix}reset{suffix}"]
    if path == MESSAGES:
        assert datetime.fromisoformat(reset).timestamp() - time.time() == pytest.approx(60, abs=5)
    elif path == AZURE:
        assert reset == "10"
    else:
        assert reset in ("1m0s", "60s") or reset.startswith("59.")


def test_a_request_larger_than_the_token_limit_never_fits(limited: RunningSandbox) -> None:
    """Its output limit counts in full; there is no wait that would help, so none is named."""
    limited.reset()
    got = ask(limited, OPENAI, max_tokens=6001)
    assert got.status == 429
    assert "Request too large" in got.json["error"]["message"]
    assert "retry-after" not in got.headers
    assert ask(limited, OPENAI, max_tokens=4000).status == 200
    assert float(ask(limited, OPENAI, 1, max_tokens=4000).headers["retry-after-ms"]) == pytest.approx(20_100, abs=500)


def test_it_stops_at_once_though_requests_hang(tmp_path: Path) -> None:
    """What was in flight at the end is dropped, and in the bill file as such."""
    path = tmp_path / "bill.jsonl"
    with RunningSandbox(faults="hang=1", bill_path=path) as sandbox:
        connection = http.client.HTTPConnection("127.0.0.1", sandbox.port)
        connection.request("POST", OPENAI, orjson.dumps(body_for(OPENAI, 0)), {"Authorization": "Bearer k"})
        assert eventually(lambda: sandbox.bill()["in_flight"] == 1)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    connection.close()
    assert [entry["state"] for entry in read_bill(path)] == ["dropped"]


def test_statistics_count_statuses_and_connections(sandbox: RunningSandbox) -> None:
    """Two connections one after another, one question each."""
    ask(sandbox, OPENAI)
    ask(sandbox, OPENAI, messages=None)
    stats = sandbox.stats()
    assert (stats["requests"], stats["by_status"]) == (2, {"200": 1, "400": 1})
    assert stats["peak_concurrency"] == 1
    assert stats["connections_total"] >= 3


def test_a_sandbox_that_can_not_start_says_so(
    sandbox: RunningSandbox, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A taken port, a wrong plan and an impossible bill file are a sentence on standard error and exit code 2."""
    with pytest.raises(RuntimeError, match="exit code 2"):
        RunningSandbox(port=sandbox.port)
    assert main(["--faults=weather=1"]) == 2
    assert main([f"--bill={tmp_path / 'none' / 'bill.jsonl'}"]) == 2
    written = capfd.readouterr().err
    assert all(words in written for words in ("address already in use", "weather", "No such file"))


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 70), st.floats(-2, 2), st.sampled_from(["", "x", "json_schema"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["role", "content", "type", "schema", "json_schema", "name", "format", "text", "anyOf", "strict"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(QUESTIONS), changes=st.dictionaries(st.sampled_from(FIELDS), _JSON, max_size=3))
def test_no_body_confuses_the_sandbox(path: str, changes: dict[str, Any]) -> None:
    """Whatever stands in a field, the request is answered or refused in order."""
    rehearsal = Rehearsal(FaultPlan(wrong_json=0.5), 1, None, None)
    path, _, query = path.partition("?")
    route = find_route("POST", path, has_anthropic_version=path == MESSAGES)
    raw = orjson.dumps(body_for(path, 0) | changes)
    headers = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"}
    judged = rehearsal.judge(route, path, query, headers, raw)
    if isinstance(judged, Admitted):
        completion = rehearsal.complete(judged)
        assert route.api is not None
        assert orjson.dumps(route.house.dress(route.api.reply(completion), completion))
    else:
        assert 400 <= route.house.refuse(judged.refused, "id")[0] < 600
