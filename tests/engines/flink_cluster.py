"""A real Flink cluster of processes on this machine: a job manager and task managers with one slot each."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_START_S = 90.0
_STOP_S = 10.0
_HOST = "127.0.0.1"

#: What Flink and its serialisers reach into on Java 17.
_OPENED = (
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.math",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
    "java.base/sun.nio.ch",
    "java.base/sun.net.util",
)
_TASK_MEMORY = {
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.task.off-heap.size": "0b",
    "taskmanager.memory.managed.size": "128m",
    "taskmanager.memory.network.min": "64m",
    "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
}
_LOG_LINES = """rootLogger.level = INFO
rootLogger.appenderRef.out.ref = Out
appender.out.type = Console
appender.out.name = Out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %-5p %c{1} %m%n
"""
#: How a job goes on after a worker's death, and how soon one is noticed.
_RECOVERY = {
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "10",
    "restart-strategy.fixed-delay.delay": "1 s",
    "heartbeat.interval": "1000",
    "heartbeat.timeout": "8000",
}


class FlinkCluster:
    """Starts a cluster and stops, at the end of the `with` block, what it started and their children.

    Args:
        flink: the folder whose `lib` holds Flink's jars.
        folder: an empty folder for configuration, logs and temporary files.
        task_managers: how many, with one slot each.
        java: the program.

    Attributes:
        address: HOST:PORT for --flink_master.

    Raises:
        RuntimeError: a process died or the cluster was not complete in time; the end of its log is in the message.
    """

    def __init__(self, flink: Path, folder: Path, *, task_managers: int = 2, java: str = "java") -> None:
        self._classpath = f"{flink}/lib/*"
        self._folder = folder
        self._wanted = task_managers
        self._java = java
        self._rest, self._rpc = free_port(), free_port()
        self.address = f"{_HOST}:{self._rest}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0

    def __enter__(self) -> Self:
        for name in ("conf", "tmp", "logs"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "conf" / "config.yaml").write_text(self._configuration(), encoding="utf-8")
        (self._folder / "conf" / "log4j.properties").write_text(_LOG_LINES, encoding="utf-8")
        try:
            self._start("jobmanager", "256m", _JOB_MANAGER)
            for _ in range(self._wanted):
                self.add_task_manager()
            self.wait_for(self._wanted)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def task_managers(self) -> dict[str, int]:
        """The task managers that live: name -> process id."""
        alive = {name: process for name, process in self._processes.items() if process.poll() is None}
        return {name: process.pid for name, process in alive.items() if name != "jobmanager"}

    def add_task_manager(self) -> str:
        """Start one more and return its name; `wait_for` tells when it has joined."""
        name = f"taskmanager-{self._started}"
        self._started += 1
        settings = [f"{key}={value}" for key, value in _TASK_MEMORY.items()]
        settings += ["taskmanager.cpu.cores=1", f"taskmanager.resource-id={name}"]
        self._start(name, "384m", _TASK_MANAGER, *[word for setting in settings for word in ("-D", setting)])
        return name

    def kill_task_manager(self, name: str) -> None:
        """Kill one as a failing machine would: it and its Python workers, at once."""
        for pid in [*worker_pids(self._processes[name].pid), self._processes[name].pid]:
            kill(pid)
        self._processes[name].wait(_STOP_S)

    def kill_python_worker(self, name: str) -> int:
        """Kill a task manager's Python workers, and not it; returns how many there were."""
        found = worker_pids(self._processes[name].pid)
        for pid in found:
            kill(pid)
        return len(found)

    def wait_for(self, task_managers: int) -> None:
        """Wait until so many have joined."""
        self._until(lambda: self.overview()["taskmanagers"] == task_managers, f"{task_managers} task managers")

    def overview(self) -> dict[str, Any]:
        """Return what the cluster says of itself: taskmanagers, slots-total, slots-available, jobs-running ..."""
        found: dict[str, Any] = self.get("/overview")
        return found

    def get(self, path: str) -> Any:
        """Return an answer of the cluster's REST API. Raises OSError or HTTPException where there is none."""
        connection = HTTPConnection(_HOST, self._rest, timeout=10)
        try:
            connection.request("GET", path)
            return orjson.loads(connection.getresponse().read())
        finally:
            connection.close()

    def memory_mb(self) -> dict[str, int]:
        """Return what each process of the cluster holds in memory now, in MB."""
        alive = [(name, process.pid) for name, process in self._processes.items() if process.poll() is None]
        return {name: _resident_mb(pid) for name, pid in alive}

    def logs(self) -> str:
        """Return the last lines of each process's log."""
        files = sorted((self._folder / "logs").glob("*.log"))
        tails = [(file.name, file.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]) for file in files]
        return "\n".join(f"--- {name}\n" + "\n".join(lines) for name, lines in tails)

    def close(self) -> None:
        """Stop what was started, children first to be found."""
        children = [pid for process in self._processes.values() for pid in worker_pids(process.pid)]
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in children:
            kill(pid)

    def _start(self, name: str, heap: str, entry: str, *settings: str) -> None:
        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED]
        memory = [f"-Xmx{heap}", f"-Xms{heap}", "-XX:+UseSerialGC", "-XX:MaxMetaspaceSize=256m"]
        places = [
            f"-Djava.io.tmpdir={self._folder / 'tmp'}",
            f"-Dlog4j.configurationFile={self._folder}/conf/log4j.properties",
        ]
        program = [*memory, *opened, *places, "-cp", self._classpath, entry]
        command = [self._java, *program, "--configDir", str(self._folder / "conf"), *settings]
        with (self._folder / "logs" / f"{name}.log").open("wb") as log:
            # A session of its own, so that Ctrl-C in the terminal stops the tests, and they the cluster.
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder, start_new_session=True
            )

    def _configuration(self) -> str:
        settings = {
            "jobmanager.rpc.address": _HOST,
            "jobmanager.rpc.port": str(self._rpc),
            "jobmanager.bind-host": _HOST,
            "jobmanager.memory.process.size": "768m",
            "rest.address": _HOST,
            "rest.bind-address": _HOST,
            "rest.port": str(self._rest),
            "taskmanager.host": _HOST,
            "taskmanager.bind-host": _HOST,
            "taskmanager.numberOfTaskSlots": "1",
            "io.tmp.dirs": str(self._folder / "tmp"),
            "blob.server.port": "0",
            "parallelism.default": str(self._wanted),
            **_RECOVERY,
        }
        return "".join(f"{key}: {value}\n" for key, value in settings.items())

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            dead = [name for name, process in self._processes.items() if process.poll() not in (None, -signal.SIGKILL)]
            if dead:
                raise RuntimeError(f"{', '.join(dead)} ended\n{self.logs()}")
            with contextlib.suppress(OSError, HTTPException, orjson.JSONDecodeError, KeyError):
                if is_so():
                    return
            time.sleep(0.2)
        raise RuntimeError(f"no {what} within {_START_S:g} s\n{self.logs()}")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((_HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port


def kill(pid: int) -> None:
    """Kill a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def worker_pids(parent: int) -> list[int]:
    """Return the ids of all processes below a process, the nearest first."""
    parents = dict(_parents())
    found = [pid for pid, above in parents.items() if above == parent]
    for pid in found:
        found += [below for below, above in parents.items() if above == pid]
    return found


def _parents() -> list[tuple[int, int]]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold anything.
            found.append((int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])))
        except OSError:
            continue
    return found


def _resident_mb(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
