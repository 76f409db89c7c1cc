"""Would this job run: everything that is checked before a run, the key, and one free request to the provider."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from pipelines.prepare import PreparedJob
from pipelines.summary import EXIT_DONE, EXIT_REFUSED
from transforms.providers import make_provider
from transforms.providers.base import Provider
from transforms.providers.transport import HttpTransport, transport_error
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind
from transforms.records.reply import CallError, HttpRequest, HttpResponse
from transforms.records.settings import ModelSettings
from transforms.rules.price import PriceTable

_EXIT_WRONG = 2
_TIMEOUT_S = 15.0
_REFUSALS = frozenset({FailureKind.AUTH, FailureKind.PERMISSION, FailureKind.QUOTA_EXHAUSTED})
_MAX_WORDS = 300


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
        {"job", "ok", "checks": [{"name", "ok", "says"}]}, and the exit code: 0, 2, or 6 when the provider refuses
        the key.
    """
    provider = make_provider(prepared.job.model, prepared.answer_schema)
    findings = [*_settled(prepared), _key(provider, environ)]
    exit_code = EXIT_DONE
    if is_embedded(prepared.job.model):
        findings += _embedded(prepared.job.model)
    elif findings[-1].ok is not False:
        found, exit_code = _live(provider, environ)
        findings += found
    if exit_code == EXIT_DONE and any(finding.ok is False for finding in findings):
        exit_code = _EXIT_WRONG
    checks = [finding.to_json() for finding in findings]
    return {"job": prepared.job.name, "ok": exit_code == EXIT_DONE, "checks": checks}, exit_code


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
    ]


def _price_words(model: str, rates: tuple[Decimal, Decimal] | None) -> str:
    if rates is None:
        return f"{model} is not in the price table: costs are unknown unless the provider states them"
    if not any(rates):
        return "nothing: the model runs on this machine"
    return f"{model}: ${rates[0]:f} per million tokens in, ${rates[1]:f} out"


def _key(provider: Provider, environ: Mapping[str, str]) -> Finding:
    name = provider.key_env
    if name is None:
        return Finding("key", True, "none is needed")
    if not environ.get(name, "").strip():
        return Finding("key", False, f"the environment variable {name} is not set; it must hold the API key")
    return Finding("key", True, f"{name} is set")


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


def _live(provider: Provider, environ: Mapping[str, str]) -> tuple[list[Finding], int]:
    key = environ.get(provider.key_env, "").strip() if provider.key_env else None
    request = provider.probe(key)
    if request is None:
        return [Finding("provider", None, "has no free request to try the key with")], EXIT_DONE
    response = asyncio.run(_send(request))
    if isinstance(response, CallError):
        return [
            Finding("provider", False, f"{request.url}: {response.message}; check model.base_url and the network")
        ], EXIT_DONE
    if response.status >= 400:
        return _refusal(provider, request, response)
    answered = Finding("provider", True, f"{request.url} answered HTTP {response.status}")
    return [answered, _model(provider.request_model, response)], EXIT_DONE


async def _send(request: HttpRequest) -> HttpResponse | CallError:
    transport = HttpTransport(connections=1)
    try:
        return await transport.send(request, _TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - transport_error raises again what it does not know
        return transport_error(error)
    finally:
        await transport.close()


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


def _model(model: str, response: HttpResponse) -> Finding:
    """Look for the model in the list, which may be a page of a longer one."""
    try:
        listed = [entry["id"] for entry in orjson.loads(response.body)["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return Finding(
            "model", None, f"the answer is no models list; whether there is a {model} shows at the first call"
        )
    if model in listed:
        return Finding("model", True, f"{model} is listed")
    return Finding("model", None, f"{model} is not among the {len(listed):,} listed; it shows at the first call")
