"""Finding a model, laying a job's own knowledge over it, and the gate before anything is spent."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.job import load_job
from pipelines.model_catalog import check_model, resolve
from pipelines.prepare import PreparedJob, prepare
from transforms.records.errors import ConfigError
from transforms.records.model_entry import ModelEntry
from transforms.records.settings import Job

JOB: dict[str, Any] = {
    "name": "reviews",
    "input": {"path": "rows.csv", "key": ["id"]},
    "output": "out",
    "prompt": {"template": "Rate: {{ row.text }}"},
    "answer": {"field": "label"},
}
AZURE = {"provider": "azure_openai", "base_url": "https://r.openai.azure.com", "deployment": "labels"}


def job_of(model: dict[str, Any], **changes: Any) -> Job:
    """Return a job with this model."""
    return Job.model_validate(JOB | {"model": {"provider": "openai"} | model} | changes)


def prepared(folder: Path, model: dict[str, Any], **changes: Any) -> PreparedJob:
    """Write a job with this model, and prepare it."""
    (folder / "rows.csv").write_text("id,text\nA,good\n", encoding="utf-8")
    job = JOB | {"model": {"provider": "openai"} | model} | changes
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    return prepare(load_job(str(folder / "job.yaml")), "r1")


def refusal(folder: Path, model: dict[str, Any], **changes: Any) -> list[str]:
    """Return the lines that a job with this model is refused with."""
    with pytest.raises(ConfigError) as caught:
        prepared(folder, model, **changes)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("model", "found"),
    [
        pytest.param({"name": "gpt-4o-mini"}, "gpt-4o-mini-2024-07-18", id="alias"),
        pytest.param({"name": "gpt-4o-mini-2024-07-18"}, "gpt-4o-mini-2024-07-18", id="snapshot"),
        pytest.param({"name": "gpt-6-luna"}, "gpt-6-luna", id="undated"),
        pytest.param({"name": "gpt-6-luna-2026-09-22"}, "gpt-6-luna", id="snapshot-of-an-undated"),
        pytest.param({"name": "gpt-4o-mini-2024-07-19"}, None, id="a-date-that-is-not-listed"),
        pytest.param({"name": "ft:gpt-4o-mini-2024-07-18:org::id"}, "gpt-4o-mini-2024-07-18", id="fine-tuned"),
        pytest.param({"provider": "anthropic", "name": "claude-haiku-4-5"}, "claude-haiku-4-5-20251001", id="claude"),
        pytest.param({"provider": "openrouter", "name": "openai/gpt-oss-20b:free"}, "openai/gpt-oss-20b", id="variant"),
        pytest.param(AZURE | {"name": "gpt-4o-mini"}, "gpt-4o-mini-2024-07-18", id="azure"),
        pytest.param(AZURE | {"name": "gpt-6-luna"}, "gpt-6-luna", id="azure-by-openai"),
        pytest.param(AZURE | {"name": "gpt-35-turbo-0125"}, "gpt-3.5-turbo-0125", id="azure-35"),
        pytest.param({"provider": "llama_cpp", "name": "gpt-4o-mini"}, None, id="no-manifest"),
    ],
)
def test_a_model_is_found_by_every_name_it_has(model: dict[str, Any], found: str | None) -> None:
    """Aliases, snapshots, variants and fine-tuned models."""
    entry = resolve(job_of(model))
    assert (None if entry is None else entry.name) == found


def test_what_azure_does_otherwise_is_not_taken_from_openai() -> None:
    """When OpenAI retires a model, and what its batches take, says nothing of Azure."""
    entry = resolve(job_of(AZURE | {"name": "gpt-4-turbo"}))
    assert entry is not None
    assert (entry.provider, entry.retired, entry.batch, entry.context_tokens) == ("azure_openai", None, None, 128_000)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"provider": "openai_compatible", "name": "mine", "base_url": "http://127.0.0.1:9/v1"}, id="own"),
        pytest.param({"provider": "llama_cpp", "name": "mine"}, id="embedded"),
    ],
)
def test_a_server_of_ones_own_has_no_findings(model: dict[str, Any]) -> None:
    """Nobody but its owner knows what it serves."""
    params = {"params": {"temperature": 0, "max_output_tokens": 10**9}}
    assert check_model(job_of(model | params), has_schema=True, longest_request_tokens=10**9) == []


def test_an_address_of_ones_own_is_still_checked(tmp_path: Path) -> None:
    """A rehearsal that lets a job pass which the provider will refuse is worth nothing."""
    lines = refusal(tmp_path, {"name": "gpt-4o-mni", "base_url": "http://127.0.0.1:9/v1"})
    (line,) = lines
    assert line.startswith('model.name: "gpt-4o-mni" is not in the model manifest of openai; did you mean gpt-4o-mini')
    assert line.endswith("If the name is right, set model.allow_unlisted: true, or describe the model in model.entry")


def test_each_reason_is_a_line(tmp_path: Path) -> None:
    """A retired model, a refused parameter and a limit at once."""
    params = {"temperature": 0, "max_output_tokens": 200_000}
    lines = refusal(tmp_path, {"name": "o1", "params": params})
    assert [line.partition(": ")[0] for line in lines] == [
        "model.params.temperature",
        "model.name",
        "model.params.max_output_tokens",
    ]


def test_what_is_known_and_what_to_mind_go_with_the_job(tmp_path: Path) -> None:
    """The entry and the warnings, for the plan and the run's manifest."""
    job = prepared(tmp_path, {"name": "gpt-4o-mini", "entry": {"retired": "2099-01-01"}})
    assert job.model_entry is not None
    assert (job.model_entry.name, job.model_entry.retired) == ("gpt-4o-mini-2024-07-18", date(2099, 1, 1))
    assert [warning.code for warning in job.model_warnings] == ["deprecated"]
    unlisted = prepared(tmp_path, {"name": "nobody-knows", "allow_unlisted": True})
    assert unlisted.model_entry is None
    assert [warning.code for warning in unlisted.model_warnings] == ["unknown_model"]


