"""The sandbox over real HTTP: every provider's shapes, its refusals, and the bill."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest

from pipelines.sandbox.faults import FaultPlan
from pipelines.sandbox.rehearsal import Admitted, Rehearsal
from pipelines.sandbox.routes import find_route
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_http_builders import (
    AZURE,
    AZURE_RESPONSES,
    DATED,
    MESSAGES,
    OPENAI,
    OPENROUTER,
    QUESTIONS,
    RESPONSES,
    SCHEMA,
    ask,
    body_for,
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
