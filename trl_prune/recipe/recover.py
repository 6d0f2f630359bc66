"""One arm of the `recover` section."""

from typing import Literal

from pydantic import Field

from trl_prune.recipe.section import Count, Section


class ArmSection(Section):
    """One way to recover."""

    method: Literal["sft", "kd"] = "sft"
    """How: supervised fine-tuning on the arm's data, or distillation of the dense model's distribution over it."""
    data: Literal["references", "rewritten", "text"] = "rewritten"
    """The dataset's own answers, those the dense model wrote, or the dataset's rows as text, every token learned."""
    init: Literal["pruned", "random_units", "random_weights"] = "pruned"
    """Where training starts; the others are baselines: as many blocks drawn blindly, or the same shape untrained."""
    teacher_cache: bool | None = None
    """`kd`: read the teacher from what `cache_teacher` wrote; where left out, if the recipe has that section."""
    tokens: Count | None = None
    """Training budget in tokens, padding not counted, over as many epochs as it takes; else `args` decides."""
    args: dict[str, object] = Field(default_factory=dict)
    """TRL's SFTConfig arguments, untouched; for `kd` KDConfig's too."""
    peft: dict[str, object] | None = None
    """peft's LoraConfig arguments (`target_modules` defaults to `all-linear`); else all weights are trained."""
