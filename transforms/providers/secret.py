"""The API key from Google Secret Manager, for workers whose environment is not ours (Dataflow, a shared cluster).

What enters is the name of a secret's version; what leaves is its value, checked against the service's CRC32C and kept
for the life of the process. It is never logged, written or put into an error (P9). Credentials are the machine's own
(application default credentials), which need roles/secretmanager.secretAccessor on the secret;
`SECRET_MANAGER_EMULATOR_HOST` (host:port, or an address with its scheme) names a stand-in that wants none.

Source: https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access and
https://cloud.google.com/secret-manager/docs/data-integrity.
"""

import base64
import os
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from transforms.records.errors import ConfigError

_EMULATOR = "SECRET_MANAGER_EMULATOR_HOST"
_OWN_ADDRESS = "https://secretmanager.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_S = 10.0
#: What may pass is tried so often, with a pause that doubles.
_TRIES = 4
_FIRST_WAIT_S = 0.5
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_SAID_CHARS = 200

_values: dict[str, str] = {}
_lock = threading.Lock()


class _PassingError(Exception):
    """What another try may cure; says what happened."""


def read_secret(name: str, sleep: Callable[[float], None] = time.sleep) -> str:
    """Return the value of a secret's version, read once per process; white space around it is no part of it.

    Args:
        name: projects/P/secrets/S/versions/V; `latest` is the version that is newest when the process first asks.
        sleep: waits between tries, in seconds.

    Raises:
        ConfigError: the service refuses or can't be reached, or what it sent is damaged or empty; in one line.
    """
    with _lock:
        value = _values.get(name)
        if value is None:
            value = _values[name] = _read(name, sleep)
        return value


def _read(name: str, sleep: Callable[[float], None]) -> str:
    wait_s = _FIRST_WAIT_S
    for left in reversed(range(_TRIES)):
        try:
            return _ask(name)
        except _PassingError as error:
            if not left:
                raise ConfigError(f"the secret {name}: {error}, after {_TRIES} tries; try again") from None
        sleep(wait_s)
        wait_s *= 2
    raise AssertionError("unreachable")


def _ask(name: str) -> str:
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import RequestException

    try:
        with _session() as session:
            # A redirect would take the value's request elsewhere.
            response = session.get(f"{_address()}/v1/{name}:access", timeout=_TIMEOUT_S, allow_redirects=False)
            if response.status_code != 200:
                raise _refusal(name, response)
            return _checked(name, response)
    # What these say may hold parts of the exchange: only their names are shown.
    except (TransportError, RequestException) as error:
        raise _PassingError(f"Secret Manager can't be reached ({type(error).__name__})") from None
    except GoogleAuthError as error:
        raise ConfigError(
            f"the secret {name}: no credentials for Secret Manager ({type(error).__name__}); run `gcloud auth "
            "application-default login`, or start this where a service account is attached"
        ) from None


def _session() -> Any:
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession

    if os.environ.get(_EMULATOR):
        return AuthorizedSession(cast(Callable[[], Any], AnonymousCredentials)())
    credentials, _ = google.auth.default(scopes=[_SCOPE])
    return AuthorizedSession(credentials)


def _address() -> str:
    stand_in = os.environ.get(_EMULATOR)
    if not stand_in:
        return _OWN_ADDRESS
    return (stand_in if "://" in stand_in else f"http://{stand_in}").rstrip("/")


def _refusal(name: str, response: Any) -> Exception:
    status, said = response.status_code, _said(response)
    if status in _PASSING:
        return _PassingError(f"Secret Manager answered {status}")
    cures = {
        401: "sign in with an account that may read it",
        403: "grant this account roles/secretmanager.secretAccessor on it",
        404: "correct model.api_key_secret, or add a version to the secret",
    }
    cure = cures.get(status, "see that the version is there and enabled")
    return ConfigError(f"the secret {name}: Secret Manager answered {status}{said}; {cure}")


def _said(response: Any) -> str:
    try:
        words = " ".join(str(response.json()["error"]["message"]).split())
    except (ValueError, KeyError, TypeError):
        return ""
    return f" ({words[:_SAID_CHARS].rstrip('.')})" if words else ""


def _checked(name: str, response: Any) -> str:
    from google_crc32c import value as crc32c

    try:
        payload = response.json()["payload"]
        data, checksum = base64.b64decode(payload["data"], validate=True), int(payload["dataCrc32c"])
        text = data.decode("utf-8").strip()
    except (ValueError, KeyError, TypeError):
        # The cause would show what was sent.
        raise _PassingError("what Secret Manager sent can't be understood") from None
    if crc32c(data) != checksum:
        raise _PassingError("what Secret Manager sent was damaged on its way (CRC32C)")
    if not text:
        raise ConfigError(f"the secret {name} is empty; add a version that holds the API key")
    return text
