"""An output that can't be written is found before a run begins."""

import errno
import os
from pathlib import Path

import pytest

from transforms.records.errors import ConfigError
from transforms.storage import output_check
from transforms.storage.output_check import check_output


@pytest.mark.parametrize("there", [True, False], ids=["there", "absent"])
def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path, there: bool) -> None:
    """Neither files nor folders are made."""
    output = tmp_path / "a" / "out"
    if there:
        (output / "ledger").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    check_output(str(output))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("bad", ["", "below", "ledger", "runs"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, bad: str) -> None:
    """The output itself, a folder above it, or one that a run makes in it."""
    output = tmp_path / "out"
    if bad in {"ledger", "runs"}:
        output.mkdir()
        (output / bad).write_text("x")
    else:
        output.write_text("x")
    with pytest.raises(ConfigError, match=r"^output: can't write to .*/out.*: a part of the path is a file: choose"):
        check_output(str(output / bad) if bad == "below" else str(output))


def test_a_device_is_no_folder() -> None:
    """As when somebody wants no output at all."""
    with pytest.raises(ConfigError, match="/dev/null"):
        check_output("/dev/null")


def test_a_place_that_takes_no_files_is_refused() -> None:
    """The kernel's own file system takes none, not even from root."""
    with pytest.raises(ConfigError, match=r"can't write to /proc/out: .*choose"):
        check_output("/proc/out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    """The cure is named."""
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="no permission"):
        check_output(str(tmp_path / "out"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """No file of the probe is left."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output_check, "write_all", refuse)
    with pytest.raises(ConfigError, match="disk"):
        check_output(str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []
