"""A checked plan applied to a model's config, tensor names and tensors; live modules are never edited."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedConfig

from trl_prune.checkpoints import check_causal_lm, model_class
from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS, NEURONS, Family
from trl_prune.pruning.keep import PER_LAYER_AXES, Keep, axis_sizes, complete_keep, kept_sizes, row_for
from trl_prune.pruning.layer_patterns import pattern_changes


@dataclass(frozen=True)
class Cut:
    """A checked plan for one model: maps its config, tensor names and tensors to those of the pruned model.

    Attributes:
        config: the dense model's config, of a multimodal one that of its text tower.
        family: its row in the family table.
        keep: the plan, as completed by `complete_keep`.
    """

    config: PreTrainedConfig
    family: Family
    keep: Keep

    @classmethod
    def of(cls, config: PreTrainedConfig, keep: Mapping[str, list]) -> "Cut":
        """Check a plan against a model.

        Raises:
            InputError: the model type has no row, the checkpoint is no language model, the plan does not fit it, or it
                cuts the width of quantised weights.
        """
        check_causal_lm(config)
        family = row_for(config)
        _check_quantised(config, keep)
        text_config = config.get_text_config()
        return cls(text_config, family, complete_keep(keep, text_config, family))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The dense model's number of units along each axis."""
        return axis_sizes(self.config, self.family)

    @cached_property
    def new_layers(self) -> dict[int, int]:
        """The layer index after the cut of each kept block, by its dense index."""
        return {layer: new_layer for new_layer, layer in enumerate(self.keep[LAYERS])}

    @property
    def cuts_width(self) -> bool:
        """Whether the shapes of tensors change, not only which tensors are kept."""
        return bool(self.keep.keys() - {LAYERS})

    def layer_of(self, name: str) -> int | None:
        """Return the index of the block that a tensor belongs to, or None outside the blocks."""
        match = match_block(name, self.family)
        return int(match["index"]) if match else None

    def kept_units(self, axis: str, layer: int | None) -> list[int] | None:
        """Return the kept units of an axis, or None if it is not cut."""
        if axis not in self.keep:
            return None
        return self.keep[axis] if axis not in PER_LAYER_AXES else self.keep[axis][layer]

    def new_name(self, name: str) -> str | None:
        """Return a tensor's name after the cut, or None if its block, expert or head is removed."""
        match = match_block(name, self.family)
        if match is None:
            return name
        layer = int(match["index"])
        if layer not in self.new_layers:
            return None
        suffix = self._renumbered(f".{name[match.end() :]}", layer)
        return suffix and f"{match['blocks']}.{self.new_layers[layer]}{suffix}"

    def _renumbered(self, suffix: str, layer: int) -> str | None:
        for pattern, axis in self.family.indexed_names.items():
            match, kept = re.search(pattern, suffix), self.kept_units(axis, layer)
            if match and kept is not None:
                if int(match[1]) not in kept:
                    return None
                suffix = f"{suffix[: match.start(1)]}{kept.index(int(match[1]))}{suffix[match.end(1) :]}"
        return suffix

    def kept_indices(self, name: str, shape: Iterable[int]) -> list[Tensor | None]:
        """Return the kept indices along each dimension of a tensor, or None for a dimension that is not cut.

        Raises:
            InputError: the plan cuts width and the family's row has no entry for this tensor.
        """
        axes, layer = self.family.dim_axes(name), self.layer_of(name)
        if not axes and self.cuts_width:
            raise InputError(f"the family row of {self.config.model_type} has no entry for the tensor {name!r}")
        return [self._dim_indices(parts, length, layer) for parts, length in zip(axes, shape, strict=False)]

    def _dim_indices(self, parts: tuple[str, ...], length: int, layer: int | None) -> Tensor | None:
        """Return the kept indices along a dimension that concatenates the units of one or several axes."""
        # A part that is no axis is one unit that is never cut, such as the only key head of a multi-query attention.
        counts = [self.sizes.get(axis, 1) for axis in parts]
        kept = [self.kept_units(axis, layer) for axis in parts]
        if all(units is None for units in kept):
            return None
        kept = [range(count) if units is None else units for units, count in zip(kept, counts, strict=True)]
        unit_length, remainder = divmod(length, sum(counts))
        if remainder:
            raise InputError(f"{length} rows do not divide into {' + '.join(map(str, counts))} units of {parts}")
        starts = [sum(counts[:index]) for index in range(len(counts))]
        units = [start + unit for start, units in zip(starts, kept, strict=True) for unit in units]
        return (torch.tensor(units)[:, None] * unit_length + torch.arange(unit_length)).flatten()

    def cut_tensor(self, name: str, tensor: Tensor) -> Tensor:
        """Return the kept part of a tensor: the same tensor if nothing is removed, otherwise a new one."""
        for dim, indices in enumerate(self.kept_indices(name, tensor.shape)):
            if indices is not None:
                tensor = tensor.index_select(dim, indices)
        return tensor

    def config_changes(self) -> dict:
        """Return the entries of config.json that the cut changes."""
        config, attribute_map = self.config, self.config.attribute_map
        changes: dict = {
            self.family.config_key(axis, attribute_map): size
            for axis, size in kept_sizes(self.keep).items()
            if axis != KV_HEADS or KV_HEADS in self.sizes
        }
        if self.family.reads_head_dim and {HEADS, HIDDEN} & self.keep.keys() and getattr(config, HEADS, None):
            changes[HEAD_DIM] = head_dim(config) or config.hidden_size // config.num_attention_heads
        if NEURONS in self.sizes and HIDDEN in self.keep:  # by default it is a multiple of hidden_size in GPT-2, Mamba
            changes.setdefault(self.family.config_key(NEURONS, attribute_map), self.sizes[NEURONS])
        if NEURONS in changes and getattr(config, "block_auto_adjust_ff_dim", False):
            changes["block_auto_adjust_ff_dim"] = False  # LFM2 would make another number of it
        if HEADS in self.keep:
            changes |= dict.fromkeys(self.family.head_keys, len(self.keep[HEADS][0]))
        if HIDDEN in self.keep:
            changes |= dict.fromkeys(self.family.hidden_size_keys, len(self.keep[HIDDEN]))
            changes |= self._expansions()
        return changes | self._layer_changes()

    def _expansions(self) -> dict:
        """Return the factors of hidden_size that leave a mixer as wide as it is; transformers takes whole ones."""
        kept, changes = len(self.keep[HIDDEN]), {}
        for key in self.family.expansion_keys:
            width = getattr(self.config, key) * self.sizes[HIDDEN]
            if width % kept:
                allowed = [str(size) for size in range(1, self.sizes[HIDDEN]) if width % size == 0][-4:]
                raise InputError(
                    f"keep.{HIDDEN} keeps {kept} channels, but {self.config.model_type} has a mixer of {width}, {key} "
                    f"times {HIDDEN}; allowed: divisors of that, such as {', '.join(allowed)}"
                )
            changes[key] = width // kept
        if getattr(self.config, "dim_model_base", None):  # MiniCPM divides logits by hidden_size / dim_model_base
            changes["dim_model_base"] = self._scaled_base()
        return changes

    def _scaled_base(self) -> int:
        """Return MiniCPM's dim_model_base, which keeps its ratio to hidden_size."""
        base, kept, dense = self.config.dim_model_base, len(self.keep[HIDDEN]), self.sizes[HIDDEN]
        if base * kept % dense:
            raise InputError(
                f"keep.{HIDDEN} keeps {kept} of {dense} channels, and dim_model_base, {base}, cannot shrink as much; "
                f"allowed: multiples of {dense // math.gcd(base, dense)}"
            )
        return base * kept // dense

    def _layer_changes(self) -> dict:
        changes = pattern_changes(self.config, self.keep[LAYERS], self.family.per_layer_keys)
        quantisation = getattr(self.config, "quantization_config", None)
        if quantisation is not None:
            changes["quantization_config"] = self._with_new_names(quantisation)
        return changes

    def _with_new_names(self, value: object) -> object:
        """Renumber the blocks in the module lists of a quantisation config."""
        if isinstance(value, dict):
            return {key: self._with_new_names(inner) for key, inner in value.items()}
        if isinstance(value, list):
            renamed = (self._with_new_names(inner) for inner in value)
            return [inner for inner in renamed if inner is not None]
        if isinstance(value, str):
            renamed = self.new_name(f"{value}.")
            return renamed and renamed.removesuffix(".")
        return value


