"""The `prune` section."""

import re
from typing import ClassVar, Literal

from pydantic import field_validator, model_validator

from trl_prune.errors import shown
from trl_prune.recipe.section import Count, Section, Share


MEASURED = ("perplexity", "kl", "agreement")
# Strategies with options of their own.
BEAM, EVOLUTIONARY = "beam", "evolutionary"
BLOCKS_BY = ("angular_distance", "block_influence", "auto", "deepest", "random", *MEASURED, "search")
Axis = Literal[
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_experts",
]
Aggregation = Literal["mean", "l2", "var"]


class Target(Section):
    """Size of the pruned model: how many units of each axis are kept, or one budget for some axes."""

    other_names: ClassVar[dict[str, str]] = {
        "batch": "batch_size", "context": "max_model_len", "heads": "num_attention_heads",
        "max_length": "max_model_len", "n_layers": "layers", "num_hidden_layers": "layers", "num_layers": "layers",
        "num_parameters": "parameters", "params": "parameters",
    }  # fmt: skip

    layers: Count | None = None
    """Decoder blocks to keep."""
    hidden_size: Count | None = None
    """Hidden channels to keep."""
    intermediate_size: Count | None = None
    """MLP neurons to keep in every block."""
    num_attention_heads: Count | None = None
    """Query heads to keep in every block, equally many in every KV group."""
    num_key_value_heads: Count | None = None
    """KV groups to keep in every block, with their query heads."""
    num_experts: Count | None = None
    """Experts to keep in every block."""
    parameters: Count | None = None
    """Maximum number of parameters, tied ones counted once."""
    share: Share | None = None
    """Maximum share of the dense model's parameters."""
    bytes: Count | None = None
    """Maximum bytes of the weights on disk."""
    memory: Count | None = None
    """Maximum bytes of weights and KV cache."""
    batch_size: Count = 1
    """For `memory`: sequences in the KV cache."""
    max_model_len: Count = 4096
    """For `memory`: tokens of each sequence."""
    axes: list[Axis] = ["num_hidden_layers"]
    """For a budget: the axes to cut, each by about the same share."""

    @model_validator(mode="after")
    def _check_one_kind(self) -> "Target":
        if len(self.budgets) > 1 or bool(self.budgets) == bool(self.sizes):
            raise ValueError("requires sizes of axes, or exactly one of parameters, share, bytes and memory")
        return self

    @property
    def budgets(self) -> dict[str, float]:
        """The given budgets, by name."""
        budgets = {name: getattr(self, name) for name in ("parameters", "share", "bytes", "memory")}
        return {name: value for name, value in budgets.items() if value is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """The given sizes, by axis."""
        sizes = {axis: getattr(self, "layers" if axis == "num_hidden_layers" else axis) for axis in Axis.__args__}
        return {axis: size for axis, size in sizes.items() if size is not None}


class KeepSection(Section):
    """An explicit cut: indices of the units to keep, counted in the dense model; axes left out are not cut."""

    other_names: ClassVar[dict[str, str]] = {"layers": "num_hidden_layers"}

    num_hidden_layers: list[int] | None = None
    """Decoder blocks to keep."""
    hidden_size: list[int] | None = None
    """Hidden channels to keep."""
    intermediate_size: list[list[int]] | None = None
    """MLP neurons to keep, one list for each dense block."""
    num_attention_heads: list[list[int]] | None = None
    """Query heads to keep, one list for each dense block."""
    num_key_value_heads: list[list[int]] | None = None
    """KV groups to keep, one list for each dense block."""
    num_experts: list[list[int]] | None = None
    """Experts to keep, one list for each dense block."""

    @property
    def plan(self) -> dict[str, list]:
        """The indices to keep, by cut axis."""
        return self.model_dump(exclude_none=True)


class RankingSection(Section):
    """How units other than blocks are ranked."""

    width_by: Literal["activation", "random"] = "activation"
    """By their activations on the calibration texts, or at random (a baseline)."""
    hidden_by: Literal["norm", "energy"] = "energy"
    """Hidden channels: by the outputs of the norms (2407.14679), or by the energy of the residual stream."""
    experts_by: Literal["norm", "reap", "frequency", "output"] = "norm"
    """Experts: by the mean norm of their outputs over the tokens routed to them, that norm times the router's weight
    (`reap`, 2510.13999), the number of these tokens, or the change of the mixture's output without them."""
    batch: Aggregation = "l2"
    """Aggregation of importance over texts (2407.14679, table 11)."""
    sequence: Aggregation = "mean"
    """Aggregation over the tokens of a text, which comes first."""
    scope: Literal["layer", "network"] = "layer"
    """Whether units are ranked within each block, or by their sum over all blocks (2407.14679, section 2.2)."""


class PruneSection(Section):
    """The cut: `target` and how to choose units, or `keep`."""

    other_names: ClassVar[dict[str, str]] = {
        "how": "strategy", "layers": "target.layers", "layers_by": "by", "method": "by",
        "num_hidden_layers": "target.layers", "parameters": "target.parameters", "share": "target.share",
    }  # fmt: skip

    optional: ClassVar[tuple[str, ...]] = ("as_repaired", "beam_width", "generations", "texts")

    by: str = "angular_distance"
    """How blocks are chosen: from the scores by `angular_distance` (a contiguous run, 2410.09982), `block_influence`
    (2407.14679), `auto` (the former up to a fifth of the blocks, the latter beyond), `deepest` (the last block is
    kept) or `random`; by the effect of removing them on `perplexity`, on `kl` to the dense model, on the share of
    greedy tokens that stay the dense model's, `agreement`, or on an lm-eval task, `task:NAME`; or `search`, the
    result of the search."""
    strategy: Literal["greedy", "single", "contiguous", "beam", "swap", "evolutionary"] = "greedy"
    """For a measured effect: remove one block after the other, rank all at once, or try every contiguous run; keep
    several choices while they grow, swap blocks of the greedy choice while that helps, or mutate a choice."""
    beam_width: Count | None = None
    """For `strategy: beam`: how many choices are kept, 4 if left out."""
    generations: Count | None = None
    """For `strategy: evolutionary`: how many, if left out as many as measure about what `greedy` does."""
    texts: Count | None = None
    """For an effect on the calibration texts: on how many of them, in whole batches, all if left out. A search needs
    few; repairs are fitted on all."""
    as_repaired: Literal[True, False, "auto"] = False
    """Whether a measured effect is that with linear maps in the place of what a choice removes; for models and
    `repairs` with a `linear_map`. `auto`: where there is one, with texts enough to fit it and states of 32
    GiB at most."""
    target: Target | None = None
    """Size of the pruned model."""
    keep: KeepSection | None = None
    """Explicit indices of the units to keep."""
    ranking: RankingSection = RankingSection()
    """How heads, neurons, channels and experts are ranked."""
    rounds: Count = 1
    """Number of cuts, with new scores before each (2407.14679, section 2.2: one is enough)."""
    round_sizes: bool = True
    """Whether a budget's sizes are rounded to multiples that suit the hardware."""
    repairs: dict[str, dict[str, object]] | Literal["auto"] = "auto"
    """Closed-form changes to kept weights, by name to options; `auto`: those that were best on held-out text."""
    unproven: bool = False
    """Whether a model type without a row (`trl-prune models`) gets one, derived and proven on a tiny model now."""
    text_only: bool = False
    """Whether the pruned model of a multimodal checkpoint is its text tower alone, as an ordinary causal LM."""
    check_logits: bool = False
    """Whether to run the pruned model once and, if only blocks were removed, compare it with the dense model."""

    @field_validator("by")
    @classmethod
    def _check_by(cls, by: str) -> str:
        if by not in BLOCKS_BY and not re.fullmatch(r"task:\S+", by):
            raise ValueError(f"is {shown(by)}; wanted: {', '.join(map(repr, BLOCKS_BY))} or 'task:NAME'")
        return by

    @model_validator(mode="after")
    def _check_target_or_keep(self) -> "PruneSection":
        if self.by == "search" and (self.target, self.keep) != (None, None):
            raise ValueError("by search accepts neither `target` nor `keep`: the search's budget sets the size")
        if self.by != "search" and (self.target is None) == (self.keep is None):
            raise ValueError("requires exactly one of `target` and `keep`")
        return self

    @model_validator(mode="after")
    def _check_strategy(self) -> "PruneSection":
        if self.strategy != "greedy" and not self.measured:
            measured = ", ".join(MEASURED)
            raise ValueError(
                f"has `strategy: {self.strategy}`, which is for blocks chosen by a measured effect ({measured} or "
                f"task:NAME), and `by: {self.by}`"
            )
        if self.as_repaired and not self.measured:
            raise ValueError(
                f"has `as_repaired`, which is for blocks chosen by a measured effect ({', '.join(MEASURED)} or "
                f"task:NAME), and `by: {self.by}`"
            )
        if self.texts is not None and self.by not in MEASURED:
            raise ValueError(
                f"has `texts`, which is for effects on texts ({', '.join(MEASURED)}), and `by: {self.by}`"
            )
        for option, strategy in (("beam_width", BEAM), ("generations", EVOLUTIONARY)):
            if getattr(self, option) is not None and self.strategy != strategy:
                raise ValueError(f"has `{option}`, which is for `strategy: {strategy}`, and `{self.strategy}`")
        return self

    @model_validator(mode="after")
    def _check_rounds(self) -> "PruneSection":
        if self.rounds > 1 and (self.measured or self.target is None):
            raise ValueError("has `rounds`, which require a `target` and blocks chosen by the scores")
        return self

    @property
    def measured(self) -> bool:
        """Whether blocks are chosen by the effect of removing them."""
        return self.by in MEASURED or self.by.startswith("task:")

    @property
    def axes(self) -> set[str]:
        """The axes that are cut; those of a search are not known before it."""
        if self.keep is not None:
            return {axis for axis, units in self.keep if units is not None}
        if self.target is None:
            return set()
        return set(self.target.axes if self.target.budgets else self.target.sizes)

    @property
    def needs_scores(self) -> bool:
        """Whether the cut needs the scores of the score stage."""
        if self.repairs != "auto" and "head_merge" in self.repairs:
            return True
        if self.keep is not None or self.by == "search":
            return False
        return not self.measured or self.axes != {"num_hidden_layers"}
