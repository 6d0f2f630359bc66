"""A checked plan applied to a model's config, tensor names and tensors; live modules are never edited."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from trl_prune.errors import InputError
from trl_prune.pruning.families import EXPERTS, GROUPS, HEAD_DIM, HEADS, HIDDEN, LAYERS, NEURONS, Family, family_of
from trl_prune.pruning.keep import PER_LAYER, Keep, axis_sizes, complete_keep, kept_sizes


@dataclass(frozen=True)
class Cut:
    """A checked plan at work on one model: what becomes of its config, its tensors' names and its tensors.

    Attributes:
        config: the dense model's config.
        family: its row.
        keep: the plan, complete.
    """

    config: PreTrainedConfig
    family: Family
    keep: Keep

    @classmethod
    def of(cls, config: PreTrainedConfig, keep: Mapping[str, list]) -> "Cut":
        """Check a plan against a model.

        Raises:
            InputError: the model type has no row, the plan does not fit, or the weights are quantised and width goes.
        """
        family = family_of(config.model_type)
        _check_quantised(config, keep)
        return cls(config, family, complete_keep(keep, config, family))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The dense model's units of each axis."""
        return axis_sizes(self.config, self.family)

    @cached_property
    def places(self) -> dict[int, int]:
        """Each kept block's number after the cut."""
        return {layer: place for place, layer in enumerate(self.keep[LAYERS])}

    @property
    def is_width(self) -> bool:
        """Whether tensors change, not only which of them stay."""
        return bool(self.keep.keys() - {LAYERS})

    def layer_of(self, name: str) -> int | None:
        """Return the block a tensor belongs to, or None outside the blocks."""
        match = block_of(name, self.family)
        return int(match["index"]) if match else None

    def indices(self, axis: str, layer: int | None) -> list[int] | None:
        """Return the kept units of an axis, or None where all stay."""
        if axis not in self.keep:
            return None
        return self.keep[axis] if axis not in PER_LAYER else self.keep[axis][layer]

    def name(self, name: str) -> str | None:
        """Return a tensor's name after the cut, or None where it goes with its block, expert or head."""
        match = block_of(name, self.family)
        if match is None:
            return name
        layer = int(match["index"])
        if layer not in self.places:
            return None
        rest = self._renumbered(f".{name[match.end() :]}", layer)
        return rest and f"{match['blocks']}.{self.places[layer]}{rest}"

    def _renumbered(self, rest: str, layer: int) -> str | None:
        for pattern, axis in self.family.numbered.items():
            match, kept = re.search(pattern, rest), self.indices(axis, layer)
            if match and kept is not None:
                if int(match[1]) not in kept:
                    return None
                rest = f"{rest[: match.start(1)]}{kept.index(int(match[1]))}{rest[match.end(1) :]}"
        return rest

    def rows(self, name: str, shape: Iterable[int]) -> list[Tensor | None]:
        """Return, for each dimension of a tensor, the indices that stay, or None where all do.

        Raises:
            InputError: width goes, and the family's row does not say what this tensor's dimensions are.
        """
        dims = self.family.axis_dims(name)
        if not dims and self.is_width:
            raise InputError(f"the row of {self.config.model_type} says nothing about the tensor {name!r}")
        layer = self.layer_of(name)
        return [self._rows(parts, length, layer) for parts, length in zip(dims, shape, strict=False)]

    def _rows(self, parts: tuple[str, ...], length: int, layer: int | None) -> Tensor | None:
        kept = [self.indices(axis, layer) for axis in parts]
        if all(indices is None for indices in kept):
            return None
        counts = [self.sizes[axis] for axis in parts]
        unit, rest = divmod(length, sum(counts))
        if rest:
            raise InputError(f"{length} rows do not divide into {' + '.join(map(str, counts))} units of {parts}")
        starts = [sum(counts[:place]) for place in range(len(counts))]
        units = [start + index for start, indices in zip(starts, kept, strict=True) for index in indices]
        return (torch.tensor(units)[:, None] * unit + torch.arange(unit)).flatten()

    def tensor(self, name: str, tensor: Tensor) -> Tensor:
        """Return what stays of a tensor: itself where nothing goes, else a new one."""
        for dim, rows in enumerate(self.rows(name, tensor.shape)):
            if rows is not None:
                tensor = tensor.index_select(dim, rows)
        return tensor

    def changed_config(self) -> dict:
        """Return the entries of config.json that the cut changes."""
        config, attribute_map = self.config, self.config.attribute_map
        changed: dict = {
            self.family.key(axis, attribute_map): size
            for axis, size in kept_sizes(self.keep).items()
            if axis != GROUPS or GROUPS in self.sizes
        }
        if self.family.head_dim_free and {HEADS, HIDDEN} & self.keep.keys():
            changed[HEAD_DIM] = getattr(config, HEAD_DIM, None) or self.sizes[HIDDEN] // self.sizes[HEADS]
        if NEURONS in self.family.keys and HIDDEN in self.keep:  # GPT-2's default follows hidden_size
            changed.setdefault(self.family.keys[NEURONS], self.sizes[NEURONS])
        if HIDDEN in self.keep:
            changed |= dict.fromkeys(self.family.as_hidden, len(self.keep[HIDDEN]))
        return changed | self._per_layer_entries()

    def _per_layer_entries(self) -> dict:
        layers, changed = self.keep[LAYERS], {}
        for key in self.family.per_layer:
            # Read from the config object, which fills in lists that config.json leaves to a pattern over all blocks.
            entries = getattr(self.config, key, None)
            if entries is not None:
                changed[key] = [entries[index] for index in layers]
        if self.family.sparse_layers:
            dense = [place for place, layer in enumerate(layers) if not _has_experts(self.config, layer)]
            changed |= {"mlp_only_layers": dense, "decoder_sparse_step": 1}
        quantisation = getattr(self.config, "quantization_config", None)
        if quantisation is not None:
            changed["quantization_config"] = self._renamed(quantisation)
        return changed

    def _renamed(self, value: object) -> object:
        """Renumber the blocks in a quantisation's lists of modules."""
        if isinstance(value, dict):
            return {key: self._renamed(inner) for key, inner in value.items()}
        if isinstance(value, list):
            renamed = (self._renamed(inner) for inner in value)
            return [inner for inner in renamed if inner is not None]
        if isinstance(value, str):
            renamed = self.name(f"{value}.")
            return renamed and renamed.removesuffix(".")
        return value


