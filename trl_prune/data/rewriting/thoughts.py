"""Thoughts of reasoning models, which are no part of an answer."""

# The tags of Qwen3, DeepSeek-R1 and others.
OPENING, CLOSING = "<think>", "</think>"


def answer_after_thoughts(text: str) -> str | None:
    """Return the text after the last thought, or None if a thought is not finished.

    A chat template may write the opening tag into the prompt, so a closing tag alone ends a thought too.
    """
    _, closing, answer = text.rpartition(CLOSING)
    if OPENING in answer:
        return None
    return answer.lstrip() if closing else text
