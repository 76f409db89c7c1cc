"""The one re-ask of an answer that is not what the job asked for."""

from transforms.records.request import Prompt

MAX_ANSWER_CHARS = 20_000
_CUT = "\n[the rest is left out]"


def repair_prompt(prompt: Prompt, answer_text: str, error: str) -> Prompt:
    """Return the conversation continued: the model's own answer, then what is wrong with it.

    Args:
        prompt: the conversation that led to the answer.
        answer_text: the answer as the model gave it; what exceeds MAX_ANSWER_CHARS is left out, visibly.
        error: the sentence of the AnswerError.

    Returns:
        A prompt of the same system part and two more turns; equal arguments give an equal prompt, so a repair has
        a request id of its own and is never paid twice.
    """
    shown = answer_text if len(answer_text) <= MAX_ANSWER_CHARS else answer_text[:MAX_ANSWER_CHARS] + _CUT
    demand = (
        f"Your answer can't be used: {error}.\n"
        "Reply with only the corrected JSON: no explanation, no code fence, nothing before or after it."
    )
    # Providers refuse an empty assistant turn.
    return Prompt(
        prompt.system, (*prompt.turns, ("assistant", shown if shown.strip() else "(empty)"), ("user", demand))
    )
