"""The first blocks of a depth-pruned model are the dense model's own: they run once for both models.

Up to the first removed block both models compute the same states, so the pruned model runs only its blocks after that.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


BlocksOf = Callable[[PreTrainedModel], Sequence[nn.Module]]
# Config keys that say nothing about the final states.
IRRELEVANT_KEYS = {
    "_name_or_path",
    "architectures",
    "transformers_version",
    "dtype",
    "use_cache",
    "output_router_logits",
    "router_aux_loss_coef",
    "id2label",
    "label2id",
}
IRRELEVANT_KEYS |= {"bos_token_id", "eos_token_id", "pad_token_id"}


def count_shared_blocks(dense: PreTrainedModel, pruned: PreTrainedModel, blocks_of: BlocksOf) -> int:
    """Return how many leading decoder blocks of two models compute the same states from the same tokens.

    It is 0 unless both models have one class and attention implementation, equal configs but for the number of blocks,
    and equal weights outside their blocks. Counted are leading blocks of equal class, config entries and weights;
    weights on another device or of another dtype are not equal.

    Args:
        dense: the dense model.
        pruned: the pruned model.
        blocks_of: returns a model's decoder blocks in order.
    """
    models = (dense, pruned)
    if type(dense) is not type(pruned) or not _equal_tensors(*(_outside(model, blocks_of(model)) for model in models)):
        return 0
    (settings, listed), (pruned_settings, pruned_listed) = (_config_parts(m, len(blocks_of(m))) for m in models)
    if settings != pruned_settings or listed.keys() != pruned_listed.keys():
        return 0
    shared = 0
    for block, pruned_block in zip(blocks_of(dense), blocks_of(pruned), strict=False):
        same_entries = all(listed[key][shared] == pruned_listed[key][shared] for key in listed)
        if not (same_entries and _equal_blocks(block, pruned_block)):
            break
        shared += 1
    return shared


@contextmanager
def recorded_output(blocks: Sequence[nn.Module]) -> Iterator[list]:
    """Yield a list that gets the output of the last of some blocks at each of their forward passes."""
    outputs: list = []
    if not blocks:
        yield outputs
        return
    handle = blocks[-1].register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def shared_states(
    dense: PreTrainedModel, pruned: PreTrainedModel, inputs: dict[str, Tensor], shared: int, blocks_of: BlocksOf
) -> tuple[Tensor, Tensor]:
    """Return the final states of both models, each `(batch, tokens, hidden_size)`; shared blocks run once.

    Args:
        dense: the dense model.
        pruned: the pruned model.
        inputs: the backbones' arguments: `input_ids`, `(batch, tokens)`, and what else they take.
        shared: the number of shared blocks.
        blocks_of: returns a model's decoder blocks in order.
    """
    if not shared:
        return backbone_states(dense, inputs), backbone_states(pruned, inputs)
    with recorded_output(blocks_of(dense)[:shared]) as outputs:
        dense_states = backbone_states(dense, inputs)
    with returning(blocks_of(pruned)[:shared], lambda: outputs[0]):
        return dense_states, backbone_states(pruned, inputs)


def backbone_states(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Return a causal LM's final states, `(batch, tokens, hidden_size)`, without its LM head."""
    return model.base_model(**inputs, use_cache=False).last_hidden_state


@contextmanager
def returning(blocks: Sequence[nn.Module], output: Callable[[], object]) -> Iterator[None]:
    """Make blocks return what a function returns when they are called, without running."""
    # accelerate patches the instance too where it moves weights, so what was there is put back.
    originals = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = lambda *_, **__: output()
        yield
    finally:
        for block, original in zip(blocks, originals, strict=True):
            if original is None:
                del block.forward
            else:
                block.forward = original


def _config_parts(model: PreTrainedModel, count: int) -> tuple[dict, dict[str, list]]:
    """Return the config's values that matter for all blocks, and the lists with one entry per block."""
    config = model.config.get_text_config()
    count_key = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    values = {key: value for key, value in config.to_dict().items() if key not in IRRELEVANT_KEYS | {count_key}}
    listed = {key: value for key, value in values.items() if isinstance(value, list) and len(value) == count}
    settings = {key: value for key, value in values.items() if key not in listed}
    return settings | {"attention": attention_implementation(model)}, listed


def attention_implementation(model: PreTrainedModel) -> str | None:
    """Return how a model's text tower attends, by transformers' name."""
    return model.config.get_text_config()._attn_implementation


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's weights and buffers; LoRA adapters that change nothing yet are left out."""
    named = chain(module.named_parameters(), module.named_buffers())
    return {plain_name(name): tensor for name, tensor in named if not _is_idle_lora(name, tensor)}


def plain_name(name: str) -> str:
    """Return a weight's name without the adapters around its module; the weights of experts have two."""
    return ".".join(part for part in name.split(".") if part != "base_layer")


def _is_idle_lora(name: str, tensor: Tensor) -> bool:
    parts = name.split(".")
    return "lora_A" in parts or ("lora_B" in parts and not tensor.is_meta and not tensor.any())


def _outside(model: PreTrainedModel, blocks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return a backbone's weights and buffers that are in none of its blocks."""
    of_blocks = {id(tensor) for block in blocks for tensor in _tensors(block).values()}
    return {name: tensor for name, tensor in _tensors(model.base_model).items() if id(tensor) not in of_blocks}


def _equal_blocks(first: nn.Module, second: nn.Module) -> bool:
    return type(first) is type(second) and _equal_tensors(_tensors(first), _tensors(second))


def _equal_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(_equal(tensor, second[name]) for name, tensor in first.items())


def _equal(first: Tensor, second: Tensor) -> bool:
    placed_alike = first.device == second.device and first.dtype == second.dtype
    # Offloaded weights are on the meta device, without values to compare.
    return placed_alike and not first.is_meta and torch.equal(first, second)
