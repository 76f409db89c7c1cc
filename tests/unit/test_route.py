"""rules/route.py: which requests go by batch, and in how many batches."""

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.settings import BatchingSettings
from transforms.rules.fingerprint import stable_shard
from transforms.rules.route import choose_route, is_batch_allowed, shard_count

MODES = ["per_request", "serial_bundle", "provider_batch_api", "auto"]


@pytest.mark.parametrize(
    ("mode", "fresh_count", "has_batch_api", "is_allowed", "route"),
    [
        pytest.param("per_request", 1_000_000, True, True, "real_time", id="per request, however many"),
        pytest.param("serial_bundle", 1_000_000, True, True, "real_time", id="bundles, however many"),
        pytest.param("provider_batch_api", 1, True, True, "batch", id="batch, however few"),
        pytest.param("provider_batch_api", 1_000_000, False, True, "real_time", id="batch, without a batch API"),
        pytest.param("provider_batch_api", 1_000_000, True, False, "real_time", id="batch, not allowed"),
        pytest.param("auto", 0, True, True, "real_time", id="auto, nothing to send"),
        pytest.param("auto", 19, True, True, "real_time", id="auto, below the threshold"),
        pytest.param("auto", 20, True, True, "batch", id="auto, at the threshold"),
        pytest.param("auto", 21, True, True, "batch", id="auto, above the threshold"),
        pytest.param("auto", 20, False, True, "real_time", id="auto, without a batch API"),
        pytest.param("auto", 20, True, False, "real_time", id="auto, not allowed"),
    ],
)
def test_requests_go_the_way_that_mode_and_count_say(mode, fresh_count, has_batch_api, is_allowed, route):
    """Batch only where the job asks for it, the provider has it and the job lets it."""
    assert choose_route(mode, fresh_count, 20, has_batch_api, is_allowed) == route


@given(st.sampled_from(MODES), st.integers(0, 10**9), st.integers(1, 10**6), st.booleans(), st.booleans())
def test_nothing_is_batched_without_an_api_or_against_the_job(mode, fresh_count, threshold, has_batch_api, is_allowed):
    """Whatever mode and counts are."""
    if choose_route(mode, fresh_count, threshold, has_batch_api, is_allowed) == "batch":
        assert has_batch_api
        assert is_allowed
        assert mode in {"provider_batch_api", "auto"}


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [
        pytest.param(None, True, id="not said"),
        pytest.param(["openai", "anthropic"], True, id="named"),
        pytest.param(["anthropic"], False, id="others named"),
        pytest.param([], False, id="none"),
    ],
)
def test_a_job_may_say_whose_batch_api_is_used(allowed, is_allowed):
    """No list allows all."""
    assert is_batch_allowed(BatchingSettings(allowed_providers=allowed), "openai") is is_allowed


@pytest.mark.parametrize(
    ("fresh_count", "max_requests", "shards"),
    [
        pytest.param(0, 50_000, 1, id="nothing"),
        pytest.param(1, 50_000, 1, id="one"),
        pytest.param(1620, 50_000, 1, id="a small job"),
        pytest.param(50_000, 50_000, 1, id="a full batch"),
        pytest.param(50_001, 50_000, 2, id="one more than a full batch"),
        # 47,500 - 4 x 217.9 = 46,628 a share
        pytest.param(1_000_000, 47_500, 22, id="a million"),
        # 4,750 - 4 x 68.9 = 4,474 a share
        pytest.param(1_000_000, 4750, 224, id="a million in small batches"),
        # 50 - 28.3 is less than half: 25 a share
        pytest.param(1000, 50, 40, id="very small batches"),
        pytest.param(10, 1, 20, id="batches of one"),
    ],
)
def test_shares_are_as_many_as_batches_with_room(fresh_count, max_requests, shards):
    """One where all fit; else with room for what a hash does."""
    assert shard_count(fresh_count, max_requests) == shards


@given(st.integers(0, 10**8), st.integers(1, 100_000))
def test_shares_are_enough_and_not_many_more(fresh_count, max_requests):
    """Their mean fits a batch, and fills at least half of it where there is more than one share."""
    shards = shard_count(fresh_count, max_requests)
    assert fresh_count <= shards * max_requests
    assert shards == 1 or fresh_count > (shards - 1) * max_requests / 2


def test_a_hash_split_hardly_ever_overflows_a_batch():
    """200,000 ids in shares for batches of 4,750: none is too large."""
    shards = shard_count(200_000, 4750)
    sizes = Counter(stable_shard(sha256(b"%d" % number).hexdigest(), shards) for number in range(200_000))
    assert max(sizes.values()) <= 4750
