"""What mergekit leaves behind becomes a checkpoint, and is proven whole."""

import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from trl_prune.checkpoints import (
    INDEX,
    DamagedCheckpointError,
    copy_companions,
    library_versions,
    load_config,
    read_provenance,
    verify_loads,
    verify_runs,
    write_provenance,
)


# Keys of a config that hold one entry for each block.
PER_BLOCK = ("layer_types", "mlp_layer_types", "no_rope_layers")


def complete(folder: Path, parent: Path) -> None:
    """Give merged weights the config and all companion files of a parent, and no other.

    mergekit copies a config whose lists per block, ties and dtype may be stale, and a tokenizer only if it can.

    Args:
        folder: what mergekit wrote.
        parent: a model that was merged.
    """
    for path in folder.iterdir():
        if path.suffix != ".safetensors" and path.name != INDEX:
            path.unlink()
    copy_companions(parent, folder)
    shutil.copyfile(parent / "config.json", folder / "config.json")


def record_merge(folder: Path, parent: Path, merge: dict[str, object]) -> None:
    """Carry a parent's provenance on to the merged model, with the merge among its edits; none where it has none."""
    provenance = read_provenance(parent)
    if provenance is not None:
        edits = [*provenance.edits, {"merge": merge, "mergekit": version("mergekit")}]
        provenance = replace(provenance, parent=str(parent), edits=edits, versions=library_versions())
        write_provenance(provenance, folder)


def verify_whole(folder: Path, dtype: str) -> None:
    """Check names and shapes of all tensors against the config, its lists per block, and that the logits are finite.

    Args:
        folder: the merged checkpoint.
        dtype: the dtype to run it in.

    Raises:
        DamagedCheckpointError: a tensor is missing, unexpected, or of another shape, or the model gives no numbers.
    """
    verify_loads(folder)
    config = load_config(folder).get_text_config()
    for key in PER_BLOCK:
        entries = getattr(config, key, None)
        if entries is not None and len(entries) != config.num_hidden_layers:
            raise DamagedCheckpointError(
                f"{folder} has {len(entries)} entries in {key} of its config and {config.num_hidden_layers} blocks"
            )
    verify_runs(folder, dtype)


def verify_equal(folder: Path, parent: Path, dtype: str) -> None:
    """Check that a merge with the whole weight on one model gives that model's logits, bit for bit.

    Raises:
        DamagedCheckpointError: it does not.
    """
    difference = (verify_runs(folder, dtype) - verify_runs(parent, dtype)).abs().max().item()
    if difference > 0:
        raise DamagedCheckpointError(f"{folder}, a merge that is {parent} alone, differs from it by {difference:g}")
