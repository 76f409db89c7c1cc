"""A rough count of tokens, for plans and rate limits before the provider has counted."""

from transforms.records.request import Prompt

# What chat formats add around each turn and at the end, in tokens.
_TURN_TOKENS = 4


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a model's tokenizer makes of `text`.

    Method: one token per four ASCII characters and one per three UTF-8 bytes of everything else (so one for a
    Chinese, Japanese or Korean character, two for three letters of Cyrillic, Greek or Arabic), rounded up.

    Args:
        text: any text.

    Returns:
        0 for the empty text, else at least 1. Error, against the 49,000-word byte-pair tokenizer of SmolLM2 on product
        reviews: 200 paragraphs of eight sentences all within 25 %; of 600 single sentences 9 in 10 within 35 %, the
        worst three times too low. One sample each, so a hint only: code and Markdown within 5 %; too low by a third
        for German, Russian and JSON, by half for Chinese, Japanese and emoji (larger vocabularies need fewer tokens
        there), four times too low for long digits.
    """
    if text.isascii():
        return (len(text) + 3) // 4
    ascii_chars = len(text.encode("ascii", "ignore"))
    other_bytes = len(text.encode("utf-8", "surrogatepass")) - ascii_chars
    return (3 * ascii_chars + 4 * other_bytes + 11) // 12


def prompt_tokens(prompt: Prompt) -> int:
    """Estimate the input tokens of a prompt: its texts by `estimate_tokens`, and a few for each turn's frame."""
    texts = [text for _, text in prompt.turns]
    if prompt.system is not None:
        texts.append(prompt.system)
    return sum(estimate_tokens(text) + _TURN_TOKENS for text in texts)
