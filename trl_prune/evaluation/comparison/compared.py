"""Several models' results beside those of the dense one, on the items that all have."""

from collections.abc import Sequence
from functools import cached_property

from trl_prune.errors import InputError
from trl_prune.evaluation.comparison.alignment import align
from trl_prune.evaluation.comparison.conditions import check_conditions
from trl_prune.evaluation.comparison.flips import EXAMPLES, Flip, flip_examples
from trl_prune.evaluation.comparison.models import Comparison, compare_models
from trl_prune.evaluation.comparison.silent_tasks import silent_tasks
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.evaluation.result_files import ModelResults


class ComparedModels:
    """Models compared with the dense one.

    Attributes:
        dense: the dense model's name.
        pruned: the unrecovered model's name, for the share of the gap that is closed; None without one.
        results: each model's results, the dense model's first.
        scores: by model and task, on the items that all have.
        warnings: what makes a difference that is not the models': other conditions, items that are left out.
    """

    def __init__(
        self,
        results: Sequence[ModelResults],
        dense: str | None = None,
        pruned: str | None = None,
        allow_differences: bool = False,
        seed: int = 0,
    ):
        """Align results.

        Args:
            results: of at least two models with different names.
            dense: the name of the dense one; by default the first.
            pruned: the name of the unrecovered one.
            allow_differences: whether other shots, task versions or prompts are warned of instead of refused.
            seed: of resampling.

        Raises:
            InputError: the results cannot be compared.
        """
        by_name = {one.name: one for one in results}
        self.dense, self.pruned, self.seed = dense or results[0].name, pruned, seed
        for role, name in (("dense", self.dense), ("pruned", pruned)):
            if name is not None and name not in by_name:
                raise InputError(f"{role} is {name!r}, which is none of the results ({', '.join(by_name)})")
        self.results = {self.dense: by_name.pop(self.dense)} | by_name
        if not by_name or len(self.results) < len(results):
            names = ", ".join(one.name for one in results)
            raise InputError(f"results of two or more models with different names are compared, not {names}")
        conditions = check_conditions(list(self.results.values()), allow_differences)
        self.scores, notes = align({name: one.scores for name, one in self.results.items()})
        self.warnings = [*conditions, *notes]

    @cached_property
    def marks(self) -> dict[str, str]:
        """The tasks that say nothing, with the reason."""
        return silent_tasks(self.scores[self.dense], self.scores)

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """Each other model beside the dense one, by name."""
        return {name: self._compare(name, scores) for name, scores in self.scores.items() if name != self.dense}

    def _compare(self, name: str, scores: dict[str, TaskScore]) -> Comparison:
        pruned = None if self.pruned in (None, name) else self.scores[self.pruned]
        return compare_models(scores, self.scores[self.dense], pruned, name=name, marks=self.marks, seed=self.seed)

    def flips(self, name: str, examples: int = EXAMPLES) -> list[Flip]:
        """Return items that a model lost and gained, so many in each direction of each task that says something."""
        texts = {model: self.results[model].texts for model in (name, self.dense)}
        return [
            flip
            for task, dense in self.scores[self.dense].items()
            if task not in self.marks
            for flip in flip_examples(
                self.scores[name][task], dense, texts[name].get(task, {}), texts[self.dense].get(task, {}), examples
            )
        ]
