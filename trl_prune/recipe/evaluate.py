"""The `evaluate` section."""

from typing import Literal

from trl_prune.recipe.section import Count, Section


class EvaluateSection(Section):
    """Measurement with lm-eval."""

    tasks: list[str] = ["recovery_probes"]
    """Tasks or groups: ours, lm-eval's, or those in `include_path`."""
    models: list[str] | None = None
    """`dense`, against which the others are held, `pruned` and arms of `recover`; all where left out."""
    include_path: list[str] = []
    """Folders with lm-eval task YAML of your own."""
    apply_chat_template: bool | Literal["auto"] = "auto"
    """Whether prompts go through the chat template, for all models alike; `auto`: when the dense tokenizer has one."""
    items: Count | None = None
    """Items of each task, drawn with the recipe's seed; all where left out."""
    batch_size: Count = 16
    """Requests at a time."""
    questions: list[str] = [
        "Why does ice float on water?",
        "Give me two tips for sleeping better.",
        "What is 12 plus 30, and how do you know?",
    ]
    """Open questions whose answers the report shows side by side."""
