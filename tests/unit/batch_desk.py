"""A BatchClient with a provider's own adapter, a real server in the provider's place, and what the tests ask of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.unit.batch_server import BatchServer, serving
from transforms.providers import make_batch_api, make_provider
from transforms.providers.batch_base import BatchApi, CreateFacts
from transforms.providers.batch_client import BatchClient, HttpExchange
from transforms.providers.batch_http import BatchHttp
from transforms.records.batch import BatchState, BatchStatus
from transforms.records.settings import ModelSettings

KEY = "sk-canary-0123456789abcdef"
FACTS = CreateFacts("k1", 0, "20261121T053412-3f9a2c", "r7f3a4b5", 3)
#: Unix seconds of the intent in tests of `find`.
INTENT_S = 1_800_000_000.0
MINE = {"rowbeam_batch": "k1", "rowbeam_attempt": "0", "rowbeam_run": FACTS.run_id}
LINES = [b'{"custom_id":"r7-a","t":"one\xe2\x80\xa8two"}', b'{"custom_id":"r7-b"}', b'{"custom_id":"r7-c"}']

_MODELS: dict[str, dict[str, Any]] = {
    "openai": {},
    "azure_openai": {"deployment": "real-time", "batch_deployment": "batch"},
    "anthropic": {"params": {"max_output_tokens": 64}},
    "openrouter": {},
}


class Desk:
    """One provider's client; records and sleeps are kept instead of written and slept."""

    def __init__(self, server: BatchServer, provider: str, workdir: Path) -> None:
        self.server = server
        self.http = BatchHttp()
        self.records: list[HttpExchange] = []
        self.slept: list[float] = []
        settings = ModelSettings(
            provider=provider,
            name="gpt-4o-mini",
            base_url=f"{server.address}/v1",
            **_MODELS[provider],
        )
        api = make_batch_api(settings, None, make_provider(settings, None))
        assert api is not None
        self.api: BatchApi = api
        self.record: Callable[[HttpExchange], None] = self.records.append
        self.client = BatchClient(api, KEY, self.http, self._take, self.slept.append)
        self.folder = workdir / "results"
        self.path = str(workdir / "k1.jsonl")
        Path(self.path).write_bytes(b"\n".join(LINES) + b"\n")

    def _take(self, record: HttpExchange) -> None:
        self.record(record)

    @property
    def root(self) -> str:
        """The path that the adapter's addresses begin with, as the server sees it."""
        return self.api.listing(KEY, 0.0).url.partition(self.server.address)[2].partition("?")[0].rpartition("/")[0]

    def whats(self) -> list[str]:
        """Return the names of the exchanges on record."""
        return [record.what for record in self.records]

    def names(self) -> list[str]:
        """Return the names of the files in the results' folder, hidden ones too."""
        return sorted(path.name for path in self.folder.iterdir())


@contextmanager
def open_desk(provider: str, workdir: Path) -> Iterator[Desk]:
    """Give a desk; server and connections end with it."""
    with serving() as server:
        desk = Desk(server, provider, workdir)
        try:
            yield desk
        finally:
            desk.http.close()


def batch(batch_id: str = "batch_1", status: str = "in_progress", **changes: Any) -> dict[str, Any]:
    """Return a batch object in OpenAI's words."""
    counts = {"total": 3, "completed": 0, "failed": 0}
    return {"id": batch_id, "object": "batch", "status": status, "request_counts": counts, **changes}


def done(**changes: Any) -> BatchState:
    """Return the state of a finished batch with an output and an error file."""
    values = {"output_file_id": "file-out", "error_file_id": "file-err", **changes}
    return BatchState("batch_1", BatchStatus.COMPLETED, "completed", **values)
