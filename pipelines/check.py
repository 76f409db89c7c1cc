"""Would this job run: everything that is checked before a run, the key, and one free request to the provider."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pipelines.budget import budget_facts, budget_gap, budget_line
from pipelines.model_catalog import LISTED_PROVIDERS, listed_models
from pipelines.model_list import Send, ServedModels, bare_url, first_request, read_list
from pipelines.prepare import PreparedJob
from pipelines.summary import EXIT_DONE, EXIT_REFUSED
from transforms.providers import make_provider
from transforms.providers.base import Provider
from transforms.providers.secret import read_secret
from transforms.providers.transport import HttpTransport, transport_error
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.model_entry import ModelEntry
from transforms.records.reply import CallError, HttpRequest, HttpResponse
from transforms.records.settings import ModelSettings
from transforms.rules.model_check import either
from transforms.rules.model_names import near_names
from transforms.rules.price import PriceTable

_EXIT_WRONG = 2
_TIMEOUT_S = 15.0
_REFUSALS = frozenset({FailureKind.AUTH, FailureKind.PERMISSION, FailureKind.QUOTA_EXHAUSTED})
_MAX_WORDS = 300
_MAX_NAMES = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked; `ok` is None where it could not be told."""

    name: str
    ok: bool | None
    says: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"name": self.name, "ok": self.ok, "says": self.says}


def check_job(prepared: PreparedJob, environ: Mapping[str, str] = os.environ) -> tuple[dict[str, Any], int]:
    """Check what `prepare` did not: the key, the address, the model.

    Args:
        prepared: the job; that it could be prepared is the first finding.
        environ: where the key is.

    Returns:
        {"job", "ok", "checks": [{"name", "ok", "says"}], "models": {"listed", "served", "not_served": [names],
        "complete"} | None, "budget": `budget_facts` with "gap" | None}: of the manifest's models that are not retired,
        those the provider serves; why the budget can't be held, or null; and the exit code: 0, 2, also when the job's
        own model is missing in a list that is complete, or 6 when the provider refuses the key.
    """
    provider = make_provider(prepared.job.model, prepared.answer_schema)
    budget = _budget(prepared)
    findings = [*_settled(prepared), *_budget_findings(budget), _key(provider, environ)]
    exit_code = EXIT_DONE
    served = None
    if is_embedded(prepared.job.model):
        findings += _embedded(prepared.job.model)
    elif findings[-1].ok is not False:
        found, exit_code, served = _live(provider, environ)
        findings += found
    models = None if served is None or served.names is None else _compare(prepared, served)
    if served is not None:
        findings.append(_own_model(prepared, served))
    if models is not None:
        findings.append(_listed(prepared.job.model.provider, models))
    if exit_code == EXIT_DONE and any(finding.ok is False for finding in findings):
        exit_code = _EXIT_WRONG
    checks = [finding.to_json() for finding in findings]
    facts = {"job": prepared.job.name, "ok": exit_code == EXIT_DONE, "checks": checks, "models": models}
    return facts | {"budget": budget}, exit_code


def is_embedded(model: ModelSettings) -> bool:
    """Say whether the model runs inside the worker processes."""
    return model.provider == "llama_cpp" and model.base_url is None


def _settled(prepared: PreparedJob) -> list[Finding]:
    columns = prepared.input_schema.names
    used = prepared.template.columns_used
    names = "the row as a whole" if used is None else ", ".join(used) or "no column"
    schema = "checked against the schema" if prepared.answer_schema is not None else "plain text"
    rates = PriceTable().rates(prepared.provider_name, prepared.price_model)
    return [
        Finding("job", True, f"{prepared.job.name}, sha256 {prepared.job_sha256[:16]}"),
        Finding("input", True, f"{len(prepared.files):,} file(s), {len(columns):,} columns: {', '.join(columns)}"),
        Finding("template", True, f"reads {names}"),
        Finding("answer", True, f"{prepared.job.answer.field}: {schema}"),
        Finding("price", None if rates is None else True, _price_words(prepared.price_model, rates)),
        *(Finding("warning", None, warning.line) for warning in prepared.model_warnings),
    ]


def _budget(prepared: PreparedJob) -> dict[str, Any] | None:
    facts = budget_facts(prepared.ledger, prepared.run_id, prepared.job.budget)
    return None if facts is None else facts | {"gap": budget_gap(prepared)}


def _budget_findings(budget: dict[str, Any] | None) -> list[Finding]:
    """Say what is left, and whether a run would ask before it starts."""
    if budget is None:
        return []
    left = Finding("budget", None if budget["unknown_runs"] else True, budget_line(budget))
    if budget["gap"] is None:
        return [left]
    return [left, Finding("budget", None, f"{budget['gap']}; run asks before it starts, or wants --yes")]


def _price_words(model: str, rates: tuple[Decimal, Decimal] | None) -> str:
    if rates is None:
        return f"{model} is not in the price table: costs are unknown unless the provider states them"
    if not any(rates):
        return "nothing: the model runs on this machine"
    return f"{model}: ${rates[0]:f} per million tokens in, ${rates[1]:f} out"


def _key(provider: Provider, environ: Mapping[str, str]) -> Finding:
    if provider.key_secret is not None:
        return _secret(provider.key_secret)
    name = provider.key_env
    if name is None:
        return Finding("key", True, "none is needed")
    if not environ.get(name, "").strip():
        return Finding("key", False, f"the environment variable {name} is not set; it must hold the API key")
    return Finding("key", True, f"{name} is set")


def _secret(name: str) -> Finding:
    try:
        read_secret(name)
    except ConfigError as error:
        return Finding("key", False, str(error))
    return Finding("key", True, f"the secret {name} can be read here")


