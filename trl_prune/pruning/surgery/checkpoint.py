"""Write a pruned checkpoint folder from a dense one, tensor by tensor."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from safetensors import safe_open
from torch import Tensor

from trl_prune.checkpoints import (
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
from trl_prune.pruning.families import LAYERS, Family
from trl_prune.pruning.keep import compose_keep
from trl_prune.pruning.surgery.cut import Cut, block_of
from trl_prune.pruning.surgery.shards import write_shards
from trl_prune.pruning.surgery.verification import verify_loads


def check_blocks(names: Iterable[str], family: Family, num_layers: int) -> None:
    """Check that a checkpoint names its blocks as its family's row says.

    Raises:
        InputError: some block has no tensor under the row's prefix, or there are more blocks than the config says.
    """
    found = {int(match["index"]) for match in (block_of(name, family) for name in names) if match}
    if found != set(range(num_layers)):
        raise InputError(
            f"the checkpoint has blocks {sorted(found) or 'of other names'} under {family.blocks!r}; "
            f"its config says {num_layers} blocks"
        )


class Repair(Protocol):
    """A closed-form change to the weights that stay, made while they are written.

    Attributes:
        record: what the provenance's `edits` say of it.
    """

    record: dict

    def tensor(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:
        """Return what to write for a cut tensor, given its name and its whole self in the dense model."""
        ...


def prune_checkpoint(  # noqa: PLR0913
    source: Path,
    target: Path,
    keep: Mapping[str, list],
    root: dict,
    repairs: Sequence[Repair] = (),
    max_shard_bytes: int | None = None,
) -> None:
    """Cut a checkpoint folder into a new one that stock transformers loads.

    Tensors are read from the memory-mapped source one by one and written shard by shard, so that memory holds one
    shard and one cut tensor. The target appears under its name only when it is whole and transformers can load it.

    Args:
        source: a checkpoint folder with safetensors weights.
        target: the folder to write.
        keep: the kept indices of each axis, counted in the source.
        root: the `dense` entry for the provenance.
        repairs: changes to what stays, made in their order.
        max_shard_bytes: the size at which a new shard begins; the largest tensor's where left out.

    Raises:
        InputError: the model type has no row, or the plan does not fit the model.
    """
    config = load_config(source)
    cut = Cut.of(config, keep)
    check_blocks(tensor_files(source), cut.family, config.num_hidden_layers)
    with atomic_folder(target) as part:
        copy_companions(source, part)
        raw = json.loads((source / "config.json").read_text())
        write_json(part / "config.json", raw | cut.changed_config())
        write_shards(part, _kept_tensors(source, cut, repairs), max_shard_bytes)
        parent = read_provenance(source)
        num_layers = root.get(LAYERS) or config.num_hidden_layers
        composed = compose_keep(parent.keep if parent else {}, cut.keep, num_layers)
        edits = [*(parent.edits if parent else []), *(repair.record for repair in repairs)]
        write_provenance(Provenance(root, str(source), composed, edits), part)
        verify_loads(part)


def _kept_tensors(source: Path, cut: Cut, repairs: Sequence[Repair]) -> Iterator[tuple[str, Tensor]]:
    files = tensor_files(source)
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as stored:
            for old in sorted(name for name, file in files.items() if file == path):
                new = cut.name(old)
                if new is not None:
                    yield new, _repaired(old, stored.get_tensor(old), cut, repairs)


def _repaired(name: str, dense: Tensor, cut: Cut, repairs: Sequence[Repair]) -> Tensor:
    tensor = cut.tensor(name, dense)
    for repair in repairs:
        tensor = repair.tensor(name, tensor, dense)
    return tensor
