"""What can only be told from the words of an error, for providers that give no code (providers.md 3.6, 4.6, 9).

All functions take text of any case.
"""

_OVERFLOW = (
    "this model's maximum context length is",
    "maximum context length is",
    "exceed context limit",
    "exceeds the available context size",
    "exceeds the maximum number of tokens allowed",
    "input tokens exceed the configured limit",
    "is longer than the model's context length",
    "model's maximum context limit",
    "prompt is too long",
    "context_length_exceeded",
)
#: These look like an overflow and are a wrong field.
_NOT_OVERFLOW = ("string_above_max_length", "invalid 'user'")

_CAPACITY = ("temporarily unable to process", "experiencing high demand", "nocapacity")
_BILLING = (
    "exceeded your current quota",
    "insufficient_quota",
    "insufficient quota",
    "out of call volume quota",
    "credit balance is too low",
    "you have reached your specified api usage limits",
)


def is_context_overflow(text: str) -> bool:
    """Tell whether an error says that prompt and answer do not fit the model's window."""
    text = text.lower()
    if any(phrase in text for phrase in _NOT_OVERFLOW):
        return False
    return any(phrase in text for phrase in _OVERFLOW) or ("maximum input length is" in text and "tokens" in text)


def is_out_of_capacity(text: str) -> bool:
    """Tell whether a 429 means that the provider's pool is full, not the caller's quota (Azure)."""
    text = text.lower()
    return any(phrase in text for phrase in _CAPACITY)


def is_billing_stop(text: str) -> bool:
    """Tell whether an error says that there is no money or no quota left, so that no retry can help."""
    text = text.lower()
    return any(phrase in text for phrase in _BILLING)
