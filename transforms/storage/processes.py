"""Which process is this, and does that one still live: pids are reused, so a start time goes with them."""

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, told apart from every other there was.

    Attributes:
        host: the machine's name.
        realm: boot and pid namespace; pids can be compared only where host and realm are equal (two containers
            that share a host name do not share pids).
        started: when the process began, in the system's own words; empty if it could not be read.
    """

    host: str
    realm: str
    pid: int
    started: str


def this_process() -> ProcessId:
    """Return the identity of the running process."""
    pid = os.getpid()
    return ProcessId(socket.gethostname(), _realm(), pid, _started(pid) or "")


def is_dead(process: ProcessId) -> bool:
    """Say whether `process` is certainly gone; False also where this machine can't know."""
    if (process.host, process.realm) != (socket.gethostname(), _realm()):
        return False
    return _started(process.pid) != process.started


def _realm() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a live process began, None when it is gone or only waits to be reaped."""
    if not Path("/proc/self/stat").exists():
        return _started_by_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command in parentheses, which may hold spaces and parentheses itself.
    values = stat.rpartition(")")[2].split()
    return None if values[0] in "ZX" else values[19]


def _started_by_ps(pid: int) -> str | None:
    """Return the start time where there is no /proc (macOS)."""
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env={"LC_ALL": "C"})  # noqa: S603 - fixed words and a number
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
