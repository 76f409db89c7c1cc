"""What is built is what runs: the wheel for users, and the sdist that a launch ships to its workers."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guards.sources import PACKAGES, ROOT

#: Top-level files that a build reads.
BUILD_FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
SCRATCH = shutil.ignore_patterns("__pycache__", "*.pyc", "out")


@dataclass(frozen=True)
class Built:
    """A copy of the source, and what was built from it."""

    source: Path
    wheel: Path
    sdist: Path


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Wheel and sdist, built without the network from a copy of the source, tests included."""
    source = tmp_path_factory.mktemp("build") / "source"
    source.mkdir()
    for name in BUILD_FILES:
        shutil.copy2(ROOT / name, source / name)
    for package in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / package, source / package, ignore=SCRATCH)
    _run(sys.executable, "-m", "build", "--no-isolation", cwd=source)
    (wheel,) = (source / "dist").glob("*.whl")
    (sdist,) = (source / "dist").glob("*.tar.gz")
    return Built(source, wheel, sdist)


def _source_files(source: Path) -> set[str]:
    """Everything in the two packages: modules and the data files of the jobs."""
    return {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _sdist_files(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_wheel_holds_the_packages_and_nothing_else(built: Built) -> None:
    """Every module and every job's data file is in the wheel; tests are not."""
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == _source_files(built.source)
    assert "pipelines/jobs/reviews/reviews.csv" in names


def test_sdist_holds_all_that_a_worker_needs(built: Built) -> None:
    """The sdist has the packages with their data, and the files that its own build reads."""
    missing = (_source_files(built.source) | set(BUILD_FILES)) - _sdist_files(built.sdist)
    assert not missing, sorted(missing)


def test_setup_py_makes_the_same_sdist(built: Built, tmp_path: Path) -> None:
    """`setup.py sdist`, to which Beam's launcher falls back, ships the same files."""
    _run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path, cwd=built.source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert _sdist_files(sdist) == _sdist_files(built.sdist)


def test_sdist_runs_in_an_empty_environment(built: Built, tmp_path: Path) -> None:
    """Installed where only our dependencies exist, the sdist gives a working command and an importable pipeline."""
    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path)
    scheme = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    python = Path(sysconfig.get_path("scripts", "venv", scheme)) / "python"
    site = Path(sysconfig.get_path("purelib", "venv", scheme))
    # A path in a .pth file adds that folder only, not what its own .pth files name: not the editable project.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    install = (
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--no-cache-dir",
        "--ignore-installed",
    )
    _run(sys.executable, "-m", "pip", "--python", python, *install, built.sdist, cwd=tmp_path)

    place = _run(python, "-c", "import pipelines.enrich; print(pipelines.enrich.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(site), "the installed package runs, not the source tree"
    assert (site / "pipelines" / "jobs" / "reviews" / "job.yaml").is_file()
    assert "run" in _run(python.parent / "rowbeam", "--help", cwd=tmp_path)
