"""Answers that changed between right and wrong; a score hides those that changed in opposite directions."""

from collections.abc import Mapping
from dataclasses import dataclass

from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import ItemText


# Examples in each direction, and characters of each text.
EXAMPLES, CHARACTERS = 3, 240


@dataclass(frozen=True)
class Flip:
    """An item that one model has right and the other wrong.

    Attributes:
        task: the task.
        direction: `lost`, which the dense model had right, or `gained`.
        question: the end of the prompt.
        target: the right answer, as the task has it.
        dense: the dense model's answer.
        model: the model's.
    """

    task: str
    direction: str
    question: str
    target: str
    dense: str
    model: str


def is_binary(score: TaskScore) -> bool:
    """Return whether every item is right or wrong."""
    return score.metric != "perplexity" and score.weights is None and set(score.items) <= {0.0, 1.0}


def flipped(model: TaskScore, dense: TaskScore) -> dict[str, list[int]]:
    """Return the positions of items that the model `lost` and `gained`; both scores are right or wrong."""
    pairs = list(enumerate(zip(dense.items, model.items, strict=True)))
    return {
        "lost": [position for position, pair in pairs if pair == (1.0, 0.0)],
        "gained": [position for position, pair in pairs if pair == (0.0, 1.0)],
    }


def flip_examples(
    model: TaskScore,
    dense: TaskScore,
    model_texts: Mapping[str, ItemText],
    dense_texts: Mapping[str, ItemText],
    examples: int = EXAMPLES,
) -> list[Flip]:
    """Return the first items that a model lost and gained, with both answers.

    Args:
        model: the model's score on a task.
        dense: the dense model's, on the same items.
        model_texts: by key of the item (`doc_hashes`).
        dense_texts: by key of the item.
        examples: how many in each direction.
    """
    if not (is_binary(model) and is_binary(dense) and dense.doc_hashes and dense_texts):
        return []
    found = []
    for direction, positions in flipped(model, dense).items():
        for key in [dense.doc_hashes[position] for position in positions[:examples]]:
            one, other = dense_texts[key], model_texts[key]
            texts = (one.question[-CHARACTERS:], one.target[:CHARACTERS], one.answer[:CHARACTERS])
            found.append(Flip(dense.task, direction, *texts, other.answer[:CHARACTERS]))
    return found
