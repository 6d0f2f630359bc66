"""The `rewrite` section as plain arguments."""

from collections.abc import Mapping

from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.rewriting.acceptance import Accepting
from trl_prune.data.rewriting.answer_types import AUTO, all_answer_types, check_answer_type
from trl_prune.data.rewriting.requests import Asking
from trl_prune.data.rewriting.rewrite import RewriteSettings
from trl_prune.recipe import RewriteSection


def rewrite_settings(
    section: RewriteSection,
    seed: int,
    max_model_len: int | None,
    dataset_name: str | None,
    chat_template_kwargs: Mapping[str, object],
) -> RewriteSettings:
    """Return the settings of rewriting.

    Args:
        section: the section.
        seed: the recipe's seed.
        max_model_len: the dense model's longest context in tokens; None for no limit.
        dataset_name: the dataset's path or hub id, by which an answer type may be chosen.
        chat_template_kwargs: variables of the chat template.

    Raises:
        InputError: an unknown or invalid answer type.
    """
    types = all_answer_types(section.answer_types, "rewrite.answer_types")
    check_answer_type(section.answer_type, [AUTO, *types], "rewrite.answer_type")
    return RewriteSettings(
        Sampling(section.max_new_tokens, section.batch_size, section.temperature, seed),
        section.samples,
        Asking(section.answer_type, types, dataset_name, section.response_template, chat_template_kwargs),
        Accepting(section.thoughts, section.run_tests),
        max_model_len,
        section.train_prompts,
    )
