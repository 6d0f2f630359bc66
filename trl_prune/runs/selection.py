"""The `select` section as plain arguments."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from trl_prune.data.formats import check_has_template
from trl_prune.data.selection.embedding import Embedder, HiddenStateEmbedder, SentenceEmbedder
from trl_prune.data.selection.paser import PaserSettings
from trl_prune.data.selection.selection_run import SelectionRows, SelectionSettings, SelectionSpec
from trl_prune.data.selection.texts import answer_text, has_answer, instruction_text
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
    models: Sequence[LazyTeacher],
    chat_template_kwargs: dict[str, object],
    target: Dataset | None = None,
) -> SelectionRows:
    """Return rows as texts and tokens.

    Args:
        rows: in one of TRL's formats.
        section: the section.
        models: the dense and the pruned model; preparing rows may change the first one's special tokens.
        chat_template_kwargs: variables of the chat template.
        target: what `rds` is to be near to.

    Raises:
        InputError: there are messages, and the tokenizer has no chat template.
    """
    tokenizer = models[0].tokenizer
    check_has_template(rows, tokenizer, "the dataset")
    learnable = np.array([has_answer(row) for row in rows])
    length = min([section.max_length, *(model.max_model_len for model in models if model.max_model_len)])
    prepared, indices = _prepare(rows, learnable, length, tokenizer, chat_template_kwargs)
    tokens, answer_tokens = _counts(prepared)
    column = section.instruction
    return SelectionRows(
        [instruction_text(row, column) for row in rows],
        # Not of the column, which may say the same of many rows.
        [f"{instruction_text(row)}\n{answer_text(row)}" for row in rows],
        prepared,
        indices,
        tokens,
        answer_tokens,
        _target_texts(target, column),
    )


def _prepare(
    rows: Dataset,
    learnable: np.ndarray,
    max_length: int,
    tokenizer: PreTrainedTokenizerBase,
    chat_template_kwargs: dict[str, object],
) -> tuple[Dataset, np.ndarray]:
    """Return the learnable rows that have a token of their answer left, tokenised, and their indices."""
    found = np.flatnonzero(learnable)
    if len(found) == 0:
        return Dataset.from_dict({"input_ids": [], "labels": []}), found
    answered = with_chat_template_kwargs(rows.select(found), chat_template_kwargs)
    prepared = prepare_numbered(answered, {"max_length": max_length, "use_cpu": True}, tokenizer)
    return prepared.remove_columns("row"), found[np.asarray(prepared["row"], dtype=np.int64)]


def _counts(prepared: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's number of tokens, and of those that are learned."""
    counts = np.zeros((2, len(prepared)), dtype=np.int64)
    for index, row in enumerate(prepared):
        labels = np.asarray(row["labels"])
        counts[:, index] = len(labels), (labels[1:] != MASKED).sum()
    return counts[0], counts[1]


def _target_texts(target: Dataset | None, column: str | None) -> list[str]:
    if target is None:
        return []
    column = column if column in target.column_names else None
    return [instruction_text(row, column) for row in target]


def build_embedder(section: SelectSection, dense: LazyTeacher) -> Embedder:
    """Return the embedder that a section names."""
    return HiddenStateEmbedder(dense) if section.embedder == HIDDEN_STATES else SentenceEmbedder(section.embedder)


def selection_settings(
    section: SelectSection, selections: Mapping[str, SelectionSection], seed: int
) -> SelectionSettings:
    """Return the settings of the selection.

    Args:
        section: the section.
        selections: every selection by name, the section's own first.
        seed: the recipe's.
    """
    return SelectionSettings(
        {name: _spec(selection, seed) for name, selection in selections.items()},
        section.clusters,
        _near_duplicates(section),
        section.temperature,
        section.batch_tokens,
        section.resident,
        decoder_blocks,
        seed if section.seed is None else section.seed,
    )


def _near_duplicates(section: SelectSection) -> float | None:
    if section.near_duplicates != "auto":
        return section.near_duplicates
    if section.instruction is not None:  # which may be the same for rows that ask different things
        return None
    return NEAR_DUPLICATES_BY_HIDDEN_STATES if section.embedder == HIDDEN_STATES else NEAR_DUPLICATES


def _spec(section: SelectionSection, seed: int) -> SelectionSpec:
    paser = PaserSettings(
        section.allocation,
        section.allocation_temperature,
        section.ranking,
        section.cost,
        section.consistency,
        section.order,
    )
    return SelectionSpec(section.method, section.budget, seed if section.seed is None else section.seed, paser)


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
        raise InputError(
            f"{error} (`select.embedder: {HIDDEN_STATES}`; without clusters and near duplicates nothing is embedded)"
        ) from error
