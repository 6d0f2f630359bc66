"""A small instruction data set for recovery training, generated without any download."""

import random
from collections.abc import Callable

from trl_prune.data.starter.draft import Draft
from trl_prune.data.starter.knowledge import commonsense, facts, short_explanation
from trl_prune.data.starter.numbers import arithmetic_word_problems, unit_conversion
from trl_prune.data.starter.reading import extraction, ordering
from trl_prune.data.starter.sentences import classification, grammar, rewriting


CAPABILITIES: dict[str, Callable[[random.Random], list[Draft]]] = {
    "arithmetic_word_problems": arithmetic_word_problems,
    "facts": facts,
    "commonsense": commonsense,
    "grammar": grammar,
    "rewriting": rewriting,
    "extraction": extraction,
    "ordering": ordering,
    "short_explanation": short_explanation,
    "classification": classification,
    "unit_conversion": unit_conversion,
}


def starter_rows(seed: int = 0) -> list[dict[str, object]]:
    """Return the instruction rows, mixed so that every stretch of 100 rows covers all capabilities.

    Args:
        seed: start of the random choices; the same seed always gives the same rows in the same order.

    Returns:
        Rows with the columns prompt, completion, capability, answer_type and answer.
    """
    rng = random.Random(seed)
    placed: list[tuple[float, dict[str, object]]] = []
    for capability, generate in CAPABILITIES.items():
        drafts = generate(rng)
        rng.shuffle(drafts)
        # Each capability is spread evenly over the unit interval, with some noise inside its own slots.
        for index, draft in enumerate(drafts):
            placed.append(((index + rng.random()) / len(drafts), _row(capability, draft)))
    return [row for _, row in sorted(placed, key=lambda entry: entry[0])]


def _row(capability: str, draft: Draft) -> dict[str, object]:
    return {
        "prompt": [{"role": "user", "content": draft.prompt}],
        "completion": [{"role": "assistant", "content": draft.completion}],
        "capability": capability,
        "answer_type": draft.answer_type,
        "answer": draft.answer,
    }
