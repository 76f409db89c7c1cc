"""The sandbox over real HTTP: limits, the end, statistics, and bodies of any kind."""

import http.client
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sandbox.__main__ import main
from pipelines.sandbox.bill import read_bill
from pipelines.sandbox.faults import FaultPlan
from pipelines.sandbox.rehearsal import Admitted, Rehearsal
from pipelines.sandbox.routes import find_route
from pipelines.sandbox.server import RunningSandbox
from tests.unit.sandbox_http_builders import AZURE, MESSAGES, OPENAI, OPENROUTER, QUESTIONS, ask, body_for, eventually

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
