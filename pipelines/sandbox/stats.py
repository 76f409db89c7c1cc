"""What the sandbox counts about itself."""

import time
from collections import Counter
from typing import Any


class Stats:
    """Requests by status, faults by kind, and the peaks of what was open at once.

    `requests`, `by_status` and `concurrency` are about questions (the POSTs to a model) and lists; `batch_requests` are
    those to file and batch endpoints; `connections` are TCP connections.
    """

    __slots__ = (
        "_since_s", "batch_requests", "by_status", "concurrency", "connections", "connections_total", "faults", "peak_concurrency",
        "peak_connections", "requests",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connections = 0
        self.concurrency = 0
        self.clear()

    def clear(self) -> None:
        """Start counting anew; what is open now stays counted as open."""
        self._since_s = time.monotonic()
        self.requests = 0
        self.batch_requests = 0
        self.by_status: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.peak_concurrency = self.concurrency
        self.connections_total = self.connections
        self.peak_connections = self.connections

    def question_begins(self) -> None:
        """Count a question in."""
        self.requests += 1
        self.concurrency += 1
        self.peak_concurrency = max(self.peak_concurrency, self.concurrency)

    def question_ends(self) -> None:
        """Count a question out."""
        self.concurrency -= 1

    def connection_opens(self) -> None:
        """Count a connection in."""
        self.connections += 1
        self.connections_total += 1
        self.peak_connections = max(self.peak_connections, self.connections)

    def connection_closes(self) -> None:
        """Count a connection out."""
        self.connections -= 1

    def as_json(self) -> dict[str, Any]:
        """Return everything, as the stats endpoint shows it."""
        return {
            "requests": self.requests,
            "batch_requests": self.batch_requests,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "faults": {str(kind): count for kind, count in self.faults.items()},
            "concurrency": self.concurrency,
            "peak_concurrency": self.peak_concurrency,
            "connections": self.connections,
            "connections_total": self.connections_total,
            "peak_connections": self.peak_connections,
            "uptime_s": round(time.monotonic() - self._since_s, 3),
        }
