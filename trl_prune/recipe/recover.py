"""One arm of the `recover` section."""

from typing import ClassVar, Literal

from pydantic import Field

from trl_prune.recipe.section import Count, Section


class ArmSection(Section):
    """One way to recover the pruned model."""

    other_names: ClassVar[dict[str, str]] = {
        "dataset": "data", "lora": "peft", "max_tokens": "tokens", "peft_config": "peft", "training_args": "args",
    }  # fmt: skip

    method: Literal["sft", "kd"] = "sft"
    """Supervised fine-tuning on the arm's data, or distillation of the dense model's distribution over it."""
    data: Literal["references", "rewritten", "text"] = "rewritten"
    """The dataset's own answers, those the dense model wrote, or the rows as text with a loss on every token."""
    init: Literal["pruned", "random_units", "random_weights"] = "pruned"
    """Initial weights: the pruned model's; or as baselines, a cut of the same sizes with units drawn at random, or the
    pruned model's shape with freshly initialised weights."""
    teacher_cache: bool | None = None
    """For `kd`: read the teacher from what `cache_teacher` wrote; if left out, where the recipe has that section."""
    tokens: Count | None = None
    """Training budget in tokens without padding, over as many epochs as needed; if left out, `args` decides."""
    args: dict[str, object] = Field(default_factory=dict)
    """Arguments of TRL's SFTConfig, passed through; for `kd`, of KDConfig."""
    peft: dict[str, object] | None = None
    """Arguments of peft's LoraConfig (`target_modules` defaults to `all-linear`), or all weights are trained."""
