"""The key from Secret Manager: whole and checked, read once, and in no word that anybody sees."""

import logging
from collections.abc import Iterator

import pytest

from pipelines.job_secrets import job_secrets
from tests.unit.secret_service import NAME, SecretService, reply, serving_secrets
from transforms._worker import read_key
from transforms.providers import make_provider, secret
from transforms.records.errors import ConfigError
from transforms.records.settings import Job, ModelSettings

KEY = "sk-canary-0123456789"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecretService]:
    """The service, with the key in it; the process knows no value yet."""
    monkeypatch.setattr(secret, "_values", {})
    with serving_secrets() as held:
        held.values[NAME] = f"{KEY}\n".encode()
        monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", held.address)
        yield held


def read(name: str = NAME) -> str:
    """Read without waiting between tries."""
    return secret.read_secret(name, sleep=lambda _seconds: None)


def test_the_value_is_read_once_per_process(service: SecretService) -> None:
    """Without the line break that many secrets are stored with."""
    assert [read(), read()] == [KEY, KEY]
    assert service.asked == [f"/v1/{NAME}:access"]


def test_the_address_may_have_its_scheme(service: SecretService, monkeypatch: pytest.MonkeyPatch) -> None:
    """As STORAGE_EMULATOR_HOST has."""
    monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", f"http://{service.address}/")
    assert read() == KEY


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(503, id="unavailable"),
        pytest.param(429, id="too many requests"),
        pytest.param(reply(KEY.encode(), checksum=7), id="damaged"),
        pytest.param(b"<html>", id="no JSON"),
        pytest.param(b'{"payload": {"data": "c2st"}}', id="no checksum"),
        pytest.param(b'{"payload": {"data": "%%%", "dataCrc32c": "1"}}', id="no base64"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_said(service: SecretService, fault: int | bytes) -> None:
    """Three faults in a row do no harm; at the fourth it is one line without the value."""
    service.answers = [fault] * 3
    assert read() == KEY
    secret._values.clear()
    service.answers = [fault] * 4
    with pytest.raises(ConfigError, match=f"^the secret {NAME}: .*, after 4 tries; try again$") as caught:
        read()
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        pytest.param(403, "grant this account roles/secretmanager.secretAccessor on it", id="not allowed"),
        pytest.param(404, "correct model.api_key_secret, or add a version to the secret", id="not there"),
        pytest.param(400, "see that the version is there and enabled", id="disabled"),
        pytest.param(302, "see that the version is there and enabled", id="sent elsewhere"),
    ],
)
def test_a_refusal_is_one_line_with_its_cure(service: SecretService, status: int, cure: str) -> None:
    """It is not tried again, and a redirect is not followed."""
    service.answers = [status]
    with pytest.raises(ConfigError) as caught:
        read()
    assert str(caught.value) == f"the secret {NAME}: Secret Manager answered {status} (So it was said); {cure}"
    assert len(service.asked) == 1


def test_a_service_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the library's words, which may hold parts of the exchange."""
    monkeypatch.setattr(secret, "_values", {})
    monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", "127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"can't be reached \(ConnectionError\), after 4 tries; try again$"):
        read()


def test_no_credentials_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """With the command that gets some."""
    monkeypatch.setattr(secret, "_values", {})
    monkeypatch.delenv("SECRET_MANAGER_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"no credentials for Secret Manager .*gcloud auth application-default login"):
        read()


@pytest.mark.parametrize("value", [b"", b" \n"])
def test_an_empty_secret_is_refused(service: SecretService, value: bytes) -> None:
    """A request without a key would be refused later, and less clearly."""
    service.values[NAME] = value
    with pytest.raises(ConfigError, match=f"^the secret {NAME} is empty; add a version"):
        read()


def test_nothing_is_logged_of_the_value(service: SecretService, caplog: pytest.LogCaptureFixture) -> None:
    """At debug, with everything that the libraries say."""
    caplog.set_level(logging.DEBUG)
    assert service.asked == []
    read()
    assert "c2stY2FuYX" not in caplog.text  # the value's base64
    assert KEY not in caplog.text


MODEL = {"provider": "openai", "name": "m"}


def test_the_secret_decides_alone(service: SecretService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that happens to be set is not looked at; the provider without a usual one has a key, too."""
    assert service.asked == []
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    for more in ({}, {"provider": "anthropic"}, {"provider": "openai_compatible", "base_url": "http://h/v1"}):
        provider = make_provider(ModelSettings(**{**MODEL, **more}, api_key_secret=NAME), None)
        assert (provider.key_env, read_key(provider)) == (None, KEY)


def test_a_key_that_would_break_the_request_is_refused(service: SecretService) -> None:
    """With the secret's name, and without its value."""
    service.values[NAME] = b"sk-a\r\nX-Evil: 1"
    with pytest.raises(ConfigError, match=f"^the secret {NAME} holds a line break") as caught:
        read_key(make_provider(ModelSettings(**MODEL, api_key_secret=NAME), None))
    assert "sk-" not in str(caught.value)


def test_two_places_for_one_key_are_refused() -> None:
    """The line names both."""
    with pytest.raises(ConfigError, match=r"^model\.api_key_secret: .*model\.api_key_env; remove one$"):
        make_provider(ModelSettings(**MODEL, api_key_env="A", api_key_secret=NAME), None)


@pytest.mark.parametrize("name", ["my-secret", "projects/p/secrets/s", "projects/p/secrets/s/versions/../x", "sk-abc"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ValueError, match="api_key_secret"):
        ModelSettings(**MODEL, api_key_secret=name)


def test_what_the_command_line_never_shows_is_known(service: SecretService) -> None:
    """As far as this process can read it; where it can't, others say so."""
    job = Job(name="j", input={"path": "a.csv"}, output="o", prompt={"template": "t"}, answer={"field": "f"},
              model={**MODEL, "api_key_secret": NAME})  # fmt: skip
    assert job_secrets(job) == [KEY]
    secret._values.clear()
    service.answers = [403]
    assert job_secrets(job) == []
