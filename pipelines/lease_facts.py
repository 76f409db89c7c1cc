"""Who holds an output, as its lease says."""

from datetime import UTC, datetime
from typing import Any

import orjson

from transforms.storage.objects import join, read_bytes
from transforms.storage.processes import ProcessId, is_dead


def read_lease(output: str, now: datetime) -> dict[str, Any] | None:
    """Return {run_id, host, pid, since, alive} of who holds an output; None: nobody.

    alive is False for a lease that has expired or whose process is gone, and for one that can't be read.

    Args:
        output: the job's output folder.
        now: with a time zone.
    """
    try:
        held = orjson.loads(read_bytes(join(output, "ledger", "lease.json")))
        owner = ProcessId(**held["owner"])
        alive = held["expires_at"] > now.timestamp() and not is_dead(owner)
        since = datetime.fromtimestamp(held["acquired_at"], UTC)
        return {
            "run_id": held["run_id"],
            "host": owner.host,
            "pid": owner.pid,
            "since": since.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "alive": alive,
        }
    except FileNotFoundError:
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {"run_id": None, "host": None, "pid": None, "since": None, "alive": False}


def holder(output: str, now: datetime) -> str | None:
    """Return the id of the run that holds an output now; None: none does."""
    lease = read_lease(output, now)
    return lease["run_id"] if lease and lease["alive"] else None
