"""Budgets, and what models cut from one dense model cost: parameters, bytes on disk, bytes of weights and KV cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import StaticCache

from trl_prune.checkpoints import read_header, tensor_files
from trl_prune.pruning.families import GROUPS, HEAD_DIM, HEADS, HIDDEN, Family, family_of
from trl_prune.pruning.keep import axis_sizes, heads_divide_hidden
from trl_prune.pruning.sizes.formula import Amounts, Formula, Sizes
from trl_prune.pruning.surgery.cut import meta_model


@dataclass(frozen=True)
class Costs:
    """What models cut from one dense checkpoint cost.

    Attributes:
        config: the dense model's config.
        family: its row.
        parameters: every weight once, tied ones too.
        stored: the weights on disk, in bytes.
    """

    config: PreTrainedConfig
    family: Family
    parameters: Formula
    stored: Formula

    @classmethod
    def of(cls, config: PreTrainedConfig, folder: Path | None = None) -> "Costs":
        """Return the costs of models cut from a checkpoint.

        Args:
            config: the dense model's config.
            folder: the dense checkpoint, whose files say how many bytes each weight takes; where left out, as many as
                the config's dtype does.

        Raises:
            InputError: the model type has no row.
        """
        family = family_of(config.model_type)
        sizes = axis_sizes(config, family)
        counted = {name: (weight.shape, weight.numel()) for name, weight in meta_model(config).named_parameters()}
        parameters = Formula.of(counted, sizes, family)
        width = _dtype(config).itemsize
        told = {name: (shape, width * number) for name, (shape, number) in counted.items()}
        stored = Formula.of(told if folder is None else stored_amounts(folder), sizes, family)
        return cls(config, family, parameters, stored)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The dense model's axis sizes."""
        return axis_sizes(self.config, self.family)

    @cached_property
    def heads_divide_hidden(self) -> bool:
        """Whether the model's config demands that hidden_size be a multiple of num_attention_heads."""
        return heads_divide_hidden(self.config)

    @property
    def blocks_are_alike(self) -> bool:
        """Whether it does not matter for the size which blocks go."""
        return len(self.parameters.kinds) == len(self.stored.kinds) == 1 and len(set(self._positions(1 << 30))) == 1

    def count(self, sizes: Sizes, layers: Sequence[int]) -> int:
        """Return the parameters of a model of these sizes, made of these dense blocks."""
        return self.parameters.amount(sizes, self.parameters.blocks_of_each_kind(layers))

    def disk_bytes(self, sizes: Sizes, layers: Sequence[int]) -> int:
        """Return the bytes of its weights on disk, without the header of some kilobytes."""
        return self.stored.amount(sizes, self.stored.blocks_of_each_kind(layers))

    def cache_bytes(self, sizes: Sizes, layers: Sequence[int], batch: int, context: int) -> int:
        """Return the bytes of its KV cache, in the config's dtype; sliding windows hold no more than their window.

        Args:
            sizes: its axis sizes.
            layers: the dense blocks it is made of.
            batch: texts at a time.
            context: tokens of each.
        """
        positions = self._positions(context)
        head_dim = getattr(self.config, HEAD_DIM, None) or self.sizes[HIDDEN] // self.sizes[HEADS]
        heads = sizes[GROUPS] if GROUPS in self.sizes else sizes[HEADS]
        a_position = 2 * heads * head_dim * _dtype(self.config).itemsize
        return batch * sum(positions[layer] for layer in layers) * a_position

    def _positions(self, context: int) -> list[int]:
        return [layer.max_cache_len for layer in StaticCache(self.config, max_cache_len=context).layers]


def stored_amounts(folder: Path) -> Amounts:
    """Return each stored tensor's shape and bytes, from the headers of a checkpoint's files."""
    told = {}
    for path in sorted(set(tensor_files(folder).values())):
        for name, entry in read_header(path).items():
            start, end = entry["data_offsets"]
            told[name] = (tuple(entry["shape"]), end - start)
    return told


def _dtype(config: PreTrainedConfig) -> torch.dtype:
    return config.dtype or torch.float32


@dataclass(frozen=True)
class Budget:
    """How large a model may be.

    Attributes:
        of: what is counted: `parameters`, `bytes` on disk, or `memory`: bytes of weights and KV cache.
        low: at least so much.
        high: at most so much.
        batch: texts whose KV cache counts, for `memory`.
        context: tokens of each.
    """

    of: str
    low: float
    high: float
    batch: int = 1
    context: int = 4096

    @classmethod
    def around(cls, parameters: float, tolerance: float = 0.05) -> "Budget":
        """Return the budget of a number of parameters, give or take a share (2407.14679, section 4.3: 5 %)."""
        return cls("parameters", parameters * (1 - tolerance), parameters * (1 + tolerance))

    def cost(self, costs: Costs, sizes: Sizes, layers: Sequence[int]) -> int:
        """Return what a model of these sizes, made of these dense blocks, costs."""
        if self.of == "parameters":
            return costs.count(sizes, layers)
        weights = costs.disk_bytes(sizes, layers)
        if self.of == "bytes":
            return weights
        return weights + costs.cache_bytes(sizes, layers, self.batch, self.context)

    def __str__(self) -> str:
        """Say what fits, in digits."""
        what = {"parameters": "parameters", "bytes": "bytes on disk"}.get(
            self.of, f"bytes of weights and KV cache at batch {self.batch}, context {self.context:,}"
        )
        return f"{self.low:,.0f} to {self.high:,.0f} {what}"
