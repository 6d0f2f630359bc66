"""Tasks that say nothing about a loss: the dense model guesses, or no model fails."""

from collections.abc import Mapping

from trl_prune.evaluation.recovery import Scores, TaskScore


# A score up to so many standard errors above chance may be a guesser's.
CHANCE_ERRORS = 2.0
# A score from here on leaves nothing to be told.
CEILING = 0.98
AT_CHANCE, AT_CEILING = "at chance", "at the ceiling"


def silent_tasks(dense: Scores, others: Mapping[str, Scores]) -> dict[str, str]:
    """Return the tasks that say nothing, with the reason.

    The dense model is at chance if its score is at most two standard errors above the score of guessing: then there is
    nothing to lose. A task is at the ceiling if every model scores at least 0.98; where only the dense one does, the
    others' loss says much.
    """
    marks = {}
    for task, score in dense.items():
        if _is_at_chance(score):
            marks[task] = AT_CHANCE
        elif all(_is_at_ceiling(one) for one in [score, *(scores[task] for scores in others.values())]):
            marks[task] = AT_CEILING
    return marks


def _is_at_chance(score: TaskScore) -> bool:
    if score.chance is None or score.kind == "likelihood":
        return False
    stderr = score.stderr if len(score.items) > 1 else 1.0
    return score.mean <= score.chance + CHANCE_ERRORS * stderr


def _is_at_ceiling(score: TaskScore) -> bool:
    return score.kind != "likelihood" and score.mean >= CEILING
