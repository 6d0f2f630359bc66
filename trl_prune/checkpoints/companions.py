"""The files beside the weights: tokenizer, chat template, generation config, licence."""

import shutil
from pathlib import Path

from trl_prune.checkpoints.provenance import PROVENANCE
from trl_prune.checkpoints.reading import WEIGHTS


# Files that each checkpoint gets anew, or that belong to one training.
NOT_COPIED = {
    "config.json", "README.md", "importance.png", "merge.json", "mergekit_config.yml", PROVENANCE, "training_args.bin",
}  # fmt: skip


def companions(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that travel with it: all but weights, config, model card and provenance."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.suffix not in WEIGHTS
        and path.name not in NOT_COPIED
        and not path.name.startswith(".")
        and not path.name.endswith(".index.json")
    ]


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, chat template, generation config and licence of a checkpoint into another folder."""
    for path in companions(source):
        shutil.copyfile(path, target / path.name)
