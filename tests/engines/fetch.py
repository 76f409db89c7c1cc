"""Brings the engines that tests run on: `python -m tests.engines.fetch`, once; what is there is not fetched again.

Flink's own jars come from the Python registry, Beam's job server from the Maven one and Prism from the Go one, each by
its ordinary client, into `.engines` beside the environment or where the variable ENGINES_DIR says.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

FLINK = "2.0.1"
FLINK_SERIES = FLINK.rpartition(".")[0]
BEAM = version("apache-beam")

_ROOT = Path(__file__).resolve().parents[2]
_JOB_SERVER = f"beam-runners-flink-{FLINK_SERIES}-job-server"
_PATIENCE_S = 1800
_NOISE = re.compile(r"\x1b\[[0-9;]*m|\(?https?://\S+")


@dataclass(frozen=True)
class Engines:
    """Where the engines are; None: not there. why: what is missing for what, in one line each."""

    flink: Path | None
    job_server: Path | None
    prism: Path | None
    java: str | None

    def missing_for_cluster(self) -> str:
        """Say what a Flink cluster lacks; empty: nothing."""
        gaps = [] if self.java else ["there is no java on PATH"]
        return "; ".join(gaps if self.flink else [*gaps, f"Flink {FLINK} is not fetched (make engines)"])

    def missing_for_flink(self) -> str:
        """Say what Beam on a Flink cluster lacks; empty: nothing."""
        gaps = [] if self.job_server else [f"Beam's job server {_JOB_SERVER} {BEAM} is not fetched (make engines)"]
        return "; ".join(filter(None, [self.missing_for_cluster(), *gaps]))

    def missing_for_prism(self) -> str:
        """Say what Prism lacks; empty: nothing."""
        return "" if self.prism else f"Prism {BEAM} is not fetched (make engines)"


def engines_folder() -> Path:
    """Return the folder that holds the engines."""
    return Path(os.environ.get("ENGINES_DIR") or _ROOT / ".engines").resolve()


def find_engines() -> Engines:
    """Return what is there now."""
    folder = engines_folder()
    flink, prism = folder / f"flink-{FLINK}", folder / f"prism-{BEAM}" / "prism"
    job_server = folder / f"{_JOB_SERVER}-{BEAM}.jar"
    return Engines(
        flink if flink.is_dir() else None,
        job_server if job_server.is_file() else None,
        prism if prism.is_file() else None,
        shutil.which("java"),
    )


def fetch_flink(folder: Path) -> None:
    """Unpack Flink's jars from its Python package, and nothing else of it."""
    with TemporaryDirectory(dir=folder) as scratch:
        package = ["--no-deps", "--no-build-isolation", f"--dest={scratch}", f"apache-flink-libraries=={FLINK}"]
        _run([sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", *package])
        unpacked = Path(scratch) / "flink" / "lib"
        unpacked.mkdir(parents=True)
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            for member in archive:
                path = Path(member.name)
                if member.isfile() and path.parts[1:3] == ("deps", "lib"):
                    stream = archive.extractfile(member)
                    assert stream is not None
                    with stream, (unpacked / path.name).open("wb") as file:
                        shutil.copyfileobj(stream, file)
        unpacked.parent.rename(folder / f"flink-{FLINK}")


def fetch_job_server(folder: Path) -> None:
    """Have Maven put the job server's jar here."""
    with TemporaryDirectory(dir=folder) as scratch:
        artifact = f"org.apache.beam:{_JOB_SERVER}:{BEAM}"
        _run(
            ["mvn", "-q", "-B", "-U", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={scratch}"],
            scratch,
        )
        name = f"{_JOB_SERVER}-{BEAM}.jar"
        (Path(scratch) / name).rename(folder / name)


def fetch_prism(folder: Path) -> None:
    """Have Go build Prism here."""
    with TemporaryDirectory(dir=folder) as scratch:
        command = ["go", "install", f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{BEAM}"]
        _run(command, env={**os.environ, "GOBIN": scratch})
        place = folder / f"prism-{BEAM}"
        place.mkdir(exist_ok=True)
        (Path(scratch) / "prism").rename(place / "prism")


def _run(command: list[str], cwd: str | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, errors="replace"
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["nothing said"]
        wrong = [line for line in said if "error" in line.lower()] or said[-1:]
        # Colours and addresses say nothing here, and what counts stands at the end.
        words = _NOISE.sub("", wrong[0]).strip()
        raise OSError(f"{Path(command[0]).name}: {words[-200:]}")


def main() -> int:
    """Fetch what is missing; say, one line each, what can't be had and which tests that costs. Returns 0 always."""
    folder = engines_folder()
    folder.mkdir(parents=True, exist_ok=True)
    found = find_engines()
    steps: list[tuple[object, str, str, Callable[[Path], None], str]] = [
        (found.prism, f"Prism {BEAM}", "go", fetch_prism, "tests on Prism"),
        (found.flink, f"Flink {FLINK}", sys.executable, fetch_flink, "tests on a Flink cluster"),
        (found.job_server, f"{_JOB_SERVER} {BEAM}", "mvn", fetch_job_server, "tests of jobs on Flink"),
    ]
    if found.java is None:
        print("java is not on PATH: tests on a Flink cluster will be skipped (install Java 17)")
    for there, name, tool, fetch, tests in steps:
        if there:
            print(f"{name}: there")
        elif shutil.which(tool) is None:
            print(f"{name}: {tool} is not on PATH: {tests} will be skipped")
        else:
            _try(name, fetch, folder, tests)
    return 0


def _try(name: str, fetch: Callable[[Path], None], folder: Path, tests: str) -> None:
    print(f"{name}: fetching ...", flush=True)
    try:
        fetch(folder)
    except (OSError, subprocess.SubprocessError, tarfile.TarError, StopIteration) as error:
        print(f"{name}: can't be had ({error}): {tests} will be skipped")


if __name__ == "__main__":
    sys.exit(main())
