"""What an estimate of tokens rests on: earlier calls of this very job, else the model's tokenizer, else a rule.

The same for the plan, which reads the whole input, and for a run, which estimates from a sample as it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import orjson

from pipelines.earlier_calls import EarlierCalls, read_earlier_calls
from pipelines.prepare import PreparedJob
from pipelines.text import plural
from pipelines.tokenizer import find_tokenizer
from transforms.records.request import Prompt
from transforms.rules.answer_size import PLAIN_TEXT_TOKENS, answer_tokens
from transforms.rules.token_scale import CHARACTERS, MIN_COUNTS, TokenScale, fit_scale
from transforms.rules.tokens import estimate_tokens

#: Requests that an estimate is calibrated on.
SAMPLE = 500
#: Prompts given to a tokenizer: it takes a hundred times as long as the rule.
_TOKENIZED = 200
#: Tokens of reasoning by effort: an assumption, until earlier calls tell.
_REASONING = {"none": 0, "minimal": 0, "low": 200, "medium": 600, "high": 1500}


@dataclass(frozen=True, slots=True)
class Sampled:
    """One distinct request: its id, and its input tokens by the character rule (prompt and schema)."""

    request_id: str
    ruled_tokens: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Basis:
    """How tokens are estimated.

    Attributes:
        scale: from the rule's input tokens to the model's.
        output_tokens: expected of one request.
        output_method: where that comes from, for people.
    """

    scale: TokenScale
    output_tokens: float
    output_method: str

    @property
    def error(self) -> str:
        """The input estimate's error in words, such as "+-8 % on this job's own calls"."""
        share = 100 * self.scale.error
        return (
            f"+-{share:.0f} % on {self.scale.known_from}"
            if share >= 2
            else f"+-{share:.1f} % on {self.scale.known_from}"
        )


def find_basis(prepared: PreparedJob, sample: Sequence[Sampled]) -> Basis:
    """Calibrate on what is known of the sample's requests.

    Args:
        prepared: the job.
        sample: up to SAMPLE distinct requests, spread over the input.
    """
    earlier = read_earlier_calls(prepared, [one.request_id for one in sample])
    scale = _from_calls(sample, earlier) or _from_tokenizer(prepared, sample) or CHARACTERS
    return Basis(scale, *_output(prepared, earlier))


def schema_text(prepared: PreparedJob) -> str:
    """Return the answer's schema as it travels with each request; empty without one."""
    return orjson.dumps(prepared.answer_schema).decode() if prepared.answer_schema else ""


def _from_calls(sample: Sequence[Sampled], earlier: EarlierCalls) -> TokenScale | None:
    known = earlier.input_tokens
    counts = [(one.ruled_tokens, known[one.request_id]) for one in sample if one.request_id in known]
    method = f"calibrated on {plural(len(counts), 'call')} of run {earlier.input_run_id}"
    return fit_scale(method, "this job's own calls", counts)


def _from_tokenizer(prepared: PreparedJob, sample: Sequence[Sampled]) -> TokenScale | None:
    tokenizer = find_tokenizer(prepared.provider_name, prepared.price_model) if sample else None
    if tokenizer is None:
        return None
    schema = tokenizer.text_tokens(schema_text(prepared))
    step = max(1, len(sample) // _TOKENIZED)
    counts = [(one.ruled_tokens, tokenizer.prompt_tokens(one.prompt) + schema) for one in sample[::step]]
    return fit_scale(f"tiktoken {tokenizer.name}", "the model's own tokenizer", counts)


def _output(prepared: PreparedJob, earlier: EarlierCalls) -> tuple[float, str]:
    """Return the expected output tokens of a request, and how they are known."""
    most = prepared.max_output_tokens
    known = earlier.output_tokens
    if len(known) >= MIN_COUNTS:
        mean = fmean(known)
        method = f"mean of {plural(len(known), 'earlier call')} (run {earlier.output_run_id})"
        return (mean if most is None else min(mean, most)), method
    _, typical = answer_tokens(prepared.answer_schema)
    if prepared.answer_schema is None:
        method = f"plain text, taken as {PLAIN_TEXT_TOKENS} tokens"
    else:
        method = "typical JSON of the schema"
    thinking = _reasoning_tokens(prepared)
    if thinking:
        method += f" and {thinking} tokens of reasoning assumed"
    expected = typical + thinking
    if most is not None and expected >= most:
        return float(most), f"{method}, cut at max_output_tokens"
    return float(expected), method


def _reasoning_tokens(prepared: PreparedJob) -> int:
    """Return what a reasoning model is taken to think before each answer, where the manifest says that it does."""
    entry = prepared.model_entry
    effort = prepared.job.model.params.reasoning_effort or (entry.default_effort if entry else None)
    if entry is None or not entry.reasoning or effort is None:
        return 0
    return _REASONING.get(effort, max(_REASONING.values()))


def ruled_schema_tokens(prepared: PreparedJob) -> int:
    """Return the schema's tokens by the character rule."""
    return estimate_tokens(schema_text(prepared))
