"""A checkpoint of a pruned model's shape with newly initialised weights, as a baseline."""

from dataclasses import replace
from pathlib import Path

import torch

from trl_prune.checkpoints import (
    atomic_folder,
    copy_companions,
    library_versions,
    load_config,
    model_class,
    read_provenance,
    write_provenance,
)


def write_untrained(student: Path, target: Path, seed: int) -> None:
    """Write a checkpoint of the student's shape with transformers' random initialisation.

    Args:
        student: the checkpoint whose config, tokenizer and provenance are copied.
        target: the folder to write, atomically.
        seed: of the initialisation.
    """
    config = load_config(student)
    torch.manual_seed(seed)
    model = model_class(config).from_config(config)
    provenance = read_provenance(student)
    with atomic_folder(target) as part:
        copy_companions(student, part)
        model.save_pretrained(part)
        if provenance is not None:
            edits = [{"edit": "random_weights", "seed": seed}]  # replaces the student's edits: no repair is left
            untrained = replace(provenance, parent=str(student), edits=edits, versions=library_versions())
            write_provenance(untrained, part)
