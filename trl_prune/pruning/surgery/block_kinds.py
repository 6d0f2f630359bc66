"""What kind of block each decoder block is, read from its modules, and whether a depth cut leaves the kinds alone."""

import math
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.importance.hooks import decoder_blocks


# By the name of a module inside a block and of its attribute: the value.
Kind = dict[str, object]
SCALARS = (bool, int, float, str, type(None))


def block_kinds(model: nn.Module) -> list[Kind]:
    """Return, for each decoder block, the types, the settings and the weights' shapes of its modules."""
    return [_kind(block) for block in decoder_blocks(model)]


def _kind(block: nn.Module) -> Kind:
    kind: Kind = {}
    for name, module in block.named_modules():
        kind[name] = type(module).__name__
        unimportant = {"training", "num_hidden_layers"} if _stores_decay(module) else {"training"}
        for attribute, value in vars(module).items():
            if not attribute.startswith("_") and attribute not in unimportant and isinstance(value, SCALARS):
                kind[f"{name}.{attribute}".lstrip(".")] = value
        for weight_name, weight in module.named_parameters(recurse=False):
            kind[f"{name}.{weight_name}".lstrip(".")] = tuple(weight.shape)
    return kind


def _stores_decay(module: nn.Module) -> bool:
    """Return whether a module keeps what it computes from its place among all blocks in the checkpoint (MiniMax)."""
    return "slope_rate" in module._buffers and "slope_rate" not in module._non_persistent_buffers_set


def check_kinds(config: PreTrainedConfig, dense: Sequence[Kind], pruned: Sequence[Kind], kept: Sequence[int]) -> None:
    """Check that every block of a pruned model is of the same kind as the dense block whose weights it gets.

    An attribute may hold a block's index, its own or that of a block it shares something with, if it means the same
    block after the cut.

    Args:
        config: the dense model's config.
        dense: the kinds of the dense model's blocks.
        pruned: the kinds of the pruned model's blocks, of the same widths.
        kept: indices of the kept blocks.

    Raises:
        InputError: a block changes; with contiguous cuts of the same depth that the config can express.
    """
    for new_layer, layer in enumerate(kept):
        difference = _difference(dense[layer], pruned[new_layer], kept)
        if difference is not None:
            removed = [index for index in range(len(dense)) if index not in kept]
            raise InputError(
                f"{config.model_type} cannot lose the blocks {_listed(removed)}: its config cannot say that "
                f"dense block {layer}, as block {new_layer}, keeps {difference}; {_alternatives(dense, pruned)}"
            )


def _difference(dense: Kind, pruned: Kind, kept: Sequence[int]) -> str | None:
    """Return what differs between a dense block and the one it becomes, in words, or None."""
    new_layers = {layer: new_layer for new_layer, layer in enumerate(kept)}
    for name in dense | pruned:
        old, new = dense.get(name), pruned.get(name)
        points_to_the_same = type(old) is int and old in new_layers and new_layers[old] == new
        rounded = isinstance(old, float) and isinstance(new, float) and math.isclose(old, new)
        if old != new and not points_to_the_same and not rounded:
            return f"{name or 'its type'} {old!r} (it would be {new!r})" if name in dense else f"out {name}"
    return None


def _alternatives(dense: Sequence[Kind], pruned: Sequence[Kind]) -> str:
    """Return the contiguous runs of the same length that can be removed, in words."""
    count = len(dense) - len(pruned)
    runs = []
    for start in range(len(pruned) + 1):
        kept = [*range(start), *range(start + count, len(dense))]
        if all(_difference(dense[layer], kind, kept) is None for layer, kind in zip(kept, pruned, strict=True)):
            runs.append(f"{start}-{start + count - 1}" if count > 1 else str(start))
    if runs:
        return f"runs of {count} that can be removed: {', '.join(runs)}"
    periods = [period for period in range(1, len(dense)) if _repeats(dense, period)]
    hint = f"; its blocks repeat every {periods[0]}, so remove a multiple of {periods[0]}" if periods else ""
    return f"no run of {count} can be removed{hint}"


def _repeats(dense: Sequence[Kind], period: int) -> bool:
    indices = list(range(len(dense)))
    return all(
        _difference(dense[layer], dense[layer - period], indices[period:]) is None
        for layer in range(period, len(dense))
    )


def _listed(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return f"{shown}, ..." if len(indices) > 8 else shown
