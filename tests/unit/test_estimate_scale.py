"""Token estimates and what they are calibrated on: scales, answers' sizes, samples, tokenizers."""

import base64
import hashlib
import socket
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.row_sample import SpreadSample
from pipelines.tokenizer import CL100K, O200K, Vocabulary, find_tokenizer, load_tokenizer, vocabulary_of
from transforms.records.request import Prompt
from transforms.rules.answer_size import PLAIN_TEXT_TOKENS, answer_tokens
from transforms.rules.token_scale import MIN_COUNTS, fit_scale


def test_a_scale_is_the_median_ratio_where_the_rule_is_off_by_a_factor() -> None:
    """30 requests: 27 at 1.1 times the rule, 3 at twice: factor 1.1, and nine in ten are within the least error."""
    scale = fit_scale("m", "w", [(100, 110)] * 27 + [(100, 200)] * 3)
    assert scale is not None
    assert (scale.factor, scale.fixed, scale.error) == (pytest.approx(1.1), 0.0, 0.001)
    assert scale.tokens(1000, 10) == pytest.approx(1100)


def test_a_schema_that_is_not_counted_is_a_fixed_part() -> None:
    """Rule 60 to 159 tokens, 50 of them a schema that the model does not see, the rest twice as many as the rule's."""
    scale = fit_scale("m", "w", [(60 + step, 2 * (10 + step)) for step in range(100)])
    assert scale is not None
    assert (scale.factor, scale.fixed, scale.error) == (pytest.approx(2), pytest.approx(-100), 0.001)
    assert scale.tokens(60 + 70, 2) == pytest.approx(2 * (10 + 20))


def test_the_error_is_the_ninth_in_ten_miss() -> None:
    """Equally long requests at ratios 0.91 to 1.10: the median is 1.005, and nine in ten miss it by 0.085 at most."""
    scale = fit_scale("m", "w", [(1000, 1000 + 10 * step) for step in range(-9, 11)])
    assert scale is not None
    assert scale.factor == pytest.approx(1.005)
    assert scale.error == pytest.approx(0.085 / 1.005)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)), min_size=MIN_COUNTS, max_size=60))
def test_any_counts_give_a_scale_that_expects_tokens(counts: list[tuple[int, int]]) -> None:
    """The factor is above 0, nothing is expected below 0, and nine in ten are within the error."""
    scale = fit_scale("m", "w", counts)
    assert scale is not None
    assert scale.factor > 0
    within = [abs(known / scale.tokens(ruled) - 1) <= scale.error + 1e-9 for ruled, known in counts]
    assert sum(within) >= 0.9 * len(counts)


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param([], id="none"),
        pytest.param([(10, 11)] * (MIN_COUNTS - 1), id="too-few"),
        pytest.param([(10, 0)] * 50, id="not-counted"),
    ],
)
def test_too_little_is_no_calibration(counts: list[tuple[int, int]]) -> None:
    """Then the general rule and its error stand."""
    assert fit_scale("m", "w", counts) is None


LABEL = {"enum": ["positive", "negative", "neutral"]}


@pytest.mark.parametrize(
    ("schema", "smallest", "typical"),
    [
        # {"label":"neutral"} has 19 characters, {"label":"positive"} 20 (and its frame counts one more for a comma)
        pytest.param({"type": "object", "properties": {"label": LABEL}, "required": ["label"]}, 5, 6, id="enum"),
        pytest.param({"type": "object", "properties": {"label": LABEL}}, 1, 6, id="optional"),
        pytest.param({"type": "string", "maxLength": 20}, 1, 3, id="short text"),
        pytest.param({"type": "string", "minLength": 200}, 51, 51, id="long text"),
        pytest.param({"type": "array", "items": {"type": "boolean"}, "minItems": 8}, 11, 13, id="list"),
        pytest.param({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 8}]}, 1, 2, id="nullable"),
        pytest.param({"$ref": "#/$defs/x", "$defs": {"x": {"const": "abcdefghij"}}}, 3, 3, id="reference"),
        pytest.param(None, 1, PLAIN_TEXT_TOKENS, id="plain text"),
    ],
)
def test_an_answer_has_the_size_of_its_json(schema: dict[str, Any] | None, smallest: int, typical: int) -> None:
    """Characters of compact JSON over four, rounded up."""
    assert answer_tokens(schema) == (smallest, typical)


def test_a_schema_that_contains_itself_has_a_size() -> None:
    """A tree of comments ends somewhere."""
    tree = {"$ref": "#/$defs/t", "$defs": {"t": {"type": "object", "properties": {"next": {"$ref": "#/$defs/t"}}}}}
    smallest, typical = answer_tokens(tree)
    assert 1 <= smallest <= typical < 200


