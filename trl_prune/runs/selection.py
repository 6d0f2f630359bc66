"""The `select` section as plain arguments."""

from collections.abc import Mapping

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.data.formats import FORMATS, format_of
from trl_prune.data.selection.choosing import Choosing
from trl_prune.data.selection.embedding import Embedder, HiddenStateEmbedder, SentenceEmbedder
from trl_prune.data.selection.selecting import Choice, SelectionRows, SelectionSettings
from trl_prune.data.selection.texts import answer_text, instruction_text
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.recipe import SelectionSection, SelectSection
from trl_prune.trainers.preparation import prepare_numbered, with_chat_template_kwargs


# The embedder that needs no further model.
HIDDEN_STATES = "hidden_states"
# Cosine similarities from which texts are one. The nearest of different questions have a median of 0.55 by
# all-MiniLM-L6-v2 and of 0.90 by hidden states (benchmarks/README.md).
NEAR_DUPLICATES, NEAR_DUPLICATES_BY_HIDDEN_STATES = 0.95, 0.98


def selection_rows(
    rows: Dataset,
    section: SelectSection,
    tokenizer: PreTrainedTokenizerBase,
    chat_template_kwargs: dict[str, object],
    target: Dataset | None = None,
) -> SelectionRows:
    """Return rows as texts and tokens.

    Args:
        rows: in one of TRL's formats.
        section: the section.
        tokenizer: the dense model's; preparing rows may change its special tokens.
        chat_template_kwargs: variables of the chat template.
        target: what `rds` is to be near to.
    """
    instructions = [instruction_text(row, section.instruction) for row in rows]
    answers = [answer_text(row) for row in rows]
    is_text = format_of(rows.column_names) == FORMATS[2]
    has_answer = np.array([is_text or bool(answer.strip()) for answer in answers])
    args = {"max_length": section.max_length, "use_cpu": True, "eos_token": None}
    prepared = prepare_numbered(with_chat_template_kwargs(rows, chat_template_kwargs), args, tokenizer)
    labels = [np.asarray(row) for row in prepared["labels"]]
    targets = [] if target is None else [instruction_text(row) for row in target]
    texts = [f"{instruction}\n{answer}" for instruction, answer in zip(instructions, answers, strict=True)]
    return SelectionRows(
        instructions,
        texts,
        has_answer,
        prepared.remove_columns("row"),
        np.asarray(prepared["row"]),
        np.array([len(row) for row in labels]),
        np.array([(row[1:] != MASKED).sum() for row in labels]),
        targets,
    )


def build_embedder(section: SelectSection, dense: LazyTeacher) -> Embedder:
    """Return the embedder that a section names."""
    return HiddenStateEmbedder(dense) if section.embedder == HIDDEN_STATES else SentenceEmbedder(section.embedder)


def selection_settings(
    section: SelectSection, selections: Mapping[str, SelectionSection], seed: int
) -> SelectionSettings:
    """Return the settings of selecting.

    Args:
        section: the section.
        selections: every selection by name, the section's own first.
        seed: the recipe's.
    """
    return SelectionSettings(
        {name: _choice(selection, seed) for name, selection in selections.items()},
        section.clusters,
        _near_duplicates(section),
        section.temperature,
        section.batch_tokens,
        section.resident,
        decoder_blocks,
        seed,
    )


def _near_duplicates(section: SelectSection) -> float | None:
    if section.near_duplicates != "auto":
        return section.near_duplicates
    return NEAR_DUPLICATES_BY_HIDDEN_STATES if section.embedder == HIDDEN_STATES else NEAR_DUPLICATES


def _choice(section: SelectionSection, seed: int) -> Choice:
    choosing = Choosing(
        section.allocation,
        section.allocation_temperature,
        section.ranking,
        section.cost,
        section.consistency,
        section.order,
    )
    return Choice(section.method, section.budget, seed if section.seed is None else section.seed, choosing)


def check_embedder(section: SelectSection) -> None:
    """Check that a section's embedder can be loaded.

    Raises:
        InputError: it needs a package that is not installed, or does not exist, or the network is away.
    """
    if section.embedder == HIDDEN_STATES:
        return
    try:
        SentenceEmbedder(section.embedder).width  # noqa: B018  # which loads it
    except InputError as error:
        raise InputError(f"{error} (`select.embedder: {HIDDEN_STATES}`)") from error
