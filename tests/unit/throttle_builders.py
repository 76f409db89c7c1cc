"""What tests of the limits share: a refusal, and a bucket without end."""

from transforms.records.failure import FailureKind
from transforms.records.reply import CallError

K = FailureKind
FULL = float("inf")


def refusal(retry_after_s=None, kind=K.RATE_LIMITED):
    """Return a refusal of the provider under pressure."""
    return CallError(kind=kind, message="x", retry_after_s=retry_after_s)
