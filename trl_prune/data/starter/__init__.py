"""A small instruction dataset for recovery training, generated without any download."""

import random
from collections.abc import Callable

from trl_prune.data.starter.extraction import extraction
from trl_prune.data.starter.knowledge import commonsense, facts, short_explanation
from trl_prune.data.starter.ordering import ordering
from trl_prune.data.starter.row import StarterRow
from trl_prune.data.starter.sentences import classification, grammar, rewriting
from trl_prune.data.starter.unit_conversion import unit_conversion
from trl_prune.data.starter.word_problems import arithmetic_word_problems


CAPABILITIES: dict[str, Callable[[random.Random], list[StarterRow]]] = {
    "arithmetic": arithmetic_word_problems,
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
    """Return the instruction rows, mixed so that every 100 consecutive rows cover all capabilities.

    Args:
        seed: seed of the random choices; the same seed always gives the same rows in the same order.

    Returns:
        Rows with the columns prompt, completion, capability, answer_type and answer.
    """
    rng = random.Random(seed)
    positioned: list[tuple[float, dict[str, object]]] = []
    for generate in CAPABILITIES.values():
        rows = generate(rng)
        rng.shuffle(rows)
        # Each capability is spread evenly over the unit interval, with a random offset within each of its shares.
        positioned.extend(((index + rng.random()) / len(rows), row.conversational()) for index, row in enumerate(rows))
    return [row for _, row in sorted(positioned, key=lambda entry: entry[0])]
