"""The `search` section."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.recover import ArmSection
from trl_prune.recipe.section import Count, Section, Share


class BudgetSection(Section):
    """How large the pruned model may be: exactly one of `parameters`, `share`, `bytes` and `memory`."""

    parameters: Annotated[float, Field(gt=0)] | None = None
    """So many parameters, give or take `tolerance`."""
    share: Share | None = None
    """So much of the dense model's parameters, give or take `tolerance`."""
    bytes: Annotated[float, Field(gt=0)] | None = None
    """At most so many bytes of weights on disk, and less by `tolerance` at most."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """At most so many bytes of weights and KV cache, and less by `tolerance` at most."""
    batch: Count = 1
    """For `memory`: texts at a time."""
    context: Count = 4096
    """For `memory`: tokens of each text."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """How far from the budget a size may be (2407.14679 allows 5 %)."""

    @model_validator(mode="after")
    def _one_of(self) -> "BudgetSection":
        if sum(value is not None for value in (self.parameters, self.share, self.bytes, self.memory)) != 1:
            raise ValueError("wants exactly one of `parameters`, `share`, `bytes` and `memory`")
        return self


class ShortTraining(ArmSection):
    """How the search trains its candidates: an arm whose tokens the rungs say."""

    data: Literal["references", "text"] = "references"
    """The dataset's own answers, or its rows as text; answers are rewritten after the cut, not before."""

    @model_validator(mode="after")
    def _starts_from_its_candidate(self) -> "ShortTraining":
        if self.tokens is not None:
            raise ValueError("says `tokens`, which `rungs` are for")
        if self.init != "pruned" or self.teacher_cache:
            raise ValueError("starts from its candidate, with the teacher along: no `init`, no `teacher_cache`")
        return self


class SearchSection(Section):
    """Which sizes fit a budget, and which of them recovers best: the prune section then says `by: search`."""

    budget: BudgetSection
    """How large the pruned model may be."""
    grid: dict[str, list[int | float] | Literal["auto"]] = {}
    """The sizes of each axis to combine, or `auto`; axes left out stay whole. Empty: every axis but KV heads, `auto`.
    `mlp_ratio` may stand for `intermediate_size` in multiples of `hidden_size`."""
    max_width: Share = 0.4
    """For `auto`: the largest share of an axis other than layers that may go."""
    max_depth: Share = 0.2
    """For `auto`: the largest share of the layers that may go."""
    depth: Literal["angular_distance", "block_influence", "deepest", "random"] = "angular_distance"
    """How blocks are chosen, as in `prune.by`; other units are ranked as the prune section says."""
    score: str = "loss"
    """What ranks: `loss` on held-out texts, or an lm-eval task."""
    samples: Count = 64
    """Held-out texts."""
    max_length: Count = 512
    """Longest held-out text, in tokens."""
    dataset: DatasetSection | None = None
    """Held-out texts; where left out, rows of the recipe's dataset that the short trainings then do without."""
    candidates: Count = 10
    """How many sizes are trained at all: those with the best score before any training."""
    rungs: list[Count] = [250_000, 500_000, 1_000_000]
    """Tokens after which the better half goes on, counted from the start; none for a choice without training."""
    train: ShortTraining = ShortTraining()
    """The short training."""

    @model_validator(mode="after")
    def _rungs_grow(self) -> "SearchSection":
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs are {self.rungs}; wanted: growing numbers of tokens")
        return self
