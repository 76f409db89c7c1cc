"""Which way requests go, and what becomes of those a batch or its API would not take (P1, P2, P7)."""

import pytest

from tests.conformance.batch_jobs import KEY, Gate, Workshop, assert_all_once, assert_paid
from tests.conformance.jobs import plain_rows
from tests.conformance.turnstile import Answer
from transforms.providers import batch_client, batch_openai
from transforms.records.errors import ConfigError

_OVERLOADED: dict[str, object] = {"error": {"message": "The server is overloaded.", "type": "server_error"}}
_OUT_OF_ORDER = Answer(503, _OVERLOADED, {"retry-after-ms": "20"})


@pytest.mark.parametrize(
    ("rows", "overrides", "batches"),
    [
        pytest.param(19, (), 0, id="under the threshold"),
        pytest.param(20, (), 1, id="at the threshold"),
        pytest.param(30, ("batching.allowed_providers=[anthropic]",), 0, id="not an allowed provider"),
        pytest.param(30, ("batching.allowed_providers=[openai]",), 1, id="an allowed provider"),
    ],
)
def test_auto_goes_by_count_and_allowed_providers(
    workshop: Workshop, rows: int, overrides: tuple[str, ...], batches: int
) -> None:
    """Mode auto: fewer fresh requests than the threshold, or a provider that is not allowed, go real time."""
    workshop.write("openai", rows, batching={"mode": "auto"})
    assert_all_once(workshop.run(*overrides), rows)
    by_batch = rows if batches else 0
    assert_paid(workshop.sandbox, batches=batches, by_batch=by_batch, real_time=rows - by_batch)


def test_auto_counts_what_is_fresh(workshop: Workshop) -> None:
    """Rows that are answered already don't count: ten new ones of forty go real time (P8)."""
    workshop.write("openai", 30, batching={"mode": "auto"})
    assert_all_once(workshop.run(), 30)
    workshop.write_rows(plain_rows(40))
    assert_all_once(workshop.run(), 40)
    assert_paid(workshop.sandbox, batches=1, by_batch=30, real_time=10)


def test_a_provider_that_is_not_allowed_is_a_mistake_where_batches_are_demanded(workshop: Workshop) -> None:
    """Mode provider_batch_api without the provider in allowed_providers is one line and exit 2; nothing is sent."""
    workshop.write("openai")
    with pytest.raises(ConfigError, match=r"^batching\.mode: .*allowed_providers leaves out openai") as caught:
        workshop.run("batching.allowed_providers=[anthropic]")
    assert "\n" not in str(caught.value)
    assert workshop.sandbox.stats()["batch_requests"] == 0


@pytest.mark.parametrize(
    ("provider", "status"),
    [
        pytest.param("openai", 404, id="openai, 404"),
        pytest.param("anthropic", 403, id="anthropic, 403"),
        pytest.param("openrouter", 404, id="openrouter, 404"),
    ],
)
def test_where_the_batch_api_is_not_to_be_had_rows_go_real_time(workshop: Workshop, provider: str, status: int) -> None:
    """An account without the batch API gets its rows all the same, each paid once (P1, P2)."""
    workshop.sandbox.set_faults(batch={"unavailable": status})
    workshop.write(provider)
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=0, by_batch=0, real_time=30)
    assert not any(entry.is_in_flight for entry in workshop.entries())


def test_an_upload_that_keeps_failing_sends_rows_real_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 on every upload: nothing of the batch exists, so its rows go real time, each paid once (P1, P2).

    Each of the six uploads would be tried five times, up to two seconds apart on top of what the provider wishes.
    """
    monkeypatch.setattr(batch_client, "_UPLOAD_TRIES", 1)
    with Gate(workshop.sandbox) as gate:
        gate.decide = lambda asked: _OUT_OF_ORDER if asked.path.endswith("/files") else None
        workshop.write("openai", gate=gate)
        assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=0, by_batch=0, real_time=30)


@pytest.mark.parametrize("provider", ["openai", "openrouter"])
def test_a_batch_that_fails_validation_goes_real_time(workshop: Workshop, provider: str) -> None:
    """Nothing of a rejected batch ran: its rows go real time and nothing is paid twice (P2, P7).

    With one shard the pool's group is made of the very requests of the batch.
    """
    workshop.sandbox.set_faults(batch={"reject": 1})
    workshop.write(provider, batching={"shards": 1})
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=0, real_time=30)
    assert [(void.kind) for entry in workshop.entries() for void in entry.voids] == ["batch_rejected"]
    modes = workshop.output.query("select mode, status, request_count from {batches} order by submitted_at")
    assert [entry["mode"] for entry in modes] == ["provider_batch_api", "per_request"]
    assert {entry["request_count"] for entry in modes} == {30}


@pytest.mark.parametrize(
    ("rule", "batches", "real_time"),
    [
        pytest.param("real_time", 1, 12, id="real time"),
        pytest.param("batch", 2, 0, id="by batch"),
        pytest.param("none", 1, 0, id="not at all"),
    ],
)
def test_failed_rows_are_redone_by_the_jobs_rule(workshop: Workshop, rule: str, batches: int, real_time: int) -> None:
    """retry_failed: rows whose results were lost go real time, into one more batch, or to the dead letters (P1, P2)."""
    workshop.sandbox.set_faults(batch={"missing": 0.3, "out_of_order": False})
    workshop.write("openai", 40, batching={"retry_failed": rule, "threshold": 1})
    result = workshop.run()
    assert result.exit_code == 0
    lost = {"real_time": 0, "batch": 4, "none": 12}[rule]
    assert result.summary["rows"] == {"in": 40, "enriched": 40 - lost, "dead_lettered": lost, "pending": 0}
    letters = workshop.output.dead_letters(result.summary["run_id"])
    assert {(letter["kind"], letter["retryable"]) for letter in letters} <= {("missing_result", True)}
    by_batch = 40 - lost - real_time
    assert_paid(workshop.sandbox, batches=batches, by_batch=by_batch, real_time=real_time)
    if rule == "none":
        workshop.sandbox.set_faults()
        assert_all_once(workshop.run(), 40)
        assert workshop.sandbox.bill()["paid_twice"] == 0


def test_a_request_that_no_batch_can_hold_is_a_dead_letter_alone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With files of 12,000 bytes at most, one row of 18,000 is given up; the others go in several batches (P1, P7)."""
    monkeypatch.setattr(batch_openai, "_MAX_BYTES", 12_000)
    rows = plain_rows(30)
    rows[7]["text"] = "too long " * 2000
    workshop.write("openai", rows)
    result = workshop.run()
    assert result.summary["rows"] == {"in": 30, "enriched": 29, "dead_lettered": 1, "pending": 0}
    [letter] = workshop.output.dead_letters(result.summary["run_id"])
    assert (letter["row_id"], letter["kind"], letter["retryable"]) == ("r7", "request_too_large", False)
    assert letter["row"] == rows[7]
    assert "shorten the row" in letter["reason"]
    sizes = [entry.staged.byte_count for entry in workshop.entries()]
    assert len(sizes) > 1
    assert max(sizes) <= 12_000
    assert_paid(workshop.sandbox, batches=len(sizes), by_batch=29)


def test_a_key_without_credit_stops_the_run(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """No money: exit 6 with the provider's words in one line, every row waits, and a new key finishes the job (P1)."""
    monkeypatch.setenv("OPENAI_API_KEY", "no-credit")
    workshop.write("openai")
    refused = workshop.run()
    assert (refused.exit_code, refused.summary["rows"]["pending"]) == (6, 30)
    assert "quota_exhausted" in refused.sentence
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert_all_once(workshop.run(), 30)
    assert_paid(workshop.sandbox, batches=1, by_batch=30)
