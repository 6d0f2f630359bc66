"""Thoughts of reasoning models, which are no part of an answer."""

from transformers import PreTrainedTokenizerBase


# The tags around a thought: of Qwen3, DeepSeek-R1 and others, of Magistral, and of Seed-OSS.
TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
# Tokens at the end of a prompt that hold the opening tag of a thought, if there is one.
TAG_TOKENS = 16


def opened_thought(prompt: str) -> str:
    """Return the opening tag that a prompt ends in, empty if it ends in none: some chat templates write it."""
    return next((opening for opening, _ in TAGS if prompt.rstrip().endswith(opening)), "")


def thought_opened_by(tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int]) -> str:
    """Return the opening tag that a tokenised prompt ends in, empty if it ends in none."""
    return opened_thought(tokenizer.decode(prompt_ids[-TAG_TOKENS:]))


def answer_after_thoughts(text: str) -> str | None:
    """Return the text after the thought that it starts with, the whole text without one, None if it does not end."""
    for opening, closing in TAGS:
        if text.lstrip().startswith(opening):
            _, closed, answer = text.partition(closing)
            return answer_after_thoughts(answer.lstrip()) if closed else None
    return text
