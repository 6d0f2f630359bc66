"""The files beside the weights: tokenizer, chat template, generation config, licence."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    pass
from trl_prune.checkpoints.provenance import PROVENANCE
from trl_prune.checkpoints.reading import WEIGHTS


def copy_companions(source: Path, target: Path) -> None:
    """Copy what lies beside the weights: tokenizer, chat template, generation config, licence."""
    for path in companions(source):
        shutil.copyfile(path, target / path.name)


def companions(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that are not weights, config, card or provenance."""
    skipped = {"config.json", "README.md", "importance.png", PROVENANCE, "training_args.bin"}
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.suffix not in WEIGHTS
        and path.name not in skipped
        and not path.name.startswith(".")
        and not path.name.endswith(".index.json")
    ]
