"""The files beside the weights: tokenizer, processor, chat templates, generation config, licence."""

import filecmp
import shutil
from pathlib import Path

from trl_prune.checkpoints.provenance import PROVENANCE
from trl_prune.checkpoints.reading import ADAPTER, CONFIG, WEIGHTS
from trl_prune.errors import InputError


GENERATION = "generation_config.json"
# Files that each checkpoint gets anew, or that belong to one training.
NOT_COPIED = {
    CONFIG, "README.md", "importance.png", "merge.json", "mergekit_config.yml", PROVENANCE, ADAPTER,
    "training_args.bin", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json",
}  # fmt: skip
# TensorBoard's, which a trainer writes beside a model.
EVENTS = "events.out.tfevents"
# Folders of a tokenizer's or processor's: the first by its name, others by a file that they hold.
TEMPLATES = "additional_chat_templates"
OWNED_BY = ("tokenizer_config.json", "tokenizer.json", "processor_config.json", "preprocessor_config.json")
# Other models' folders have these: a trainer's checkpoints, conversions.
OF_A_MODEL = (CONFIG, ADAPTER, "trainer_state.json")


def companions(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that travel with it: all but weights, config, model card and provenance.

    Of its folders those travel that belong to its tokenizer or processor.
    """
    folders = [folder, *(path for path in sorted(folder.iterdir()) if path.is_dir() and _is_owned(path))]
    return [path for place in folders for path in sorted(place.iterdir()) if path.is_file() and _travels(path)]


def _is_owned(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} if not folder.name.startswith(".") else set()
    return folder.name == TEMPLATES or bool(names.intersection(OWNED_BY) and not names.intersection(OF_A_MODEL))


def _travels(path: Path) -> bool:
    return (
        path.suffix not in WEIGHTS
        and path.name not in NOT_COPIED
        and not path.name.startswith((".", EVENTS))
        and not path.name.endswith(".index.json")
    )


def copy_companions(source: Path, target: Path) -> None:
    """Copy tokenizer, processor, chat templates, generation config and licence of a checkpoint into another folder.

    Raises:
        InputError: one of them is a link to a file that belongs to no checkpoint.
    """
    for path in companions(source):
        _check_link(path, source)
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)


def _check_link(path: Path, folder: Path) -> None:
    """Check that a file is not a link to anything on this machine, which would be published with the copy.

    Links into the hub's cache, inside the folder, or to a file of the same name in another checkpoint are usual.
    """
    file = path.resolve()
    is_usual = (
        file.is_relative_to(folder.resolve())
        or file.parent.name == "blobs"
        or (file.name == path.name and (file.parent / CONFIG).is_file())
    )
    if not is_usual:
        raise InputError(
            f"{path} is a link to {file}, which is no file of a checkpoint; copy it there if it belongs to the model"
        )


def changed_companions(source: Path, target: Path) -> list[str]:
    """Return the names of files that did not arrive in another folder, or arrived changed.

    The generation config is not compared: a training may have to mend it.
    """
    names = [path.relative_to(source) for path in companions(source) if path.name != GENERATION]
    return [
        str(name)
        for name in names
        if not (target / name).is_file() or not filecmp.cmp(source / name, target / name, shallow=False)
    ]
