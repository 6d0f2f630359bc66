"""Which projections write heads and which one reads them, where no shape tells: head_dim is hidden_size / heads.

An attention module runs the projections of queries, keys and values before that of its output, so the order in which a
forward pass runs a block's square weights tells them apart. The proof decides whether that is right.
"""

from collections.abc import Mapping
from contextlib import ExitStack

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trl_prune.pruning.deriving.growth import Growth
from trl_prune.pruning.deriving.proof import logits_of
from trl_prune.pruning.families import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, A, Family, H, K
from trl_prune.pruning.surgery.cut import match_block


Choices = tuple[str, ...]


def is_transposed(model: PreTrainedModel) -> bool:
    """Return whether the model's linear layers store their weights as `(in, out)`."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def reads_heads(growths: Mapping[str, Growth], transposed: bool) -> bool:
    """Return whether the input of some weight grows with the number of heads; otherwise hidden_size sets it."""
    side = 0 if transposed else -1
    return any(HEADS in growth.added[side] for growth in growths.values() if len(growth.shape) > 1)


@torch.inference_mode()
def linear_layers_as_run(model: PreTrainedModel) -> list[str]:
    """Return the names of the linear layers in the order in which a forward pass runs them."""
    names: list[str] = []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear | Conv1D):
                stack.callback(module.register_forward_hook(lambda *_, name=name: names.append(name)).remove)
        logits_of(model)
    return names


def head_dims(
    model: PreTrainedModel, growths: Mapping[str, Growth], row: Family, config: PreTrainedConfig
) -> dict[str, tuple[str | Choices, ...]]:
    """Return the axes of the dimensions of each weight that writes or reads heads, by the weight's name.

    A dimension whose parts may be in several orders has the choices.

    Args:
        model: a tiny model of the type.
        growths: how its tensors grow.
        row: its row for cuts in depth.
        config: the config of its decoder.
    """
    blocks: dict[str, list[str]] = {}
    for name in linear_layers_as_run(model):
        block, growth = match_block(f"{name}.", row), growths.get(f"{name}.weight")
        if block and growth and _is_square(growth):
            blocks.setdefault(block["index"], []).append(f"{name}.weight")
    dims: dict[str, tuple[str | Choices, ...]] = {}
    transposed = is_transposed(model)
    for *writers, reader in blocks.values():
        for name in writers:
            out = _written(growths[name], transposed, config)
            dims[name] = (H, out) if transposed else (out, H)
        dims[reader] = (A, H) if transposed else (H, A)
    return dims


def _is_square(growth: Growth) -> bool:
    return len(growth.shape) == 2 and all(
        HIDDEN in added and added.keys() <= {HIDDEN, KV_HEADS} for added in growth.added
    )


def _written(growth: Growth, transposed: bool, config: PreTrainedConfig) -> str | Choices:
    """Return the axes of the output of a projection to queries, keys and values, or to some of them."""
    side = 1 if transposed else 0
    heads = getattr(config, HEADS)
    units, others = divmod(growth.shape[side], getattr(config, HIDDEN) // heads)
    if KV_HEADS in growth.added[side]:
        return K if units < heads else "A+K+K"
    if units == 3 * heads and not others:
        return (A, "A+A+A")
    # Keys and values of one head, which all heads share, stand after the queries.
    return A + f"+{HEAD_DIM}" * (units - heads)