def test_an_estimate_brings_the_context_warning() -> None:
    """The plan asks again when it knows the longest request."""
    job = job_of({"name": "gpt-6-luna"})
    assert check_model(job, longest_request_tokens=1_000_000) == []
    (found,) = check_model(job, longest_request_tokens=1_060_000, max_output_tokens=64)
    assert (found.level, found.code) == ("warning", "context")


def test_a_model_that_batches_do_not_take_goes_real_time(tmp_path: Path) -> None:
    """Auto is warned and has no batch API; a job for batches alone is refused."""
    model = {"name": "gpt-6-luna", "entry": {"batch": False}}
    job = prepared(tmp_path, model, batching={"mode": "auto"})
    assert not job.by_batch
    assert job.no_batch_reason == "model.entry: gpt-6-luna is not for the batch API of openai"
    assert [warning.code for warning in job.model_warnings] == ["batch"]
    (line,) = refusal(tmp_path, model, batching={"mode": "provider_batch_api"})
    assert line.startswith("batching.mode: the batch API of openai does not take gpt-6-luna")
    elsewhere = {"mode": "auto", "allowed_providers": ["anthropic"]}
    assert prepared(tmp_path, model, batching=elsewhere).model_warnings == []


def write_manifest(folder: Path, text: str) -> dict[str, Any]:
    """Write a manifest file beside the job; return the setting that names it."""
    (folder / "models.yaml").write_text(text, encoding="utf-8")
    return {"manifest": "models.yaml"}


def test_a_users_file_extends_and_replaces(tmp_path: Path) -> None:
    """By provider and name; its path starts at the job file's folder, and its top level holds for each entry."""
    text = """
        provider: openai
        reviewed: 2026-11-01
        models:
          - {name: house-model, aliases: [house], context_tokens: 5000}
          - {name: gpt-4o-mini-2024-07-18, max_output_tokens: 10}
          - {provider: anthropic, name: claude-house}
    """
    setting = write_manifest(tmp_path, text)
    own = prepared(tmp_path, {"name": "house"} | setting)
    assert own.model_entry == ModelEntry(
        provider="openai", name="house-model", aliases=("house",), context_tokens=5000, reviewed=date(2026, 11, 1)
    )
    assert Path(str(own.job.model.manifest)) == tmp_path / "models.yaml"
    replaced = prepared(tmp_path, {"name": "gpt-4o-mini-2024-07-18"} | setting).model_entry
    assert replaced is not None
    assert (replaced.max_output_tokens, replaced.context_tokens, replaced.aliases) == (10, None, ())
    claude = prepared(tmp_path, {"provider": "anthropic", "name": "claude-house"} | setting)
    assert claude.model_entry is not None
    assert "house" not in str(resolve(job_of({"name": "gpt-6-luna"})))