def _check_quantised(config: PreTrainedConfig, keep: Mapping[str, list]) -> None:
    width = sorted(keep.keys() - {LAYERS, EXPERTS})
    if width and getattr(config, "quantization_config", None) is not None:
        raise InputError(
            f"the checkpoint is quantised: {LAYERS} and {EXPERTS} can be cut, {width[0]} cannot, because its packed "
            f"weights share scales; start from the unquantised checkpoint"
        )


def head_dim(config: PreTrainedConfig) -> int | None:
    """Return a config's head_dim, or None if it has none; where blocks differ in it, that of the config as a whole."""
    values = config.to_dict()
    return values[HEAD_DIM] if HEAD_DIM in values else getattr(config, HEAD_DIM, None)


def match_block(name: str, family: Family) -> re.Match | None:
    """Match the block prefix of a tensor name: groups `blocks` and `index`."""
    # Some checkpoints (GPT-2's on the hub) were saved from the bare backbone, without its name as a prefix.
    backbone, _, blocks = family.blocks_prefix.partition(".")
    in_memory = rf"|{re.escape(family.module_prefix)}" if family.module_prefix else ""
    prefix = rf"({re.escape(backbone)}\.)?{re.escape(blocks)}{in_memory}"
    return re.match(rf"(?P<blocks>{prefix})\.(?P<index>\d+)\.", name)


def meta_model(config: PreTrainedConfig, keep: Mapping[str, list] | None = None) -> torch.nn.Module:
    """Return the dense or pruned model on the meta device: shapes without memory."""
    if keep is not None:
        config = changed_config(config, Cut.of(config, keep).config_changes())
    try:
        with torch.device("meta"):
            return model_class(config).from_config(config, attn_implementation="eager")
    except ValueError as error:
        raise _impossible(config, error) from error


def in_text_config(config: PreTrainedConfig, values: Mapping[str, object], changes: Mapping[str, object]) -> dict:
    """Return a config's values with changes to its text tower's, which a multimodal config holds in a dict.

    Args:
        config: the config.
        values: its content, as in config.json.
        changes: entries of the text tower's config.
    """
    text = config.get_text_config()
    names = [name for name in config.sub_configs if getattr(config, name, None) is text and text is not config]
    return dict(values) | ({names[0]: dict(values[names[0]]) | dict(changes)} if names else dict(changes))


def changed_config(config: PreTrainedConfig, changes: Mapping[str, object]) -> PreTrainedConfig:
    """Return a config with some entries changed, those of the text tower in a multimodal one.

    Raises:
        InputError: its class does not allow them, such as a hybrid that must keep an attention block.
    """
    try:
        return type(config).from_dict(in_text_config(config, config.to_dict(), changes))
    except (StrictDataclassError, ValueError) as error:
        raise _impossible(config, error) from error


def _impossible(config: PreTrainedConfig, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[-1].strip().removeprefix("ValueError: ")
    return InputError(f"transformers allows no {config.model_type} like this: {reason}")
