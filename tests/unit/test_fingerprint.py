"""Names made of content (rules/fingerprint.py)."""

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.records.request import Prompt
from transforms.rules.fingerprint import (
    RequestIdentity,
    batch_id,
    batch_key,
    custom_id,
    stable_shard,
    tagged_sha256,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
PROMPTS = st.builds(
    Prompt, st.none() | TEXT, st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXT), max_size=3).map(tuple)
)
IDENTITY = {"provider": "openai", "api": "chat", "body": {"model": "m", "temperature": 0.5, "stop": None, "seed": 1}}


def reordered(value):
    """Return the same value with its keys in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value


@given(PROMPTS)
def test_a_request_id_can_be_recomputed_from_canonical_json(prompt):
    """The quick way equals the definition, so anyone can check an id from the audit."""
    expected = tagged_sha256(
        "request",
        {
            "identity": tagged_sha256("identity", IDENTITY),
            "prompt": [prompt.system, [list(turn) for turn in prompt.turns]],
        },
    )
    assert RequestIdentity(IDENTITY).request_id(prompt) == expected


@given(PROMPTS, PROMPTS)
def test_different_prompts_have_different_ids(one, other):
    """No two splits of text into system and turns meet in one id."""
    identity = RequestIdentity(IDENTITY)
    assert (identity.request_id(one) == identity.request_id(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(Prompt("a", (("user", "b"),)), Prompt(None, (("user", "ab"),)), id="system or user"),
        pytest.param(Prompt(None, (("user", "b"),)), Prompt("", (("user", "b"),)), id="no system or an empty one"),
        pytest.param(Prompt(None, (("user", "a"), ("user", "b"))), Prompt(None, (("user", 'a"],["user","b'),)), id="quotes"),
    ],
)  # fmt: skip
def test_a_text_cannot_imitate_a_split(one, other):
    """Where text is cut matters, whatever characters it holds."""
    identity = RequestIdentity(IDENTITY)
    assert identity.request_id(one) != identity.request_id(other)


def test_key_order_does_not_matter():
    """The same identity written in another order names the same request."""
    prompt = Prompt(None, (("user", "x"),))
    assert RequestIdentity(IDENTITY).request_id(prompt) == RequestIdentity(reordered(IDENTITY)).request_id(prompt)


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "azure.ai.openai"},
        {"api": "responses"},
        {"body": IDENTITY["body"] | {"model": "n"}},
        {"body": IDENTITY["body"] | {"temperature": 0.6}},
        {"body": IDENTITY["body"] | {"stop": []}},
        {"body": {}},
        {"extra": None},
    ],
)
def test_every_part_of_the_identity_changes_the_id(change):
    """Another provider, API or body field asks another question."""
    prompt = Prompt(None, (("user", "x"),))
    assert RequestIdentity(IDENTITY).request_id(prompt) != RequestIdentity(IDENTITY | change).request_id(prompt)


def test_a_known_request_keeps_its_id():
    """Ids live in ledgers across versions: this one may never change."""
    assert RequestIdentity({"a": 1}).request_id(Prompt("s", (("user", "u"),))) == (
        "50a5a7d86dfe38173feccc20f689136e7441bedb46c5977d9e6921c1d39a38c5"
    )


def test_an_identity_survives_pickling():
    """Workers give the same ids."""
    identity = RequestIdentity(IDENTITY)
    prompt = Prompt(None, (("user", "x"),))
    copy = pickle.loads(pickle.dumps(identity))  # noqa: S301 - our own bytes
    assert copy.request_id(prompt) == identity.request_id(prompt)


def test_the_tag_keeps_equal_contents_apart():
    """A batch key never equals a request id of the same content."""
    assert tagged_sha256("request", ["x"]) != tagged_sha256("batch", ["x"])


@given(st.lists(TEXT, unique=True, min_size=1, max_size=6), st.randoms())
def test_a_batch_key_ignores_the_order_of_its_requests(ids, random):
    """A retried bundle finds its own records however Beam orders the group."""
    shuffled = list(ids)
    random.shuffle(shuffled)
    assert batch_key("p", "m", ids) == batch_key("p", "m", shuffled)
    assert batch_key("p", "m", ids) != batch_key("p", "m", ids[1:])
    assert batch_key("p", "m", ids) != batch_key("p", "n", ids) != batch_key("q", "n", ids)


def test_a_batch_id_belongs_to_one_run_and_one_group():
    """The same run and group give the same id; others do not."""
    assert re.fullmatch(r"b[0-9a-f]{20}", batch_id("r1", "k"))
    assert batch_id("r1", "k") == batch_id("r1", "k")
    assert len({batch_id("r1", "k"), batch_id("r2", "k"), batch_id("r1", "l")}) == 3


@given(TEXT, st.binary(max_size=8))
def test_a_custom_id_is_one_that_every_provider_takes(run_id, seed):
    """Letters, digits, dash and underscore; at most 64; unique per request and run."""
    request_id = tagged_sha256("request", list(seed))
    made = custom_id(run_id, request_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", made)
    assert made.endswith("-" + request_id[:40])
    assert made != custom_id(run_id + "x", request_id)


@given(st.binary(max_size=8), st.integers(1, 1024))
def test_a_shard_is_in_range_and_stable(seed, shards):
    """The shard is a function of the request alone."""
    request_id = tagged_sha256("request", list(seed))
    assert 0 <= stable_shard(request_id, shards) < shards
    assert stable_shard(request_id, shards) == stable_shard(request_id, shards)


def test_shards_are_filled_evenly():
    """With 4,000 requests no shard of 4 is a tenth away from its share."""
    counts = [0] * 4
    for number in range(4000):
        counts[stable_shard(tagged_sha256("request", number), 4)] += 1
    assert all(900 < count < 1100 for count in counts)