def test_an_entry_of_the_job_is_laid_over_what_is_known(tmp_path: Path) -> None:
    """Keys it has win, all others stay; an unlisted model needs no more than that."""
    over = prepared(tmp_path, {"name": "gpt-6-luna", "entry": {"max_output_tokens": 7}}).model_entry
    assert over is not None
    assert (over.max_output_tokens, over.context_tokens) == (7, 1_050_000)
    whole = prepared(tmp_path, {"name": "mine", "entry": {"context_tokens": 9}})
    assert whole.model_entry == ModelEntry(provider="openai", name="mine", context_tokens=9)
    assert whole.model_warnings == []


def test_a_job_can_say_that_a_retired_model_serves_it(tmp_path: Path) -> None:
    """As the refusal tells."""
    (line,) = refusal(tmp_path, {"name": "gpt-4-32k"})
    assert line.endswith("if it serves you, set model.entry.retired: null")
    assert prepared(tmp_path, {"name": "gpt-4-32k", "entry": {"retired": None}}).model_warnings == []


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        pytest.param(
            {"contex_tokens": 5},
            "model.entry.contex_tokens: unknown key; did you mean context_tokens?",
            id="unknown-key",
        ),
        pytest.param(
            {"context_tokens": 0},
            "model.entry.context_tokens: 0 is not allowed; it should be greater than 0",
            id="zero",
        ),
        pytest.param({"name": "x"}, "model.entry.name: is said by model.name already; remove it", id="name"),
        pytest.param(
            {"deprecated": "2020-01-01"},
            "model.entry: deprecated is 2020-01-01, before released (2026-09-22); correct one of the two",
            id="order",
        ),
    ],
)
def test_a_wrong_entry_is_one_line(tmp_path: Path, entry: dict[str, Any], line: str) -> None:
    """The key's path, the value and the cure."""
    assert refusal(tmp_path, {"name": "gpt-6-luna", "entry": entry}) == [line]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("", ["models.yaml: is empty; a model manifest needs models: and a list of entries"], id="empty"),
        pytest.param("models: 5", ["models.yaml: models: 5 is not allowed; it should be a valid list"], id="no-list"),
        pytest.param("model: []", ["models.yaml: models: is missing; add it", "unknown key"], id="slip"),
        pytest.param("models: [{name: a}]", ["models.yaml: models[0].provider: is missing; add it"], id="provider"),
        pytest.param(
            "provider: openai\nmodels: [{name: a, alias: b}, {name: b, batch: perhaps}]",
            [
                "models.yaml: models[0].alias: unknown key; did you mean aliases?",
                'models.yaml: models[1].batch: "perhaps" is not allowed; it should be a valid boolean',
            ],
            id="two-lines",
        ),
        pytest.param(
            "provider: openai\nmodels: [{name: a, aliases: [c]}, {name: b, aliases: [c]}]",
            ["models.yaml: models[1]: c is there already, in models[0]; remove one"],
            id="twin",
        ),
        pytest.param("models: [", ["models.yaml: line 1"], id="no-yaml"),
    ],
)
def test_a_wrong_file_is_told_by_file_key_and_cure(tmp_path: Path, text: str, lines: list[str]) -> None:
    """A line for each wrong key."""
    found = refusal(tmp_path, {"name": "gpt-6-luna"} | write_manifest(tmp_path, text))
    assert len(found) == len(lines)
    assert all(part in line for part, line in zip(lines, found, strict=True))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """When the job is read, before anything else."""
    (line,) = refusal(tmp_path, {"name": "gpt-6-luna", "manifest": "nowhere.yaml"})
    assert line.startswith('job.yaml: model.manifest: no file "nowhere.yaml"')
