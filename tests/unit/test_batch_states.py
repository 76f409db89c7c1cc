"""What a failed batch and a batch that is not found mean: a wrong reading throws paid answers away, or waits for none."""

from typing import Any

import pytest

from tests.unit.batch_api_builders import Made, make, response
from transforms.providers.batch_states import DELETED, NOT_FOUND
from transforms.records.batch import BatchState, BatchStatus
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError

_MODELS: dict[str, dict[str, Any]] = {
    "openai": {"name": "gpt-4o-mini"},
    "azure_openai": {
        "name": "gpt-4o-mini",
        "base_url": "https://res.openai.azure.com",
        "deployment": "now",
        "batch_deployment": "later",
    },
    "anthropic": {"name": "claude-sonnet-4-5", "params": {"max_output_tokens": 64}},
    "openrouter": {"name": "openai/gpt-4o-mini"},
}
_FULL = {"data": [{"code": "token_limit_exceeded", "message": "full", "line": None}]}
_NONE_DONE = {"total": 5000, "completed": 0, "failed": 0}
_OWN = {"error": {"message": "No batch found", "type": "invalid_request_error"}}
_TYPED = {"type": "error", "error": {"type": "not_found_error", "message": "no batch"}}


def adapter(provider: str) -> Made:
    """Return a provider's batch API."""
    return make(provider=provider, **_MODELS[provider])


def read_failed(provider: str, **fields: Any) -> BatchState:
    """Return the state of a failed batch with these fields."""
    state = adapter(provider).api.read_batch(response({"id": "batch_1", "status": "failed", **fields}))
    assert isinstance(state, BatchState)
    return state


@pytest.mark.parametrize("provider", ["openai", "azure_openai"])
@pytest.mark.parametrize(
    ("fields", "is_rejected"),
    [
        pytest.param({"errors": _FULL}, True, id="reasons"),
        pytest.param({"errors": _FULL, "request_counts": _NONE_DONE}, True, id="counted, none done"),
        pytest.param({"errors": _FULL, "output_file_id": "", "error_file_id": ""}, True, id="empty file ids"),
        pytest.param({"errors": _FULL, "output_file_id": "file-o"}, False, id="output file"),
        pytest.param({"errors": _FULL, "error_file_id": "file-e"}, False, id="error file"),
        pytest.param({"errors": _FULL, "request_counts": _NONE_DONE | {"completed": 1}}, False, id="some done"),
        pytest.param({"errors": _FULL, "request_counts": _NONE_DONE | {"failed": 1}}, False, id="some failed"),
        pytest.param({"request_counts": _NONE_DONE}, False, id="no reasons"),
    ],
)
def test_a_failed_batch_is_rejected_if_nothing_of_it_can_have_run(
    provider: str, fields: dict[str, Any], is_rejected: bool
) -> None:
    """Results are fetched wherever there may be some; a full queue is known as such, whatever was counted before."""
    state = read_failed(provider, **fields)
    assert state.status is (BatchStatus.REJECTED if is_rejected else BatchStatus.FAILED)
    parts = adapter(provider).api.results(None, state)
    assert [part.file_id for part in parts] == [
        fields[name] for name in ("output_file_id", "error_file_id") if fields.get(name)
    ]


@pytest.mark.parametrize(
    ("fields", "is_rejected"),
    [
        pytest.param({"results": None}, True, id="no results"),
        pytest.param({"results": []}, True, id="empty results"),
        pytest.param({"results": None, "request_counts": _NONE_DONE}, True, id="counted, none done"),
        pytest.param({"results": [{"custom_id": "r7-a"}]}, False, id="results"),
        pytest.param({"results": None, "request_counts": _NONE_DONE | {"completed": 1}}, False, id="some done"),
        pytest.param({"results": None, "error": None}, False, id="no reason"),
    ],
)
def test_openrouters_failed_batch_is_judged_by_its_inline_results(fields: dict[str, Any], is_rejected: bool) -> None:
    """It has no files; what there is to harvest is in the reply."""
    state = read_failed("openrouter", **{"error": {"message": "row 2: bad"}, **fields})
    assert state.status is (BatchStatus.REJECTED if is_rejected else BatchStatus.FAILED)


def _look(provider: str, status: int, body: Any) -> BatchState | CallError:
    return adapter(provider).api.read_status("batch_1", response(body, status))


@pytest.mark.parametrize(
    ("provider", "status", "body", "word"),
    [
        *(pytest.param(name, 404, _OWN, NOT_FOUND, id=f"{name}, 404") for name in _MODELS if name != "anthropic"),
        pytest.param("anthropic", 404, _TYPED, NOT_FOUND, id="anthropic, 404"),
        pytest.param("openai", 200, _OWN, NOT_FOUND, id="openai, error at 200"),
        *(pytest.param(name, 410, b"", DELETED, id=f"{name}, 410") for name in _MODELS),
        pytest.param("openrouter", 410, _OWN, DELETED, id="openrouter, 410 in words"),
        pytest.param(
            "anthropic",
            200,
            {"id": "batch_1", "processing_status": "ended", "archived_at": "2026-01-01T00:00:00Z"},
            DELETED,
            id="anthropic, archived",
        ),
    ],
)
def test_a_batch_that_is_gone_says_how_certain_that_is(provider: str, status: int, body: Any, word: str) -> None:
    """A 410 or deleted results are certain; not being found may pass, or be the wrong key."""
    state = _look(provider, status, body)
    assert isinstance(state, BatchState)
    assert (state.provider_batch_id, state.status, state.raw_status) == ("batch_1", BatchStatus.GONE, word)
    assert state.problems[0].message


@pytest.mark.parametrize("provider", list(_MODELS))
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"detail": "Not Found"}, id="detail"),
        pytest.param({"message": "no Route matched with those values", "code": 404}, id="message"),
        pytest.param({"statusCode": 404, "message": "Resource not found"}, id="azure's gateway"),
        pytest.param({"error": "Not Found"}, id="error as text"),
        pytest.param({"error": {}}, id="empty error"),
        pytest.param([_OWN], id="list"),
        pytest.param(b"<html>404</html>", id="page"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_gateways_404_is_worth_another_look(provider: str, body: Any) -> None:
    """Only an error in the provider's own shape says anything of the batch."""
    error = _look(provider, 404, body)
    assert isinstance(error, CallError)
    assert error.kind is FailureKind.INVALID_RESPONSE


def test_anthropics_errors_are_typed() -> None:
    """Another server's error in front of it lacks the type."""
    error = _look("anthropic", 404, _OWN)
    assert isinstance(error, CallError)
    assert error.kind is FailureKind.INVALID_RESPONSE
