"""Derive the row of a model type from tiny models: what its blocks are called, what its config says of each."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedConfig, PreTrainedModel

from trl_prune.checkpoints import num_blocks, read_header, tensor_files
from trl_prune.checkpoints.loading import BLOCK_COUNTS
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS, Dims, Family, L, V
from trl_prune.pruning.surgery.cut import Cut, changed_config, match_block, meta_model


Shapes = dict[str, tuple[int, ...]]


def blocks_prefix(names: Iterable[str], num_layers: int) -> str:
    """Return the prefix of the decoder blocks' tensor names.

    Args:
        names: of the tensors of a checkpoint.
        num_layers: number of blocks.

    Raises:
        InputError: no prefix, or several, have just the indices of the blocks.
    """
    indices: dict[str, set[int]] = {}
    for name in names:
        for match in re.finditer(r"\.(\d+)\.", name):
            indices.setdefault(name[: match.start()], set()).add(int(match[1]))
    found = [prefix for prefix, numbers in indices.items() if numbers == set(range(num_layers))]
    outermost = [prefix for prefix in found if not re.search(r"\.\d+(\.|$)", prefix)]
    if len(outermost) != 1:
        raise InputError(f"its tensor names do not show one list of decoder blocks, but {len(outermost)}")
    return outermost[0]


def per_layer_keys(tiny: PreTrainedConfig) -> tuple[str, ...]:
    """Return the config keys that hold a list with one entry per block, in the tiny config and in the default one."""
    default, keys = type(tiny)(), []
    for key in tiny.to_dict():
        usual, value = vars(default).get(key), vars(tiny).get(key)  # Dory writes other lists than it has
        same_length = not isinstance(usual, list | tuple) or len(usual) == num_blocks(default)
        if isinstance(value, list | tuple) and len(value) == num_blocks(tiny) and same_length:
            keys.append(key)
    return tuple(sorted(keys))


def stored_shapes(model: PreTrainedModel) -> Shapes:
    """Return the names and shapes of a model's tensors as transformers stores them."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        files = tensor_files(Path(folder))
        return {
            name: tuple(entry["shape"])
            for path in sorted(set(files.values()))
            for name, entry in read_header(path).items()
        }


def derive_row(tiny: PreTrainedConfig, model: PreTrainedModel, plans: Iterable[Sequence[int]]) -> Family:
    """Return the row of a type for cuts in depth.

    Args:
        tiny: a tiny config of the type.
        model: a random model of that config.
        plans: blocks to keep; the first that the config can express shows which weights outside the blocks grow with
            their number.

    Raises:
        InputError: the blocks cannot be found by their names.
    """
    shapes = stored_shapes(model)
    text = tiny.get_text_config()
    prefix = blocks_prefix(shapes, num_blocks(text))
    in_memory = blocks_prefix(parameter_shapes(tiny), num_blocks(text))
    row = Family(
        weights={},
        blocks_prefix=prefix,
        module_prefix=in_memory if in_memory != prefix else "",
        per_layer_keys=per_layer_keys(text),
        config_keys={LAYERS: BLOCK_COUNTS[text.model_type]} if text.model_type in BLOCK_COUNTS else {},
    )
    return replace(row, weights=_weights_by_layers(tiny, row, plans))


def _weights_by_layers(tiny: PreTrainedConfig, row: Family, plans: Iterable[Sequence[int]]) -> dict[str, Dims]:
    """Return the weights outside the blocks with a part for each block, such as Gemma 3n's embeddings by layer."""
    dense = parameter_shapes(tiny)
    for kept in plans:
        try:
            changes = Cut(tiny.get_text_config(), row, {LAYERS: list(kept)}).config_changes()
            pruned = parameter_shapes(changed_config(tiny, changes))
        except InputError:
            continue
        changed = {name: (shape, pruned[name]) for name, shape in dense.items() if name in pruned}
        return {
            re.escape(name.rpartition(".")[0]): tuple(L if old != new else V for old, new in zip(*shapes, strict=True))
            for name, shapes in changed.items()
            if match_block(name, row) is None and shapes[0] != shapes[1]
        }
    return {}


def parameter_shapes(config: PreTrainedConfig) -> Shapes:
    """Return the names and shapes of the parameters of a config's model."""
    return {name: tuple(weight.shape) for name, weight in meta_model(config).named_parameters()}
