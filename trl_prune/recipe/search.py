"""The `search` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trl_prune.errors import shown
from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.recover import PRUNED, ArmSection
from trl_prune.recipe.section import Count, Section, Share


class BudgetSection(Section):
    """Size of the pruned model: exactly one of `parameters`, `share`, `bytes` and `memory`."""

    other_names: ClassVar[dict[str, str]] = {
        "batch": "batch_size", "context": "max_model_len", "max_length": "max_model_len",
        "num_parameters": "parameters", "params": "parameters",
    }  # fmt: skip

    parameters: Annotated[float, Field(gt=0)] | None = None
    """Number of parameters, within +- `tolerance`."""
    share: Share | None = None
    """Share of the dense model's parameters, within +- `tolerance`."""
    bytes: Annotated[float, Field(gt=0)] | None = None
    """Maximum bytes of the weights on disk; at most `tolerance` below."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """Maximum bytes of weights and KV cache; at most `tolerance` below."""
    batch_size: Count = 1
    """For `memory`: sequences in the KV cache."""
    max_model_len: Count = 4096
    """For `memory`: tokens of each sequence."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Relative distance from the budget that a size may have (2407.14679 allows 5 %)."""

    @model_validator(mode="after")
    def _check_one_budget(self) -> "BudgetSection":
        if sum(value is not None for value in (self.parameters, self.share, self.bytes, self.memory)) != 1:
            raise ValueError("requires exactly one of `parameters`, `share`, `bytes` and `memory`")
        return self


class ShortTraining(ArmSection):
    """How the search trains its candidates: an arm whose number of tokens `rungs` gives."""

    method: Literal["sft", "kd"] = "sft"
    """Supervised fine-tuning, or distillation of the dense model's distribution."""
    data: Literal["references", "text"] = "references"
    """The dataset's own answers, or its rows as text; answers are rewritten after the cut, not before."""

    @model_validator(mode="after")
    def _check_start(self) -> "ShortTraining":
        if self.tokens is not None or self.minutes is not None:
            raise ValueError(
                f"has `{'minutes' if self.tokens is None else 'tokens'}`; the number of tokens is set by `rungs`"
            )
        if self.validation is not None:
            raise ValueError("has `validation`; the search measures its candidates on held-out texts")
        if self.rows is not None or self.sweep is not None:
            raise ValueError("trains on the recipe's dataset: no `rows`, no `sweep`")
        if self.init != PRUNED or self.teacher_cache:
            raise ValueError("starts from its candidate, with the teacher in memory: no `init`, no `teacher_cache`")
        return self


class SearchSection(Section):
    """Which sizes fit a budget, and which of them recovers best; goes with `prune: {by: search}`."""

    other_names: ClassVar[dict[str, str]] = {
        "by": "layers_by", "depth": "layers_by", "num_samples": "samples", "steps": "rungs", "task": "score",
        "tokens": "rungs", "training": "train",
    }  # fmt: skip

    budget: BudgetSection
    """Size of the pruned model."""
    grid: dict[str, list[int | float] | Literal["auto"]] = {}
    """Sizes of each axis to combine, or `auto`; axes left out are not cut. Empty: `auto` for every axis but KV heads.
    `mlp_ratio` gives `intermediate_size` in multiples of `hidden_size`."""
    max_width: Share = 0.4
    """For `auto`: the largest share that an axis other than layers may lose."""
    max_depth: Share = 0.2
    """For `auto`: the largest share of layers that may be removed."""
    layers_by: Literal["angular_distance", "block_influence", "auto", "deepest", "random"] = "angular_distance"
    """How blocks are chosen, as in `prune.by`; other units are ranked as set by `prune.ranking`."""
    score: str = "loss"
    """What ranks candidates: `loss` on held-out texts, or an lm-eval task."""
    samples: Count = 64
    """Number of held-out texts."""
    max_length: Count = 512
    """Maximum length of a held-out text, in tokens."""
    dataset: DatasetSection | None = None
    """Held-out texts; if left out, rows of the recipe's dataset that are excluded from the short trainings."""
    candidates: Count = 10
    """Number of sizes that are trained: those with the best score before training."""
    rungs: list[Count] = [250_000, 500_000, 1_000_000]
    """Cumulative training tokens after which the better half continues; empty to choose without training."""
    train: ShortTraining = ShortTraining()
    """The short training."""

    @model_validator(mode="after")
    def _check_rungs(self) -> "SearchSection":
        if self.rungs != sorted(set(self.rungs)):
            raise ValueError(f"rungs are {shown(self.rungs)}; wanted: growing numbers of tokens")
        return self
