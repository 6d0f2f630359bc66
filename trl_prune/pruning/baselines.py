"""What a cut is held against: as many blocks removed blindly, and the same shape without the dense model's weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from trl_prune.checkpoints import (
    atomic_folder,
    copy_companions,
    library_versions,
    load_config,
    read_provenance,
    write_provenance,
)
from trl_prune.pruning.families import family_of
from trl_prune.pruning.importance import LayerScores
from trl_prune.pruning.keep import Keep, axis_sizes
from trl_prune.pruning.scores import Scores
from trl_prune.pruning.selection import Ranking, choose_keep


RANDOM_WEIGHTS = "random_weights"


def random_keep(sizes: Mapping[str, int], config: PreTrainedConfig, seed: int) -> Keep:
    """Return a plan of these sizes whose units are drawn without looking at them.

    Args:
        sizes: how many units of each axis stay.
        config: the dense model's config.
        seed: of the draw.
    """
    family = family_of(config.model_type)
    blind = Scores(LayerScores.empty(config.num_hidden_layers), axis_sizes(config, family))
    by = Ranking(layers_by="random", width_by="random", seed=seed)
    return choose_keep(blind, sizes, config, family, by)


def write_untrained(student: Path, target: Path, seed: int) -> None:
    """Write a checkpoint of the student's shape whose weights are as its family initialises them.

    Args:
        student: the checkpoint whose config, tokenizer and provenance are taken over.
        target: the folder to write; it appears whole or not at all.
        seed: of the weights.
    """
    config = load_config(student)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    provenance = read_provenance(student)
    with atomic_folder(target) as part:
        copy_companions(student, part)
        model.save_pretrained(part)
        if provenance is not None:
            edits = [{"edit": RANDOM_WEIGHTS, "seed": seed}]  # of whatever was repaired nothing is left
            told = replace(provenance, parent=str(student), edits=edits, versions=library_versions())
            write_provenance(told, part)
