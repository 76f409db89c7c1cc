"""What an exception means at the command line: exit code and sentence, also out of Beam's wrappers."""

import errno
import os

import pytest

from pipelines.mishaps import judge, root_cause
from transforms.records.errors import ConfigError, InputError, InternalError, OutputBusyError

_SDK = """Error received from SDK harness for instruction 3: Traceback (most recent call last):
  File "sdk_worker.py", line 1, in _execute
    response = task()
  File "call_model.py", line 9, in setup
{raised}
"""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(ConfigError("name the key"), 2, id="config"),
        pytest.param(InputError("name the key"), 2, id="input"),
        pytest.param(OutputBusyError("name the key"), 2, id="busy"),
        pytest.param(InternalError("name the key"), 3, id="internal"),
        pytest.param(ConfigError("name the key [while running 'EnrichRows/CallModel']"), 2, id="from-a-stage"),
        pytest.param(
            RuntimeError(_SDK.format(raised="transforms.records.errors.ConfigError: name the key [while running 'X']")),
            2,
            id="from-another-process",
        ),
        pytest.param(
            RuntimeError(
                _SDK.format(raised="transforms.records.errors.InternalError: name the key\n\n\tat org.apache")
            ),
            3,
            id="through-java",
        ),
    ],
)
def test_our_own_errors_keep_their_sentence(error: Exception, code: int) -> None:
    """Whatever wrapped them, the sentence comes out alone, with the class's exit code."""
    mishap = judge(error, running=True)
    assert (mishap.exit_code, mishap.sentence) == (code, "name the key")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        pytest.param(KeyError("nokey [while running 'A/CallModel']"), 'in CallModel: KeyError: "nokey"', id="beam"),
        pytest.param(RuntimeError(_SDK.format(raised="ValueError: a\nb")), "ValueError: a b", id="two-lines"),
        pytest.param(RuntimeError(_SDK.format(raised="StopAsyncIteration")), "StopAsyncIteration", id="no-words"),
        pytest.param(ValueError("x" * 9000), "x" * 400, id="long"),
    ],
)
def test_what_nobody_foresaw_is_one_line_that_says_what_to_do(error: Exception, shown: str) -> None:
    """It names the failure, and that answers are kept."""
    mishap = judge(error, running=True)
    assert mishap.exit_code == 3
    assert shown in mishap.sentence
    assert "\n" not in mishap.sentence
    assert len(mishap.sentence) < 800
    assert "in the ledger" in mishap.sentence


def test_before_a_run_nothing_is_said_about_answers() -> None:
    """A failing plan has no answers to keep; the traceback is offered instead."""
    sentence = judge(ValueError("x")).sentence
    assert "ledger" not in sentence
    assert "--log-level debug" in sentence


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.ENOSPC, "free some space", id="full"),
        pytest.param(errno.EROFS, "choose an `output`", id="read-only"),
        pytest.param(errno.EACCES, "change its mode", id="no permission"),
        pytest.param(errno.ENOTDIR, "is a file", id="file for a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_the_users_to_cure(number: int, words: str) -> None:
    """Before a pipeline runs it ends with 2 and names the path; in a run the answers come first."""
    error = OSError(number, os.strerror(number), "/out/x")
    mishap = judge(error)
    assert mishap.exit_code == 2
    assert mishap.sentence.startswith(f"/out/x: {os.strerror(number)}; ")
    assert words in mishap.sentence
    during = judge(error, running=True)
    assert (during.exit_code, "in the ledger" in during.sentence) == (3, True)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(KeyboardInterrupt(), id="direct"),
        pytest.param(RuntimeError("KeyboardInterrupt [while running 'CallModel']"), id="from-a-stage"),
    ],
)
def test_ctrl_c_is_no_failure(error: BaseException) -> None:
    """It ends with 130, as shells expect."""
    mishap = judge(error, running=True)
    assert mishap.exit_code == 130
    assert mishap.sentence.startswith("stopped by you")


def test_the_step_is_the_innermost() -> None:
    """Of nested labels the last part is enough to know the stage."""
    assert root_cause(ValueError("x [while running 'EnrichRows/CallModel/CallGroup']")).step == "CallGroup"
