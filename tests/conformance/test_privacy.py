"""What audit must not show is nowhere that a run leaves data, whatever the provider quotes (P9).

Places: each column of the audit tables, ledger (answers, requests, members, marks), asked files, manifest, summary,
latest.json, reasons of dead letters, logs, and what explain shows of calls. Not hidden: enriched rows and dead letters'
rows, which are the user's, and the answers' texts in the ledger, without which nothing could be reused.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from pipelines.explain import explain_row
from tests.conformance.batch_jobs import Asked, Gate, Workshop
from tests.conformance.turnstile import Answer, refusal

_HIDDEN = ("Zanzibar", "Tau\u00dfig", "quux-mail", "4111-2222", "98765432")
_PROMPT = "Harmless words"
_TEMPLATE = (
    "Label {{ row.text }} of {{ row.person.name }}, {{ row.person.emails[0] }}, aged {{ row.person.age }}, "
    "with {{ row.card }}. All of it: {{ row.person }}"
)


def _rows(count: int) -> bytes:
    people = [
        {
            "name": f"Zanzibar Tau\u00dfig {n}",
            "emails": [f"quux-mail{n}@example.test"],
            "age": 9_876_543_200 + n,
            "ok": True,
        }
        for n in range(count)
    ]
    rows = [
        {"id": f"r{n}", "text": f"{_PROMPT} number {n}", "card": f"4111-2222-{n}", "person": person}
        for n, person in enumerate(people)
    ]
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _quote(asked: Asked) -> Answer | None:
    """Quote the prompt in errors of several kinds, in a refusal, and in answers, valid and not."""
    if not asked.path.endswith("completions") or (choice := asked.number % 7) in (0, 6):
        return None
    said = orjson.loads(asked.body)["messages"][-1]["content"]
    if choice == 1:
        return refusal(400, f"Invalid prompt: {said}", "invalid_request_error", None)
    if choice == 2:
        return refusal(500, f"Failed on {json.dumps(said)}", "server_error", None)
    answer = {"label": "positive", "confidence": 1} | ({"extra": said} if choice == 5 else {})
    message = {"role": "assistant", "content": json.dumps(answer), "refusal": None}
    if choice == 3:
        message |= {"content": None, "refusal": f"I will not say {said}"}
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    body = {
        "id": "x",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": choices,
        "usage": usage,
    }
    return Answer(200, body)


def _at_rest(output: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, text) of all that is not the user's own data nor an answer's text in the ledger."""
    for path in sorted(one for one in output.rglob("*") if one.is_file() and "/enriched/" not in str(one)):
        name = path.relative_to(output).as_posix()
        if path.suffix == ".parquet":
            for column, values in pq.read_table(path).to_pydict().items():
                yield f"{name}: {column}", json.dumps(values, default=str, ensure_ascii=False)
        elif "/dead_letters/" in name or "ledger/answers" in name:
            key = "row" if "/dead_letters/" in name else "text"
            for line in path.read_bytes().splitlines():
                yield name, json.dumps({**orjson.loads(line), key: None}, ensure_ascii=False)
        else:
            yield name, path.read_bytes().decode("utf-8", "replace")


def _leaks(text: str, words: tuple[str, ...]) -> list[str]:
    forms = {word: (word, json.dumps(word)[1:-1]) for word in words}
    return [word for word, both in forms.items() if any(form in text for form in both)]


@pytest.mark.parametrize(
    ("payloads", "mode"),
    [
        ("full", "per_request"),
        ("none", "per_request"),
        pytest.param("none", "provider_batch_api", marks=pytest.mark.soak),
        pytest.param("full", "provider_batch_api", marks=pytest.mark.soak),
        pytest.param("hash", "per_request", marks=pytest.mark.soak),
        pytest.param("hash", "provider_batch_api", marks=pytest.mark.soak),
    ],
)
def test_what_audit_must_not_show_is_nowhere(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, payloads: str, mode: str
) -> None:
    """Redacted columns, nested values included, never; prompts and answers not under hash and none."""
    caplog.set_level("DEBUG")
    workshop.sandbox.set_faults(batch={"missing": 0.2})
    with Gate(workshop.sandbox) as gate:
        gate.decide = _quote
        audit = {"payloads": payloads, "redact": ["person", "card"]}
        workshop.write("openai", gate=gate, audit=audit, batching={"mode": mode}, prompt={"template": _TEMPLATE},
                       input={"path": "rows.jsonl"}, pool={"max_in_flight": 4, "max_attempts": 3})  # fmt: skip
        (workshop.folder / "rows.jsonl").write_bytes(_rows(30))
        result = workshop.run()
    assert result.exit_code == 0
    output = workshop.folder / "out"
    logs = [str(vars(record)) for record in caplog.records if record.name.startswith("rowbeam")]
    assert logs
    places = [*_at_rest(output), ("logs", "\n".join(logs)), ("summary", json.dumps(result.summary) + result.sentence)]
    assert {place: found for place, text in places if (found := _leaks(text, _HIDDEN))} == {}
    # A dead letter's reason stands beside its whole row for whoever must act, and the report tells it: no audit payload.
    kept = [one for one in places if "/dead_letters/" not in one[0] and not one[0].endswith("report.html")]
    if payloads != "full":
        assert {place: found for place, text in kept if (found := _leaks(text, (_PROMPT, "confidence\\")))} == {}
    if mode == "per_request":
        (first, *_) = workshop.output.dead_letters(result.summary["run_id"])
        story = explain_row(str(output), first["row_id"])
        shown = {name: story[name] for name in ("prompt", "calls", "repair")}
        assert _leaks(json.dumps(shown, ensure_ascii=False, default=str), _HIDDEN) == []


def test_a_refusal_of_the_account_does_not_show_a_hidden_value(workshop: Workshop) -> None:
    """It ends the run, so it is told in the summary, on the screen and in the log."""
    with Gate(workshop.sandbox) as gate:
        gate.decide = lambda asked: refusal(403, f"Flagged: {_last_line(asked)}", "permission_error", None)
        workshop.write("openai", 3, gate=gate, batching={"mode": "per_request"}, audit={"redact": ["text"]})
        result = workshop.run()
    assert result.exit_code == 6
    assert "Review number" not in json.dumps(result.summary) + result.sentence
    assert "[redacted]" in result.sentence


def _last_line(asked: Asked) -> str:
    text: str = orjson.loads(asked.body)["messages"][-1]["content"]
    return text.splitlines()[-1]
