"""What an exception means at the command line: an exit code and one sentence.

Our own errors carry their sentence. Whatever a worker raised comes back from Beam wrapped, often as the text of a
traceback inside a RuntimeError: the innermost exception is dug out of it.
"""

import errno
import re
from dataclasses import dataclass

from transforms.records.errors import ConfigError, InputError, InternalError, OutputBusyError, RowbeamError

EXIT_CONFIG = 2
EXIT_INTERNAL = 3
EXIT_INTERRUPTED = 130

_EXIT_CODES: dict[str, int] = {
    ConfigError.__name__: EXIT_CONFIG,
    InputError.__name__: EXIT_CONFIG,
    OutputBusyError.__name__: EXIT_CONFIG,
    InternalError.__name__: EXIT_INTERNAL,
}
# What the user can put right about a file that can't be opened or written; other system errors are not foreseen.
_FILE_CURES: dict[int, str] = {
    errno.ENOSPC: "free some space, or choose an `output` on another disk",
    errno.EDQUOT: "free some space, or choose an `output` on another disk",
    errno.EROFS: "choose an `output` on a disk that can be written",
    errno.EACCES: "change its mode, or run as another user",
    errno.EPERM: "change its mode, or run as another user",
    errno.ENOTDIR: "a part of that path is a file: correct the path",
    errno.EISDIR: "it is a folder: correct the path",
}
#: A bucket and BigQuery, where they refuse or can't be reached.
_STORES = frozenset({"StorageError", "WarehouseError"})
_KEPT = "; answers so far are in the ledger, and running the job again takes them up"
_OURS = RowbeamError.__module__
_MAX_CHARS = 500
_STEP = re.compile(r"\s*\[while running '(?P<step>[^']*)'\]")
# The last line of a traceback: "package.module.NameError: words", at the beginning of a line.
_RAISED = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<words>.*))?$", re.MULTILINE)
# What may follow it: a blank line, or the Java frames of a portable runner.
_END = re.compile(r"\n\s*\n|\n\tat ")
_TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class Mishap:
    """How a failed command ends: its exit code, and the sentence for standard error."""

    exit_code: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Cause:
    """The innermost exception of an error: its class (qualified where known), its words, and the Beam step."""

    type: str
    words: str
    step: str | None

    @property
    def name(self) -> str:
        """The class's own name."""
        return self.type.rsplit(".", 1)[-1]


def judge(error: BaseException, *, running: bool = False) -> Mishap:
    """Say how the command line should end after `error`.

    Args:
        error: what was raised.
        running: a pipeline was under way, so that answers may be in the ledger.
    """
    cause = root_cause(error)
    # Where Ctrl-C falls into a stage, Beam makes it a RuntimeError with that text.
    if isinstance(error, KeyboardInterrupt) or cause.words == KeyboardInterrupt.__name__:
        return Mishap(EXIT_INTERRUPTED, "stopped by you" + (_KEPT if running else ""))
    if cause.type.startswith(_OURS) and cause.name in _EXIT_CODES:
        return Mishap(_EXIT_CODES[cause.name], cause.words)
    if isinstance(error, OSError) and error.errno in _FILE_CURES and not running:
        problem = f"{error.filename or 'writing the output'}: {error.strerror}"
        return Mishap(EXIT_CONFIG, f"{problem}; {_FILE_CURES[error.errno]}")
    if cause.name in _STORES:
        # Their sentences tell the place and the cure: nothing failed that is ours.
        return Mishap(EXIT_INTERNAL if running else EXIT_CONFIG, cause.words + (_KEPT if running else ""))
    where = f" in {cause.step}" if cause.step else ""
    words = " ".join(f"{cause.name}: {cause.words}".rstrip(": ").split())
    shown = words if len(words) <= _MAX_CHARS else words[:_MAX_CHARS] + "..."
    cure = "" if running else "; --log-level debug shows the traceback"
    return Mishap(EXIT_INTERNAL, f"something failed that should not{where}: {shown}{_KEPT if running else cure}")


def root_cause(error: BaseException) -> Cause:
    """Dig the innermost exception out of Beam's wrappers."""
    text = str(error)
    steps = _STEP.findall(text)
    step = steps[-1].rsplit("/", 1)[-1] if steps else None
    if _TRACEBACK in text:
        raised = list(_RAISED.finditer(text[text.rindex(_TRACEBACK) :]))
        found = raised[0] if raised else None
        if found is not None:
            tail = text[text.rindex(_TRACEBACK) + found.start() :]
            words = _END.split(tail.partition(": ")[2], maxsplit=1)[0] if found["words"] is not None else ""
            return Cause(found["type"], _STEP.sub("", words).strip(), step)
    kind = type(error)
    return Cause(f"{kind.__module__}.{kind.__qualname__}", _STEP.sub("", text).strip(), step)
