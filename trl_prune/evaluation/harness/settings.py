"""What is evaluated, and how."""

from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.evaluation.harness.answers import Answers


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation, the same for all models.

    Attributes:
        batch_size: requests per batch.
        apply_chat_template: whether prompts go through the tokenizer's chat template.
        limit: how many items of each subtask are drawn, with the seed; None for all.
        seed: of that draw, and of sampled answers.
        chat_template_kwargs: variables of the chat template.
        think_end_token: id or text that ends a reasoning model's thoughts, which are cut from generated answers; None
            cuts nothing.
        confirm_run_unsafe_code: whether tasks may run code that the model writes.
    """

    batch_size: int = 16
    apply_chat_template: bool = False
    limit: int | None = None
    seed: int = 0
    chat_template_kwargs: dict[str, object] = field(default_factory=dict)
    think_end_token: int | str | None = None
    confirm_run_unsafe_code: bool = False


@dataclass(frozen=True)
class EvaluatedModel:
    """A model to evaluate.

    Attributes:
        name: what errors and results call it.
        load: returns the model, in eval mode; called at most once, and only if an answer is missing.
        tokenizer: its tokenizer.
        answers: what it has answered before, as it is loaded and with these settings' `think_end_token`.
    """

    name: str
    load: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    answers: Answers = field(default_factory=Answers)