def _embedded(model: ModelSettings) -> list[Finding]:
    from importlib.util import find_spec

    from transforms.providers.embedded import weights_path

    try:
        weights = Finding("weights", True, str(weights_path(model)))
    except ConfigError as error:
        weights = Finding("weights", False, str(error))
    found = find_spec("xllamacpp") is not None
    words = "xllamacpp is installed" if found else "xllamacpp is not installed; run: pip install 'rowbeam[local]'"
    return [weights, Finding("library", found, words)]


def _live(provider: Provider, environ: Mapping[str, str]) -> tuple[list[Finding], int, ServedModels | None]:
    key = environ.get(provider.key_env, "").strip() if provider.key_env else None
    if provider.key_secret is not None:
        key = read_secret(provider.key_secret)
    probe = provider.probe(key)
    if probe is None:
        return [Finding("provider", None, "has no free request to try the key with")], EXIT_DONE, None
    request, response, served = asyncio.run(_ask(provider, probe))
    if isinstance(response, CallError):
        says = f"{request.url}: {response.message}; check model.base_url and the network"
        return [Finding("provider", False, says)], EXIT_DONE, None
    if response.status >= 400:
        return *_refusal(provider, request, response), None
    return [Finding("provider", True, f"{request.url} answered HTTP {response.status}")], EXIT_DONE, served


async def _ask(
    provider: Provider, probe: HttpRequest
) -> tuple[HttpRequest, HttpResponse | CallError, ServedModels | None]:
    """Try the key, and read the models list where it was taken; return what was asked last, and its answer."""
    transport = HttpTransport(connections=1)

    async def send(request: HttpRequest) -> HttpResponse | CallError:
        try:
            return await transport.send(request, _TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - transport_error raises again what it does not know
            return transport_error(error)

    try:
        return await _ask_both(provider, probe, first_request(provider, probe), send)
    finally:
        await transport.close()


async def _ask_both(
    provider: Provider, probe: HttpRequest, first: HttpRequest, send: Send
) -> tuple[HttpRequest, HttpResponse | CallError, ServedModels | None]:
    if bare_url(probe) != bare_url(first):
        tried = await send(probe)
        if isinstance(tried, CallError) or tried.status >= 400:
            return probe, tried, None
    response = await send(first)
    if isinstance(response, CallError) or response.status >= 400:
        return first, response, None
    return first, response, await read_list(provider, first, response, send)


def _refusal(provider: Provider, request: HttpRequest, response: HttpResponse) -> tuple[list[Finding], int]:
    outcome = provider.read(response)
    kind = outcome.kind
    words = outcome.message if isinstance(outcome, CallError) else str(kind)
    if kind in _REFUSALS:
        says = f"{request.url} refused the key ({kind}, HTTP {response.status}): {words[:_MAX_WORDS]}"
        return [Finding("provider", False, says)], EXIT_REFUSED
    if kind is FailureKind.NOT_FOUND:
        # Some servers have no models list; calls may work all the same.
        return [
            Finding("provider", None, f"{request.url} answered HTTP {response.status}: it lists no models")
        ], EXIT_DONE
    return [
        Finding("provider", False, f"{request.url} answered HTTP {response.status} ({kind}): {words[:_MAX_WORDS]}")
    ], EXIT_DONE


def _own_model(prepared: PreparedJob, served: ServedModels) -> Finding:
    """Look for the job's own model in the list."""
    model = prepared.job.model
    if served.names is None:
        says = f"the answer is no models list; whether there is a {prepared.request_model} shows at the first call"
        return Finding("model", None, says)
    if model.provider == "azure_openai":
        there = "lists" if _is_served(model.name, prepared.model_entry, served.names) else "does not list"
        says = f"the resource {there} {model.name}; whether {model.deployment} serves it shows at the first call"
        return Finding("model", None, says)
    if _is_served(model.name, prepared.model_entry, served.names):
        return Finding("model", True, f"{model.name} is listed")
    if served.is_complete:
        near = near_names(model.name, served.names)
        instead = f"; set model.name to one that is, such as {either(near)}" if near else "; set another model.name"
        return Finding("model", False, f"{model.name} is not among the {len(served.names):,} served{instead}")
    says = f"{model.name} is not among the {len(served.names):,} listed; it shows at the first call"
    return Finding("model", None, says)


def _is_served(name: str, entry: ModelEntry | None, served: list[str]) -> bool:
    """Say whether a name, or another one of the same model, is in the list."""
    same = entry.names if entry is not None and name in entry.names else ()
    # OpenRouter lists free variants; the others are ways to call a model.
    plain = (name.partition(":")[0],) if "/" in name and not name.endswith(":free") else ()
    return any(one in served for one in (name, *same, *plain))


def _compare(prepared: PreparedJob, served: ServedModels) -> dict[str, Any] | None:
    model, today = prepared.job.model, datetime.now(UTC).date()
    if model.provider not in LISTED_PROVIDERS or served.names is None:
        return None
    entries = [entry for entry in listed_models(model.provider, model.manifest) if entry.status(today) != "retired"]
    missing = [entry.name for entry in entries if not _is_served(entry.name, entry, served.names)]
    return {
        "listed": len(entries),
        "served": len(entries) - len(missing),
        "not_served": missing,
        "complete": served.is_complete,
    }


def _listed(provider: str, models: dict[str, Any]) -> Finding:
    says = f"{models['served']:,} of the manifest's {models['listed']:,} models of {provider} are served"
    missing = models["not_served"]
    if not missing:
        return Finding("manifest", True, says)
    more = f" and {len(missing) - _MAX_NAMES:,} more (--json names all)" if len(missing) > _MAX_NAMES else ""
    return Finding("manifest", None, f"{says}; not: {', '.join(missing[:_MAX_NAMES])}{more}")
