"""Whether a failed call is tried again, and when.

A CallError enters, with how often and how long the request has been tried; a decision leaves, with its reason.
The order of the questions follows what both vendor SDKs do (providers.md 1.9), with two rules on top: a refusal
that ends the run is never retried, and everything is bounded in tries and in time. Randomness is an argument.
"""

from dataclasses import dataclass

from transforms.records.failure import RETRYABLE, RUN_STOPPING, FailureKind
from transforms.records.reply import CallError

#: Doubling stops here; every cap lies far below it, and 2.0**n stays finite for any number of tries.
_MAX_DOUBLINGS = 30

#: Jitter on top of the server's wish, as a share of it, so that those who were told the same come back apart.
_WISH_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The bounds of trying again; all times in seconds.

    Attributes:
        max_attempts: tries of one request in all, the first included.
        deadline_s: from the first send; no wait may end at or after it.
        base_s: ceiling of the first wait; it doubles with every try.
        cap_s: no own wait is longer.
        overload_base_s: takes the place of base_s when the provider is overloaded (providers.md 2.6, 4.6).
        server_wait_cap_s: a server that asks for a longer wait gets none: the request is given up.
    """

    max_attempts: int
    deadline_s: float
    base_s: float = 0.5
    cap_s: float = 60.0
    overload_base_s: float = 2.0
    server_wait_cap_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Send again after wait_s seconds."""

    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not send again; the reason is a sentence part for the dead letter."""

    reason: str


def decide(
    error: CallError,
    attempt: int,
    elapsed_s: float,
    policy: RetryPolicy,
    rand: float,
    *,
    invalid_before: bool | None = None,
) -> Retry | GiveUp:
    """Decide what follows a failed try.

    Args:
        error: what the try gave.
        attempt: number of this try, the first is 1.
        elapsed_s: seconds from the request's first send until now.
        policy: the bounds.
        rand: uniform in [0, 1), drawn anew for every decision.
        invalid_before: an earlier try also gave INVALID_RESPONSE, which is cured once only; None (not known)
            counts every second try as such.

    Returns:
        Retry with a wait that is never negative and ends before the deadline, or GiveUp.
    """
    if invalid_before is None:
        invalid_before = attempt > 1
    verdict = _forbidden(error, invalid_before=invalid_before)
    if verdict is None and attempt >= policy.max_attempts:
        verdict = f"{error.kind} on try {attempt} of {policy.max_attempts}"
    if verdict is not None:
        return GiveUp(verdict)
    return _timed(error, attempt, elapsed_s, policy, rand)


def _forbidden(error: CallError, *, invalid_before: bool) -> str | None:
    """Return why this error may not be retried at all, or None."""
    kind = error.kind
    if kind in RUN_STOPPING:
        return f"{kind} stops the run"
    if error.no_retry:
        return f"{kind}, and the server forbade another try"
    if error.force_retry:
        return None
    if kind not in RETRYABLE:
        return f"{kind} is not cured by another try"
    if kind is FailureKind.INVALID_RESPONSE and invalid_before:
        return f"{kind} again after another try"
    return None


def _timed(error: CallError, attempt: int, elapsed_s: float, policy: RetryPolicy, rand: float) -> Retry | GiveUp:
    """Choose the wait, and refuse one that is too long."""
    base_s = policy.overload_base_s if error.kind is FailureKind.OVERLOADED else policy.base_s
    if error.retry_after_s is None:
        wait_s = rand * min(policy.cap_s, base_s * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
        reason = f"{error.kind}, waiting {wait_s:.1f} s"
    else:
        wish_s = max(0.0, error.retry_after_s)
        if wish_s > policy.server_wait_cap_s:
            return GiveUp(
                f"{error.kind}, and the server asked for {wish_s:.0f} s, more than {policy.server_wait_cap_s:.0f} s"
            )
        wait_s = wish_s + rand * max(base_s, _WISH_JITTER * wish_s)
        reason = f"{error.kind}, the server asked for {wish_s:.1f} s"
    if elapsed_s + wait_s >= policy.deadline_s:
        return GiveUp(
            f"{error.kind}, and a wait of {wait_s:.1f} s would pass the deadline of {policy.deadline_s:.0f} s"
        )
    return Retry(wait_s, reason)