def _has_experts(config: PreTrainedConfig, layer: int) -> bool:
    """Repeat the rule of Qwen's MoE models for which blocks have experts."""
    return layer not in (config.mlp_only_layers or []) and (layer + 1) % config.decoder_sparse_step == 0


def _check_quantised(config: PreTrainedConfig, keep: Mapping[str, list]) -> None:
    width = sorted(keep.keys() - {LAYERS, EXPERTS})
    if width and getattr(config, "quantization_config", None) is not None:
        raise InputError(
            f"the checkpoint is quantised: {LAYERS} and {EXPERTS} can be cut, {width[0]} cannot, because its packed "
            f"weights share scales; start from the unquantised checkpoint"
        )


def block_of(name: str, family: Family) -> re.Match | None:
    """Return the match of a tensor's name with its block's prefix: groups `blocks` and `index`."""
    # Some checkpoints (GPT-2's on the hub) were saved from the bare backbone and lack its name in front.
    backbone, _, blocks = family.blocks.partition(".")
    return re.match(rf"(?P<blocks>({re.escape(backbone)}\.)?{re.escape(blocks)})\.(?P<index>\d+)\.", name)


def meta_model(config: PreTrainedConfig, keep: Mapping[str, list] | None = None) -> torch.nn.Module:
    """Return the (pruned) model without memory: shapes only, on the meta device."""
    from transformers import AutoModelForCausalLM

    if keep is not None:
        config = type(config).from_dict(config.to_dict() | Cut.of(config, keep).changed_config())
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager")