@given(
    st.recursive(
        st.sampled_from([{"type": "string"}, {"type": "integer"}, {"enum": ["a", "bb"]}, {"type": "boolean"}, {}, True]),
        lambda inner: st.builds(lambda items, n: {"type": "array", "items": items, "minItems": n}, inner, st.integers(0, 3))
        | st.builds(lambda a, b: {"type": "object", "properties": {"a": a, "b": b}, "required": ["a"]}, inner, inner),
        max_leaves=6,
    )
)  # fmt: skip
def test_the_smallest_answer_is_never_above_the_typical_one(schema: Any) -> None:
    """Whatever the schema, both are at least one token."""
    smallest, typical = answer_tokens(schema if isinstance(schema, dict) else None)
    assert 1 <= smallest <= typical


@given(st.integers(0, 3000), st.integers(1, 60))
def test_a_sample_is_bounded_and_evenly_spread(length: int, most: int) -> None:
    """At most so many, all of a short stream, equal steps from the first on."""
    sample: SpreadSample[int] = SpreadSample(most)
    for item in range(length):
        if sample.wants_next():
            sample.keep(item)
    assert len(sample.items) <= most
    assert len(sample.items) >= min(length, most // 2)
    steps = {b - a for a, b in zip(sample.items, sample.items[1:], strict=False)}
    assert len(steps) <= 1
    assert not sample.items or sample.items[0] == 0


@pytest.mark.parametrize(
    ("provider", "model", "vocabulary"),
    [
        pytest.param("openai", "gpt-4o-mini-2024-07-18", O200K, id="gpt-4o"),
        pytest.param("openai", "gpt-4.1", O200K, id="gpt-4.1"),
        pytest.param("azure.ai.openai", "gpt-35-turbo", CL100K, id="azure"),
        pytest.param("openai", "gpt-4-turbo", CL100K, id="gpt-4"),
        pytest.param("openrouter", "openai/o3-mini", O200K, id="openrouter"),
        pytest.param("openrouter", "anthropic/claude-sonnet-4.5", None, id="another vendor"),
        pytest.param("anthropic", "claude-haiku-4-5", None, id="anthropic"),
        pytest.param("openai_compatible", "gpt-4o", None, id="any server"),
    ],
)
def test_a_model_family_has_its_vocabulary(provider: str, model: str, vocabulary: Vocabulary | None) -> None:
    """Only families that publish one, by the models' names."""
    assert vocabulary_of(provider, model) is vocabulary


def test_a_vocabulary_in_the_cache_counts_as_the_model_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file in tiktoken's cache is used; here one of single bytes, so tokens are UTF-8 bytes and the frame."""
    tiktoken = pytest.importorskip("tiktoken")
    load, registry = pytest.importorskip("tiktoken.load"), pytest.importorskip("tiktoken.registry")
    data = b"".join(base64.b64encode(bytes([byte])) + f" {byte}\n".encode() for byte in range(256))
    url, digest = "https://example.invalid/bytes.tiktoken", hashlib.sha256(data).hexdigest()
    vocabulary = Vocabulary("rowbeam_bytes", hashlib.sha1(url.encode()).hexdigest(), digest)  # noqa: S324 - tiktoken's naming
    (tmp_path / vocabulary.cached_as).write_bytes(data)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    tiktoken.list_encoding_names()
    monkeypatch.setitem(
        registry.ENCODING_CONSTRUCTORS,
        "rowbeam_bytes",
        lambda: {
            "name": "rowbeam_bytes",
            "pat_str": ".+",
            "mergeable_ranks": load.load_tiktoken_bpe(url, digest),
            "special_tokens": {"<|end|>": 256},
        },
    )
    tokenizer = load_tokenizer(vocabulary)
    assert tokenizer is not None
    assert tokenizer.text_tokens("naïve <|end|>") == 14
    assert tokenizer.prompt_tokens(Prompt("ab", (("user", "abc"),))) == 3 + 3 + 2 + 3 + 3


@pytest.mark.parametrize("held", [pytest.param(None, id="no-file"), pytest.param(b"cut", id="damaged-file")])
def test_a_vocabulary_is_never_downloaded(held: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a whole file there is no tokenizer, no connection is tried, and a damaged file stays as it is."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    path = tmp_path / O200K.cached_as
    if held is not None:
        path.write_bytes(held)
    assert find_tokenizer("openai", "gpt-4o-mini") is None
    assert (path.read_bytes() if path.exists() else None) == held


def test_the_switch_that_turns_the_cache_off_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder name means that tiktoken keeps nothing, so nothing is at hand."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert load_tokenizer(O200K) is None


def test_sizes_count_json_and_not_python() -> None:
    """An enum of numbers and null is measured as it is written."""
    assert len(orjson.dumps([1, None])) == 8
    assert answer_tokens({"enum": [1, None]}) == (1, 1)
