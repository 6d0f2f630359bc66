"""The `prune` section."""

import re
from typing import Literal

from pydantic import field_validator, model_validator

from trl_prune.recipe.section import Count, Section, Share


MEASURED = ("perplexity", "kl")


BLOCKS_BY = ("angular_distance", "block_influence", "deepest", "random", *MEASURED, "search")


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
    """How small the pruned model is to be: how many units of each axis stay, or one budget that some axes share."""

    layers: Count | None = None
    """Decoder blocks that stay."""
    hidden_size: Count | None = None
    """Hidden channels that stay."""
    intermediate_size: Count | None = None
    """MLP neurons that stay in every block."""
    num_attention_heads: Count | None = None
    """Query heads that stay in every block, equally many in every KV group."""
    num_key_value_heads: Count | None = None
    """KV groups that stay in every block, with their query heads."""
    num_experts: Count | None = None
    """Experts that stay in every block."""
    parameters: Count | None = None
    """At most so many parameters, tied ones once."""
    share: Share | None = None
    """At most this share of the dense model's parameters."""
    bytes: Count | None = None
    """At most so many bytes of weights on disk."""
    memory: Count | None = None
    """At most so many bytes of weights and KV cache."""
    batch: Count = 1
    """Texts whose KV cache counts, for `memory`."""
    context: Count = 4096
    """Tokens of each, for `memory`."""
    axes: list[Axis] = ["num_hidden_layers"]
    """The axes that a budget is taken from, each cut by about the same share."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Target":
        if len(self.budgets) > 1 or bool(self.budgets) == bool(self.sizes):
            raise ValueError("wants sizes of axes, or exactly one of parameters, share, bytes and memory")
        return self

    @property
    def budgets(self) -> dict[str, float]:
        """The budgets given, by name."""
        told = {name: getattr(self, name) for name in ("parameters", "share", "bytes", "memory")}
        return {name: value for name, value in told.items() if value is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes given, by axis."""
        told = {"num_hidden_layers": self.layers} | {
            axis: getattr(self, axis) for axis in Axis.__args__ if axis != "num_hidden_layers"
        }
        return {axis: size for axis, size in told.items() if size is not None}


class KeepSection(Section):
    """An explicit cut, counted in the dense model; axes left out stay whole."""

    num_hidden_layers: list[int] | None = None
    """The decoder blocks that stay."""
    hidden_size: list[int] | None = None
    """The hidden channels that stay."""
    intermediate_size: list[list[int]] | None = None
    """The MLP neurons that stay, one list for each dense block."""
    num_attention_heads: list[list[int]] | None = None
    """The query heads that stay, one list for each dense block."""
    num_key_value_heads: list[list[int]] | None = None
    """The KV groups that stay, one list for each dense block."""
    num_experts: list[list[int]] | None = None
    """The experts that stay, one list for each dense block."""

    @property
    def plan(self) -> dict[str, list]:
        """The axes that are cut."""
        return self.model_dump(exclude_none=True)


class RankingSection(Section):
    """How units other than blocks are ranked."""

    width_by: Literal["activation", "random"] = "activation"
    """What they carry on the calibration texts, or chance (what a score has to beat)."""
    hidden_by: Literal["norm", "energy"] = "energy"
    """What ranks hidden channels: what norms put out (2407.14679), or the energy of the residual stream."""
    experts_by: Literal["norm", "weighted_norm"] = "norm"
    """What ranks experts: the norm of what they put out, or that times the router's weight."""
    batch: Aggregation = "l2"
    """How importance is aggregated over texts (2407.14679, table 11)."""
    sequence: Aggregation = "mean"
    """How it is aggregated over the tokens of a text, before that."""
    scope: Literal["layer", "network"] = "layer"
    """Whether units are ranked inside each block, or by their sum over all blocks (2407.14679, section 2.2)."""


class PruneSection(Section):
    """The cut: `target` with a way to choose, or `keep`."""

    by: str = "angular_distance"
    """How blocks are chosen: from the scores by `angular_distance` (a contiguous run, 2410.09982), `block_influence`
    (2407.14679), `deepest` (the last one stays) or `random`; by the effect of removal on `perplexity`, on `kl` to the
    dense model or on an lm-eval task, `task:NAME`; or `search`, what the search found."""
    how: Literal["greedy", "single", "contiguous"] = "greedy"
    """With a measured effect: remove one block after the other, rank all at once, or try every contiguous run."""
    target: Target | None = None
    """The size wanted."""
    keep: KeepSection | None = None
    """The units that stay, chosen by hand."""
    ranking: RankingSection = RankingSection()
    """How heads, neurons, channels and experts are ranked."""
    rounds: Count = 1
    """Cut in so many steps, scoring anew before each (2407.14679, section 2.2: one is enough)."""
    round_sizes: bool = True
    """Whether a budget's sizes are rounded to multiples that hardware likes."""
    repairs: dict[str, dict[str, object]] | Literal["auto"] = "auto"
    """Closed-form changes to the weights that stay, by name to options; `auto`: those that won in our measurements."""
    check_logits: bool = False
    """Whether to run the pruned model once, and where only blocks went beside the dense one without them."""

    @field_validator("by")
    @classmethod
    def _known(cls, by: str) -> str:
        if by not in BLOCKS_BY and not re.fullmatch(r"task:\S+", by):
            raise ValueError(f"is {by!r}; wanted: {', '.join(map(repr, BLOCKS_BY))} or 'task:NAME'")
        return by

    @model_validator(mode="after")
    def _one_of(self) -> "PruneSection":
        if self.by == "search" and (self.target, self.keep) != (None, None):
            raise ValueError("by search wants neither `target` nor `keep`: the search's budget says how small")
        if self.by != "search" and (self.target is None) == (self.keep is None):
            raise ValueError("wants exactly one of `target` and `keep`")
        return self

    @model_validator(mode="after")
    def _rounds_score(self) -> "PruneSection":
        if self.rounds > 1 and (self.measured or self.target is None):
            raise ValueError("has `rounds`, which want a `target` and blocks chosen by the scores")
        return self

    @property
    def measured(self) -> bool:
        """Whether blocks are chosen by the effect of removing them."""
        return self.by in MEASURED or self.by.startswith("task:")

    @property
    def needs_scores(self) -> bool:
        """Whether the cut is chosen by the score stage's scores."""
        if self.repairs != "auto" and "head_merge" in self.repairs:
            return True
        if self.keep is not None or self.by == "search":
            return False
        axes = self.target.axes if self.target.budgets else self.target.sizes
        return not self.measured or set(axes) != {"num_hidden_layers"}
