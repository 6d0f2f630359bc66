"""Surgery on checkpoints: `(config, tensors, keep) -> (config, tensors)`, never on live modules."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedConfig

from trl_prune.checkpoints import (
    INDEX,
    Provenance,
    atomic_folder,
    copy_companions,
    load_config,
    read_provenance,
    tensor_files,
    write_json,
    write_provenance,
)
from trl_prune.errors import InputError
from trl_prune.pruning.families import Family, family_of


LAYERS = "num_hidden_layers"
Keep = dict[str, list[int]]


def check_keep(keep: Keep, num_layers: int) -> None:
    """Check a plan of kept blocks.

    Raises:
        InputError: an axis this surgery does not know, or indices that are no strictly growing run inside the model.
    """
    unknown = sorted(set(keep) - {LAYERS})
    if unknown:
        raise InputError(f"keep names the axis {unknown[0]!r}; allowed: {LAYERS}")
    layers = keep.get(LAYERS, [])
    if not layers:
        raise InputError(f"keep.{LAYERS} is empty: at least one block must stay")
    if layers != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= num_layers:
        raise InputError(f"keep.{LAYERS} is {layers}; wanted: growing indices without repeats in 0..{num_layers - 1}")


def check_not_quantised(config: PreTrainedConfig, source: Path) -> None:
    """Refuse quantised checkpoints.

    Raises:
        InputError: the config says that the weights are quantised.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"{source} is a quantised checkpoint, which is not cut; start from the unquantised one")


def prune_config(config: PreTrainedConfig, keep: Keep) -> dict:
    """Return the entries of config.json that a cut changes."""
    layers = keep[LAYERS]
    changed: dict = {config.attribute_map.get(LAYERS, LAYERS): len(layers)}
    for key in family_of(config.model_type).per_layer:
        # Read from the config object, which fills in lists that config.json leaves to a pattern over all blocks.
        entries = getattr(config, key, None)
        if entries is not None:
            changed[key] = [entries[index] for index in layers]
    return changed


def prune_name(name: str, family: Family, keep: Keep) -> str | None:
    """Return a tensor's name after the cut, or None where its block goes."""
    match = _block_of(name, family)
    if match is None:
        return name
    index = int(match["index"])
    if index not in keep[LAYERS]:
        return None
    return f"{match['blocks']}.{keep[LAYERS].index(index)}.{name[match.end() :]}"


def _block_of(name: str, family: Family) -> re.Match | None:
    # Some checkpoints (GPT-2's on the hub) were saved from the bare backbone and lack its name in front.
    backbone, _, blocks = family.blocks.partition(".")
    return re.match(rf"(?P<blocks>({re.escape(backbone)}\.)?{re.escape(blocks)})\.(?P<index>\d+)\.", name)


def check_blocks(names: Iterable[str], family: Family, num_layers: int) -> None:
    """Check that a checkpoint names its blocks as its family's row says.

    Raises:
        InputError: some block has no tensor under the row's prefix, or there are more blocks than the config says.
    """
    found = {int(match["index"]) for match in (_block_of(name, family) for name in names) if match}
    if found != set(range(num_layers)):
        raise InputError(
            f"the checkpoint has blocks {sorted(found) or 'of other names'} under {family.blocks!r}; "
            f"its config says {num_layers} blocks"
        )


def prune_checkpoint(source: Path, target: Path, keep: Keep, root: dict, max_shard_bytes: int = 5 * 10**9) -> None:
    """Cut a checkpoint folder into a new one that stock transformers loads.

    Tensors are read one by one and written shard by shard, so memory holds one shard at most. The target appears
    under its name only when it is whole.

    Args:
        source: a checkpoint folder with safetensors weights.
        target: the folder to write.
        keep: the kept indices of each axis, counted in the source.
        root: the `dense` entry for the provenance.
        max_shard_bytes: the size at which a new shard begins.

    Raises:
        InputError: the model type has no row, or the plan does not fit the model.
    """
    config = load_config(source)
    check_not_quantised(config, source)
    family = family_of(config.model_type)
    check_keep(keep, config.num_hidden_layers)
    check_blocks(tensor_files(source), family, config.num_hidden_layers)
    with atomic_folder(target) as part:
        copy_companions(source, part)
        raw = json.loads((source / "config.json").read_text())
        write_json(part / "config.json", raw | prune_config(config, keep))
        _write_shards(part, _kept_tensors(source, family, keep), max_shard_bytes)
        parent = read_provenance(source)
        kept_before = parent.keep if parent else {}
        write_provenance(Provenance(root, str(source), compose_keep(kept_before, keep)), part)


def compose_keep(before: Keep, now: Keep) -> Keep:
    """Return a cut of a cut, counted in the dense model."""
    if LAYERS not in before:
        return dict(now)
    return {LAYERS: [before[LAYERS][index] for index in now[LAYERS]]}


def _kept_tensors(source: Path, family: Family, keep: Keep) -> Iterator[tuple[str, Tensor]]:
    files = tensor_files(source)
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as stored:
            for old in sorted(name for name, file in files.items() if file == path):
                new = prune_name(old, family, keep)
                if new is not None:
                    yield new, stored.get_tensor(old)


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]], max_shard_bytes: int) -> None:
    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    total = 0
    for name, tensor in tensors:
        if shard and _bytes(shard.values()) + tensor.nbytes > max_shard_bytes:
            shards.append(_write_shard(folder, len(shards), shard))
            shard = {}
        shard[name] = tensor
        total += tensor.nbytes
    shards.append(_write_shard(folder, len(shards), shard))
    _name_shards(folder, shards, total)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _write_shard(folder: Path, number: int, shard: dict[str, Tensor]) -> list[str]:
    contiguous = {name: tensor.contiguous() for name, tensor in shard.items()}
    save_file(contiguous, folder / f"shard-{number}.part", metadata={"format": "pt"})
    return sorted(shard)


def _name_shards(folder: Path, shards: list[list[str]], total: int) -> None:
    if len(shards) == 1:
        (folder / "shard-0.part").replace(folder / "model.safetensors")
        return
    weight_map = {}
    for number, names in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}.part").replace(folder / name)
        weight_map |= dict.fromkeys(names, name)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def meta_model(config: PreTrainedConfig, keep: Keep | None = None) -> torch.nn.Module:
    """Return the (pruned) model without memory: shapes only, on the meta device."""
    from transformers import AutoModelForCausalLM

    if keep is not None:
        config = type(config).from_dict(config.to_dict() | prune_config(config, keep))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager")
