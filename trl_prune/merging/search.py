"""Search for the share or the weights of a merge with the least loss on texts of a dev split."""

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from trl_prune.errors import InputError
from trl_prune.merging.plan import MergePlan
from trl_prune.merging.recipes import MergeRecipe


# The name of the share in a curve: of the second of two models.
SHARE = "t"
# Decimals of a share that is tried.
DECIMALS = 4
# How near the refinement goes to the best share.
TOLERANCE = 0.01


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        plan: the plan with the least loss.
        record: `over`, what was searched; `curve`, the loss by candidate, the models alone first; `loss`, the least;
            `best_model`, the best model alone and its loss; `kept`, that model where no merge is better, else None.
    """

    plan: MergePlan
    record: dict[str, object]


@dataclass(frozen=True)
class WeightSearch:
    """How t or the weights of a merge are chosen.

    Two models are merged at shares on a grid, then near the best (a bounded scalar minimisation: golden sections and
    parabolas). The weights of more are chosen greedily: from the best model on, each of the others joins with an equal
    weight if the loss falls (the greedy soup of 2203.05482). Each model alone is a candidate.

    Attributes:
        loss: a checkpoint's loss on the dev texts.
        grid: the number of shares of the grid, 0 and 1 among them.
        refine: the number of shares that are tried after the grid at most.
        measured: losses by candidate, in which those of an interrupted search are found.
    """

    loss: Callable[[Path], float]
    grid: int = 5
    refine: int = 4
    measured: MutableMapping[str, float] = field(default_factory=dict)

    def run(self, plan: MergePlan, write: Callable[[MergePlan], Path]) -> SearchResult:
        """Return the plan with the least loss among merges and models alone.

        Args:
            plan: what is merged, with full weights.
            write: merges by a plan and returns the folder, which the next merge replaces.

        Raises:
            InputError: the recipe has neither `t` nor `weight` to search, or a model gives no numbers.
        """
        check_searchable(plan.recipe, len(plan.models), plan.parameters)
        alone = [self._alone(plan, index) for index in range(len(plan.models))]
        best = min(range(len(alone)), key=alone.__getitem__)
        candidates = {}

        def loss(name: str, parameters: Mapping[str, object]) -> float:
            candidates[name] = replace(plan, parameters={**plan.parameters, **parameters})
            if name not in self.measured:
                value = self.loss(write(candidates[name]))
                self.measured[name] = value if math.isfinite(value) else math.inf
            return self.measured[name]

        if len(plan.models) == 2:
            self._shares(alone, lambda share: loss(f"{SHARE}={share:g}", _shared(plan, share)))
        else:
            self._greedy(alone, lambda weights: loss(f"weight={weights}", {"weight": weights}))
        name = min(candidates, key=self.measured.__getitem__)
        kept = self.measured[name] >= alone[best]
        curve = [{"model": str(model), "loss": value} for model, value in zip(plan.models, alone, strict=True)]
        curve += [{"candidate": name, "loss": self.measured[name]} for name in candidates]
        record = {
            "over": plan.searched,
            "curve": curve,
            "loss": alone[best] if kept else self.measured[name],
            "best_model": {"model": str(plan.models[best]), "loss": alone[best]},
            "kept": str(plan.models[best]) if kept else None,
        }
        return SearchResult(model_alone(plan, best) if kept else candidates[name], record)

    def _alone(self, plan: MergePlan, index: int) -> float:
        name = f"model={index + 1}"
        if name not in self.measured:
            value = self.loss(plan.models[index])
            if not math.isfinite(value):
                raise InputError(f"the model {plan.models[index]} is damaged: its loss on the dev texts is {value}")
            self.measured[name] = value
        return self.measured[name]

    def _shares(self, alone: list[float], loss: Callable[[float], float]) -> None:
        """Try shares on a grid, whose ends are the models alone, and then near the best."""
        from scipy.optimize import minimize_scalar

        shares = [index / (self.grid - 1) for index in range(self.grid)]
        losses = [alone[0], *(loss(round(share, DECIMALS)) for share in shares[1:-1]), alone[1]]
        best = losses.index(min(losses))
        bounds = shares[max(best - 1, 0)], shares[min(best + 1, self.grid - 1)]
        if self.refine:
            minimize_scalar(
                lambda share: loss(round(float(share), DECIMALS)),
                bounds=bounds,
                method="bounded",
                options={"maxiter": self.refine, "xatol": TOLERANCE},
            )

    def _greedy(self, alone: list[float], loss: Callable[[list[float]], float]) -> None:
        """Try equal weights for all models, and sets of models that grow by one while the loss falls."""
        count = len(alone)
        loss([1.0] * count)
        order = sorted(range(count), key=alone.__getitem__)
        members, least = [order[0]], alone[order[0]]
        for index in order[1:]:
            weights = [float(other in (*members, index)) for other in range(count)]
            value = loss(weights)
            if value < least:
                members, least = [*members, index], value


def check_searchable(recipe: MergeRecipe, count: int, parameters: Mapping[str, object]) -> None:
    """Check that a recipe has a share or weights to search.

    Args:
        recipe: the merge recipe.
        count: the number of models.
        parameters: those that are given.

    Raises:
        InputError: it has not, or they are given.
    """
    over = recipe.searched(count)
    if over is None:
        raise InputError(
            f"the merge recipe {recipe.name!r} of {count} models has neither a single `t` nor a `weight` to search; "
            "slerp has a t for two models, and linear, multislerp and ties weights for any number"
        )
    if over in parameters:
        raise InputError(f"{over} is given and searched for too; leave one of the two out")


def _shared(plan: MergePlan, share: float) -> dict[str, object]:
    return {"t": share} if plan.searched == "t" else {"weight": [round(1 - share, DECIMALS), share]}


def model_alone(plan: MergePlan, index: int) -> MergePlan:
    """Return the merge that is one of a plan's models alone: by t where that is the recipe's, else by `linear`."""
    if plan.searched == "t":
        return replace(plan, parameters={"t": float(index)})
    weights = [float(other == index) for other in range(len(plan.models))]
    return replace(plan, recipe=MergeRecipe.load("linear"), base=None, parameters={"weight": weights})
