"""Real time or the provider's batch API, and into how many batches: decided by counts, never by the clock."""

from math import ceil, sqrt

from transforms.records.settings import BatchingSettings
from transforms.rules.price import Processing

#: Standard deviations between the mean size of a share and a full batch: one share in 30,000 is larger.
_ROOM = 4.0


def is_batch_allowed(batching: BatchingSettings, provider: str) -> bool:
    """Say whether the job lets this provider's batch API be used; provider: as the job file names it."""
    return batching.allowed_providers is None or provider in batching.allowed_providers


def choose_route(mode: str, fresh_count: int, threshold: int, has_batch_api: bool, is_allowed: bool) -> Processing:
    """Return how the fresh requests of a run are sent.

    Args:
        mode: the job's `batching.mode`.
        fresh_count: distinct requests that neither the ledger answers nor a batch in flight holds.
        threshold: `batching.threshold`: auto sends fewer than this in real time.
        has_batch_api: the provider has one that this job can use.
        is_allowed: `is_batch_allowed`.

    Returns:
        "batch" only where there is a batch API that may be used: always in mode provider_batch_api, from the
        threshold on in mode auto, never in the others. The same arguments give the same answer.
    """
    if not (has_batch_api and is_allowed):
        return "real_time"
    if mode == "provider_batch_api" or (mode == "auto" and fresh_count >= threshold):
        return "batch"
    return "real_time"


def shard_count(fresh_count: int, max_requests: int) -> int:
    """Return into how many shares, at least 1, requests are split by a hash of their ids: one batch each.

    A hash gives shares of unequal size: around a mean of m they vary by about the square root of m. So a share's mean
    stays 4 such steps below max_requests (but at half of it or more, for small batches), and a share larger than a
    batch, which is split once more, is rare. As many as fit one batch are one share.

    Args:
        fresh_count: requests to split.
        max_requests: of one batch, the smaller of the provider's limit and `batching.max_requests`; at least 1.
    """
    if fresh_count <= max_requests:
        return 1
    mean = max(max_requests - _ROOM * sqrt(max_requests), max_requests / 2)
    return ceil(fresh_count / mean)
