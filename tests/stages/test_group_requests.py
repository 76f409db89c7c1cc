"""GroupRequests through the runner."""

import apache_beam as beam
import pytest

from tests.stages.harness import make_request, run_stage
from transforms.group_requests import GroupRequests
from transforms.records.request import pack
from transforms.records.settings import BatchingSettings
from transforms.rules.fingerprint import batch_key, stable_shard, tagged_sha256


def make_hashed(number):
    """Return a request with an id as real ones are."""
    found = tagged_sha256("test", number)
    return make_request(str(number), request_id=found, root_request_id=found)


def group(requests, **batching):
    """Run the stage."""
    settings = BatchingSettings(**batching)
    keyed = [(request.request_id, pack(request)) for request in requests]
    asked = beam.Create(keyed).with_output_types(tuple[str, bytes])
    return run_stage(lambda root: root | asked | GroupRequests("openai", "m", settings))["main"]


@pytest.mark.parametrize(("group_size", "shards"), [(1, 1), (7, 2), (500, 4)])
def test_every_request_is_in_one_group_and_no_group_is_too_large(group_size, shards):
    """Groups hold requests of one shard, sorted by id, under the key that their ids give."""
    requests = [make_hashed(number) for number in range(40)]
    groups = group(requests, group_size=group_size, shards=shards)
    grouped = [request for one in groups for request in one.requests()]
    assert sorted(r.request_id for r in grouped) == sorted(r.request_id for r in requests)
    assert {r.request_id: r for r in grouped} == {r.request_id: r for r in requests}
    for one in groups:
        ids = [request.request_id for request in one.requests()]
        assert len(ids) <= group_size
        assert ids == sorted(ids)
        assert len({stable_shard(request_id, shards) for request_id in ids}) == 1
        assert one.batch_key == batch_key("openai", "m", ids)


def test_no_requests_make_no_group():
    """There is no empty group."""
    assert group([], group_size=10) == []
