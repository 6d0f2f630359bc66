"""The `evaluate` section."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from trl_prune.recipe.dataset import DatasetSection
from trl_prune.recipe.section import Count, Section


class FidelitySection(Section):
    """The dense model's own answers, against which the other models are held."""

    other_names: ClassVar[dict[str, str]] = {
        "limit": "rows", "max_gen_toks": "max_new_tokens", "max_tokens": "max_new_tokens", "prompts": "dataset",
        "samples": "rows",
    }  # fmt: skip

    dataset: DatasetSection
    """Rows whose prompts are asked; a column `answer` with the right final answers shows which of them are lost."""
    rows: Count = 64
    """Number of prompts, drawn with the recipe's seed."""
    max_new_tokens: Count = 64
    """Tokens of an answer, at most."""


class EvaluateSection(Section):
    """Evaluation with lm-eval."""

    other_names: ClassVar[dict[str, str]] = {
        "chat_template": "apply_chat_template", "dataset": "held_out", "eval_dataset": "held_out",
        "forgetting": "held_out", "items": "limit", "num_samples": "limit", "samples": "limit", "task": "tasks",
        "unsafe_code": "confirm_run_unsafe_code", "validation": "held_out",
    }  # fmt: skip
    optional: ClassVar[tuple[str, ...]] = ("fidelity", "held_out")

    tasks: list[str] = ["recovery_probes"]
    """Tasks or groups: those shipped here, lm-eval's, or those in `include_path`; without any nothing is evaluated."""
    models: list[str] | None = None
    """Models to evaluate: `dense` (the reference, required), `pruned`, arms and merges; all if left out."""
    include_path: list[str] = []
    """Folders with your own lm-eval task YAML."""
    confirm_run_unsafe_code: bool = False
    """Whether tasks may run code that a model writes, on this machine."""
    apply_chat_template: bool | Literal["auto"] = "auto"
    """Whether prompts use the chat template, the same for all models; `auto`: if the dense tokenizer has one."""
    limit: Count | None = None
    """Number of items of each task, drawn with the recipe's seed; all if left out."""
    batch_size: Count = 16
    """Requests per batch."""
    held_out: DatasetSection | None = None
    """Texts that no arm trains on, up to 1,024 tokens of each: on them models are compared with the dense one."""
    fidelity: FidelitySection | None = None
    """Answers of the dense model, sampled and greedy: how likely the other models find them, by lm-eval's tasks."""
    speed_seconds: Annotated[float, Field(ge=0)] = 60
    """About how long the pruned model is timed against the dense one, in turn; 0 leaves it out."""
    questions: list[str] = [
        "Why does ice float on water?",
        "Give me two tips for sleeping better.",
        "What is 12 plus 30, and how do you know?",
    ]
    """Open questions; the report shows the answers of all models side by side."""

    @model_validator(mode="after")
    def _check_tasks(self) -> "EvaluateSection":
        if not self.tasks and (self.held_out or self.fidelity):
            raise ValueError(
                "has no `tasks`, without which nothing is evaluated; name one at least, such as recovery_probes"
            )
        return self
