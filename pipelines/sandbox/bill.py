"""The bill: every request accepted for payment, and what became of it.

A request is accepted when the model did the work or would have: also when the reply then got lost. Requests turned
away (4xx, 429, 5xx) and 200s without an answer are not on it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import orjson

State = Literal["in_flight", "answered", "dropped"]


@dataclass(slots=True)
class BillEntry:
    """One accepted request.

    Attributes:
        seq: 1, 2, 3 ... in order of acceptance.
        time: Unix seconds of acceptance.
        body_sha256: of the body's bytes as they came.
        request_hash: of path and body in canonical form; equal requests share it.
        attempt: which try at this request it was (1 = the first); tries that a fault turned away count, tries that
            a rate limit or a storm turned away do not.
        state: in_flight until the reply is handed to the network (answered) or can't be any more (dropped).
    """

    seq: int
    time: float
    path: str
    body_sha256: str
    request_hash: str
    model: str
    attempt: int
    input_tokens: int
    output_tokens: int
    fault: str | None
    state: State = "in_flight"

    def as_json(self) -> dict[str, Any]:
        """Return the entry as the bill endpoint shows it."""
        return {name: getattr(self, name) for name in self.__slots__}


class Bill:
    """Counts what was accepted; optionally appends every event to a JSONL file as it happens.

    The file holds one line per acceptance (the whole entry) and one per end (`{"seq", "state"}`), each written at
    once, so that it is complete up to the last event whatever becomes of the process. A batch has one line when its rows
    have been checked: `{"batch_id", "provider", "rows"}`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file: IO[bytes] | None = path.open("ab", buffering=0) if path else None
        self.clear()

    def clear(self) -> None:
        """Forget everything; what is in flight is no longer counted when it ends."""
        self._entries: list[BillEntry] = []
        self._distinct: set[str] = set()
        self._ended = {"answered": 0, "dropped": 0}
        self._tokens = [0, 0]

    def accept(
        self, *, path: str, body_sha256: str, request_hash: str, model: str, attempt: int, tokens: tuple[int, int],
        fault: str | None,
    ) -> BillEntry:  # fmt: skip
        """Put a request on the bill and return its entry, in flight."""
        entry = BillEntry(
            len(self._entries) + 1, time.time(), path, body_sha256, request_hash, model, attempt, *tokens, fault
        )
        self._entries.append(entry)
        self._distinct.add(request_hash)
        self._tokens[0] += tokens[0]
        self._tokens[1] += tokens[1]
        if self._file:
            self._write(entry.as_json())
        return entry

    def end(self, entry: BillEntry, state: Literal["answered", "dropped"]) -> None:
        """Say what became of an accepted request; a second word on the same one changes nothing."""
        if entry.state != "in_flight":
            return
        entry.state = state
        if entry.seq <= len(self._entries) and self._entries[entry.seq - 1] is entry:
            self._ended[state] += 1
            self._write({"seq": entry.seq, "state": state})

    def note_batch(self, batch_id: str, provider: str, rows: int) -> None:
        """Write a batch into the file; its rows are counted elsewhere (batch_bill.py)."""
        self._write({"batch_id": batch_id, "provider": provider, "rows": rows})

    def paid(self) -> list[str]:
        """Return the request hash of every entry, once for each payment."""
        return [entry.request_hash for entry in self._entries]

    def summary(self, *, with_entries: bool = False) -> dict[str, Any]:
        """Return the counts, and the entries when asked for."""
        accepted = len(self._entries)
        counts: dict[str, Any] = {
            "accepted": accepted,
            "distinct": len(self._distinct),
            "in_flight": accepted - self._ended["answered"] - self._ended["dropped"],
            **self._ended,
            "input_tokens": self._tokens[0],
            "output_tokens": self._tokens[1],
        }
        if with_entries:
            counts["entries"] = [entry.as_json() for entry in self._entries]
        return counts

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None

    def _write(self, event: dict[str, Any]) -> None:
        if self._file:
            self._file.write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))


def read_bill(path: Path) -> list[Mapping[str, Any]]:
    """Return the entries of a bill file, each with its last state; batches and a torn last line are left out."""
    entries: dict[int, dict[str, Any]] = {}
    result: list[Mapping[str, Any]] = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        event = orjson.loads(line)
        if "path" in event:
            entries[event["seq"]] = event
            result.append(event)
        elif "seq" in event:
            entries[event["seq"]]["state"] = event["state"]
    return result
