"""The exceptions of Rowbeam.

    RowbeamError                   anything we raise on purpose; its text is one sentence for the person who must act
    ├─ ConfigError                 the job file, an override or the command line is wrong     (exit 2)
    ├─ InputError                  an input can't be read at all, or a glob is empty          (exit 2)
    ├─ OutputBusyError             another run holds the output                               (exit 2)
    ├─ RowError                    this row can't be asked about: kind + sentence; becomes a dead letter
    ├─ AnswerError                 this answer is not what the job asked for: becomes a repair, then a dead letter
    └─ InternalError               a promise of ours is broken (conservation, ledger)         (exit 3)

RowError and AnswerError live inside one stage and never enter a PCollection.
"""

from transforms.records.failure import FailureKind


class RowbeamError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(RowbeamError):
    """The job file, an override, or the command line is wrong; raised before launch only."""


class InputError(RowbeamError):
    """An input file can't be opened or a glob matches nothing; raised before anything is spent."""


class OutputBusyError(RowbeamError):
    """Another run holds the lease of this output."""


class InternalError(RowbeamError):
    """A promise is broken, such as a row that is neither enriched, dead-lettered nor pending."""


class RowError(RowbeamError):
    """This row can't be asked about."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        """Keep the kind beside the sentence."""
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class AnswerError(RowbeamError):
    """The answer's text does not hold what the job's schema asks for."""
