"""Batches for `batch_path`: requests as RenderPrompts makes them, and a provider that has answered them all.

Run by `processes.run_child`, so that what is measured begins in a process that has made none of it. Writes
`<folder>/packets`, packets of requests as the staging DoFn gets them; and, once they are staged, what the ledger
holds of batches that have ended, with their results in `<folder>/files`.
"""

import pickle
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from tests.benchmarks.canned import OPENAI_BODY
from tests.benchmarks.case import job_settings, row_values
from tests.benchmarks.processes import give_result
from transforms.records.batch import BatchRef, BatchStatus
from transforms.records.row import SourceRow
from transforms.records.run import CallSettings
from transforms.records.settings import Job
from transforms.rules.fingerprint import RequestIdentity
from transforms.rules.identity import content_sha256
from transforms.rules.prompt import PromptTemplate
from transforms.storage.asked_file import asked_path
from transforms.storage.batch_entry import Ended, Handle, Intent, Staged
from transforms.storage.batch_ledger import (
    create_intent,
    list_entries,
    read_members,
    record_ended,
    record_handle,
)

RUN_ID = "20261101T000000-benchm"
PACKET_SIZE = 25
#: What a batch holds where the job names no limit: OpenAI's own less 5 %.
BATCH_REQUESTS = 47_500

_SUBMITTED_AT_S = 1_794_000_000.0
_ENDED_AT_S = _SUBMITTED_AT_S + 3_600.0
_ANSWER_ID = b"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG"


def call_settings(folder: Path, base_url: str) -> CallSettings:
    """Return what the batch stages get of the job."""
    job = Job.model_validate(job_settings(base_url))
    ledger = str(folder / "ledger")
    return CallSettings(RUN_ID, ledger, job.model, job.answer.json_schema, job.pool, job.batching, job.audit)


def asked_folder(folder: Path) -> str:
    """Return where the run keeps its own requests of each batch."""
    return str(folder / "asked")


def read_groups(folder: Path) -> Iterator[Iterator[list[tuple[str, bytes]]]]:
    """Yield groups of packets, as GroupIntoBatches makes them, each read while it is used."""
    with (folder / "packets").open("rb", buffering=1 << 18) as file:
        packets = _packets(file)
        for first in packets:
            yield chain([first], islice(packets, BATCH_REQUESTS // PACKET_SIZE - 1))


def refs(folder: Path, settings: CallSettings) -> list[BatchRef]:
    """Return the staged batches."""
    staged = [entry.staged for entry in list_entries(settings.ledger)]
    return [one.ref(asked_path(asked_folder(folder), one.batch_key), is_adopted=False) for one in staged]


def main(arguments: dict[str, Any]) -> None:
    """Write the requests of `rows` rows; or, without `rows`, the results of what is staged."""
    folder = Path(arguments["folder"])
    started = time.process_time()
    if "rows" in arguments:
        _write_packets(folder, arguments["rows"])
    else:
        settings = call_settings(folder, "http://127.0.0.1:9")
        (folder / "files").mkdir()
        for entry in list_entries(settings.ledger):
            _end(settings.ledger, entry.staged, folder / "files")
    give_result({"cpu_s": time.process_time() - started})


def _packets(file: BinaryIO) -> Iterator[list[tuple[str, bytes]]]:
    with suppress(EOFError):
        while True:
            yield pickle.load(file)  # noqa: S301 - written by this benchmark


def _write_packets(folder: Path, rows: int) -> None:
    requests = _requests(folder, rows)
    with (folder / "packets").open("wb", buffering=1 << 18) as file:
        while packet := list(islice(requests, PACKET_SIZE)):
            pickle.dump(packet, file, pickle.HIGHEST_PROTOCOL)


def _requests(folder: Path, rows: int) -> Iterator[tuple[str, bytes]]:
    from transforms.providers import make_provider
    from transforms.render_prompts import _RenderPromptDoFn

    settings = call_settings(folder, "http://127.0.0.1:9")
    prompt = job_settings("")["prompt"]
    template = PromptTemplate(prompt["system"], prompt["template"])
    provider = make_provider(settings.model, settings.schema)
    render = _RenderPromptDoFn(template, RequestIdentity(provider.identity()), [])
    render.setup()
    for number in range(rows):
        values = row_values(number)
        yield from render.process(
            SourceRow(str(values["id"]), values, "reviews.csv", number + 2, content_sha256(values))
        )


def _end(ledger: str, staged: Staged, files: Path) -> None:
    """Say of a batch that it was sent and has ended, and answer its requests, in another order than they were asked."""
    key, file_id = staged.batch_key, f"file-{staged.batch_key}"
    create_intent(ledger, Intent(key, 0, RUN_ID, staged.nonce, staged.request_count, _SUBMITTED_AT_S))
    record_handle(ledger, key, 0, Handle(f"batch_{key[:24]}", "file-in", _SUBMITTED_AT_S, RUN_ID, proven=True))
    count, status = staged.request_count, BatchStatus.COMPLETED
    record_ended(ledger, key, 0, Ended(status, "completed", count, count, 0, file_id, None, None, _ENDED_AT_S))
    custom_ids = [member.custom_id for member in read_members(ledger, key)]
    random.Random(key).shuffle(custom_ids)
    with (files / file_id).open("wb", buffering=1 << 18) as file:
        file.writelines(_result_line(number, custom_id) for number, custom_id in enumerate(custom_ids))


def _result_line(number: int, custom_id: str) -> bytes:
    line = orjson.dumps(
        {
            "id": f"batch_req_{number:024x}",
            "custom_id": custom_id,
            "response": {
                "status_code": 200,
                "request_id": f"7d1f0c6f5f1e4a6db1f4{number:012x}",
                "body": orjson.Fragment(OPENAI_BODY.replace(_ANSWER_ID, b"chatcmpl-%029x" % number)),
            },
            "error": None,
        }
    )
    return line + b"\n"


if __name__ == "__main__":
    main(orjson.loads(sys.argv[1]))
