"""What to do about each kind of failure: one clause an operator can act on."""

from collections.abc import Mapping

from transforms.records.failure import FailureKind

#: One clause per kind that ends a row; the kinds of providers.md 12.3 and of reading and rendering.
ADVICE: Mapping[FailureKind, str] = {
    FailureKind.UNDECODABLE: "save the file as UTF-8",
    FailureKind.MALFORMED_ROW: "correct the line in the input",
    FailureKind.DAMAGED_FILE: "get the file again from its source, then run the job again",
    FailureKind.WRONG_TYPE: "correct the value, or change input.types",
    FailureKind.MISSING_KEY: "fill in the key, or choose another input.key",
    FailureKind.DUPLICATE_KEY: "make the key unique, or name more columns in input.key",
    FailureKind.MISSING_COLUMN: "give the row that column, or a default in the template",
    FailureKind.TEMPLATE_ERROR: "correct the template for such values, or the value",
    FailureKind.TRUNCATED: "raise model.params.max_output_tokens",
    FailureKind.REFUSAL: "reword the prompt, or leave these rows out",
    FailureKind.CONTENT_FILTERED: "reword the prompt, or ask another model",
    FailureKind.INVALID_OUTPUT: "simplify answer.schema, or ask a stronger model",
    FailureKind.INVALID_RESPONSE: "run the job again; if it stays, check model.base_url",
    FailureKind.RATE_LIMITED: "lower pool.requests_per_minute, then run the job again",
    FailureKind.OVERLOADED: "run the job again later",
    FailureKind.SERVER_ERROR: "run the job again later",
    FailureKind.TIMEOUT: "raise pool.timeout, then run the job again",
    FailureKind.CONNECTION_ERROR: "check the network and model.base_url, then run the job again",
    FailureKind.CONFLICT: "run the job again",
    FailureKind.QUOTA_EXHAUSTED: "add credit with the provider, then run the job again",
    FailureKind.AUTH: "set the right key in the environment, then run the job again",
    FailureKind.PERMISSION: "give the key access to this model, then run the job again",
    FailureKind.NOT_FOUND: "correct model.name or model.base_url, then run the job again",
    FailureKind.INVALID_REQUEST: "correct model.params or answer.schema: the provider does not take them",
    FailureKind.CONTEXT_LENGTH_EXCEEDED: "shorten the prompt, or choose a model with a longer context",
    FailureKind.REQUEST_TOO_LARGE: "shorten the prompt",
    FailureKind.BUDGET: "raise budget.max_usd, then run the job again: answered rows are not asked again",
    FailureKind.ENQUEUED_LIMIT: "set batching.enqueued_tokens to the account's limit, then run the job again",
    FailureKind.EXPIRED: "run the job again, or set batching.retry_failed: real_time",
    FailureKind.CANCELLED: "run the job again, or set batching.retry_failed: real_time",
    FailureKind.MISSING_RESULT: "run the job again, or set batching.retry_failed: real_time",
    FailureKind.BATCH_REJECTED: "see the reason; run the job again with batching.mode: per_request",
    FailureKind.RESULTS_WITHHELD: "add credit with the provider, then run the job again: nothing is lost",
    FailureKind.RESULTS_GONE: "run the job again: the answers are gone there, so they are paid for anew",
}


def advice(kind: str) -> str:
    """Return what to do about a failure kind; for a kind this version does not know, where to look."""
    try:
        return ADVICE[FailureKind(kind)]
    except (KeyError, ValueError):
        return "see the reason in the dead letters"
