"""Write a pruned checkpoint folder from a dense one, tensor by tensor."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig

from trl_prune.checkpoints import (
    Provenance,
    atomic_folder,
    check_finite,
    copy_companions,
    load_config,
    prove_source,
    read_provenance,
    tensor_files,
    verify_companions,
    verify_loads,
    write_provenance,
    write_text,
)
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS, Family
from trl_prune.pruning.keep import compose_keep
from trl_prune.pruning.surgery.cut import Cut, changed_config, in_text_config, match_block, meta_model
from trl_prune.pruning.surgery.depth import check_depth
from trl_prune.pruning.surgery.shards import write_shards
from trl_prune.pruning.surgery.text_tower import LM_HEAD, TextNames, remove_processors, text_config


def check_blocks(names: Iterable[str], family: Family, num_layers: int) -> None:
    """Check that a checkpoint names its blocks by the prefix in its family's row.

    Raises:
        InputError: the block indices under the prefix are not those of the config's number of layers.
    """
    layers = {int(match["index"]) for match in (match_block(name, family) for name in names) if match}
    # Those after the last one are heads for multi-token prediction, which transformers does not load.
    if {layer for layer in layers if layer < num_layers} != set(range(num_layers)):
        blocks = f"blocks {sorted(layers)}" if layers else "no blocks"
        raise InputError(
            f"the checkpoint has {blocks} under {family.blocks_prefix!r}; its config has {num_layers} blocks"
        )


class Repair(Protocol):
    """A closed-form change to the kept weights, applied while they are written.

    Attributes:
        record: its entry in the `edits` of the provenance.
    """

    record: dict

    def apply(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:
        """Return the tensor to write, given its dense name, the cut tensor and the dense tensor."""
        ...


def prune_checkpoint(  # noqa: PLR0913
    source: Path,
    target: Path,
    keep: Mapping[str, list],
    root: dict,
    repairs: Sequence[Repair] = (),
    max_shard_bytes: int | None = None,
    text_only: bool = False,
) -> None:
    """Write a pruned checkpoint folder that stock transformers loads.

    Tensors are read from the memory-mapped source one by one and written shard by shard, so that memory holds one
    shard and one cut tensor. The target folder appears only once it is complete and transformers can load it.

    Args:
        source: a checkpoint folder with safetensors weights.
        target: the folder to write.
        keep: the kept indices of each axis, indexed in the source.
        root: the `dense` entry of the provenance.
        repairs: changes to the kept weights, applied in order.
        max_shard_bytes: the size at which a new shard begins; by default that of the largest tensor.
        text_only: write the causal LM that is the text tower of a multimodal checkpoint, without the other towers.

    Raises:
        InputError: the model type has no row in the family table, the plan does not fit the model, transformers cannot
            load the source, or a weight is NaN or infinite.
    """
    config = load_config(source)
    cut = Cut.of(config, keep)
    check_blocks(tensor_files(source), cut.family, cut.sizes[LAYERS])
    names = tensor_files(source).keys() - prove_source(source)
    check_depth(config, keep)
    new_name = TextNames.of(names, cut, config).new_name if text_only else cut.new_name
    with atomic_folder(target) as part:
        copy_companions(source, part)
        if text_only:
            _write_text_config(part, config, cut, names)
        else:
            _write_config(part, json.loads((source / "config.json").read_bytes()), config, cut)
        write_shards(part, _kept_tensors(source, cut, repairs, names, new_name), max_shard_bytes)
        parent = read_provenance(source)
        num_layers = root.get(LAYERS) or cut.sizes[LAYERS]
        composed = compose_keep(parent.keep if parent else {}, cut.keep, num_layers)
        edits = [*(parent.edits if parent else []), *(repair.record for repair in repairs)]
        edits += [{"edit": "text_only"}] * text_only
        write_provenance(Provenance(root, str(source), composed, edits), part)
        verify_companions(source, part)
        if text_only:
            remove_processors(part)
        verify_loads(part)


def _write_config(folder: Path, dense: dict, config: PreTrainedConfig, cut: Cut) -> None:
    """Write config.json: the dense one's content with the changes or, if that says something else, transformers' own.

    It does not where a key of an older form (`hybrid_override_pattern`) contradicts a changed key of today's.
    """
    changes = cut.config_changes()
    expected = changed_config(config, changes)
    # Not by write_json: configs of state-space models hold Infinity, which transformers reads.
    values = in_text_config(config, dense, changes)
    if not _names_its_class(config):
        values["architectures"] = expected.architectures = [type(meta_model(config)).__name__]
    write_text(folder / "config.json", json.dumps(values, indent=2, sort_keys=True) + "\n")
    if _meaning(load_config(folder).to_dict()) != _meaning(expected.to_dict()):
        expected.save_pretrained(folder)


def _names_its_class(config: PreTrainedConfig) -> bool:
    """Return whether a config names a class with a head: trainers load the class that it names, not transformers' own.

    A class that transformers does not know is left to those who do.
    """
    name = next(iter(config.architectures or ()), None)
    can_generate = getattr(getattr(transformers, name or "", None), "can_generate", None)
    return bool(name) and (can_generate is None or can_generate())


def _write_text_config(folder: Path, config: PreTrainedConfig, cut: Cut, names: Collection[str]) -> None:
    """Write the config of the text tower; without a head among the tensors, the embeddings are the head."""
    tied = {} if any(name.endswith(LM_HEAD) for name in names) else {"tie_word_embeddings": True}
    changed_config(text_config(config), cut.config_changes() | tied).save_pretrained(folder)


def _meaning(values: object) -> object:
    """Return a config's content without its path, and without the dtypes of towers, which are lost in reading."""
    if not isinstance(values, dict):
        return values
    return {key: _meaning(value) for key, value in values.items() if key not in ("_name_or_path", "dtype")}


def _kept_tensors(
    source: Path, cut: Cut, repairs: Sequence[Repair], names: Collection[str], new_name: Callable[[str], str | None]
) -> Iterator[tuple[str, Tensor]]:
    files = tensor_files(source)
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as weights:
            for name in sorted(name for name in names if files[name] == path):
                written_as = new_name(name)
                if written_as is not None:
                    dense = weights.get_tensor(name)
                    check_finite([(name, dense)], source)
                    yield written_as, _repaired(name, dense, cut, repairs)


def _repaired(name: str, dense: Tensor, cut: Cut, repairs: Sequence[Repair]) -> Tensor:
    tensor = cut.cut_tensor(name, dense)
    for repair in repairs:
        tensor = repair.apply(name, tensor, dense)
    return tensor
