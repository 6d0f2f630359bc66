"""What pruned models cost (parameters, bytes on disk, bytes of weights and KV cache), and budgets for that cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import StaticCache

from trl_prune.checkpoints import read_header, tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.families import HEAD_DIM, HEADS, KV_HEADS, LAYERS, Family
from trl_prune.pruning.keep import axis_sizes, heads_divide_hidden, row_for
from trl_prune.pruning.sizes.formula import Amounts, Formula, Sizes
from trl_prune.pruning.surgery.cut import meta_model


@dataclass(frozen=True)
class Costs:
    """The cost of any model cut from one dense checkpoint.

    Attributes:
        config: the dense model's config.
        family: its row.
        parameter_formula: number of parameters, tied weights counted once.
        disk_formula: bytes of the weights on disk.
    """

    config: PreTrainedConfig
    family: Family
    parameter_formula: Formula
    disk_formula: Formula

    @classmethod
    def of(cls, config: PreTrainedConfig, folder: Path | None = None) -> "Costs":
        """Return the costs of models cut from a checkpoint.

        Args:
            config: the dense model's config.
            folder: the dense checkpoint, whose files give the bytes of each weight; without it, weights take as many
                bytes as in the config's dtype.

        Raises:
            InputError: the model type has no row.
        """
        family = row_for(config)
        sizes = axis_sizes(config, family)
        counts = {name: (weight.shape, weight.numel()) for name, weight in meta_model(config).named_parameters()}
        if folder is None:
            itemsize = _dtype(config).itemsize
            stored: Amounts = {name: (shape, itemsize * count) for name, (shape, count) in counts.items()}
        else:
            stored = stored_amounts(folder)
        formulas = Formula.of(counts, sizes, family), Formula.of(stored, sizes, family)
        return cls(config.get_text_config(), family, *formulas)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The dense model's axis sizes."""
        return axis_sizes(self.config, self.family)

    @cached_property
    def heads_divide_hidden(self) -> bool:
        """Whether the model's config requires that hidden_size be a multiple of num_attention_heads."""
        return heads_divide_hidden(self.config)

    @property
    def blocks_cost_the_same(self) -> bool:
        """Whether the cost depends on the number of kept blocks only, not on which blocks they are."""
        weights = self.parameter_formula.distinct_blocks, self.disk_formula.distinct_blocks
        same_cache = HEADS not in self.sizes or len(set(self._positions(1 << 30))) == 1
        return same_cache and all(len(distinct) == 1 for distinct in weights)

    def num_parameters(self, sizes: Sizes, layers: Sequence[int]) -> int:
        """Return the parameters of a model of these sizes that keeps these dense blocks."""
        return self.parameter_formula.amount(sizes, layers)

    def disk_bytes(self, sizes: Sizes, layers: Sequence[int]) -> int:
        """Return the bytes of its weights on disk, without the files' headers (a few kilobytes)."""
        return self.disk_formula.amount(sizes, layers)

    def cache_bytes(self, sizes: Sizes, layers: Sequence[int], batch_size: int, max_model_len: int) -> int:
        """Return the bytes of its KV cache in the config's dtype; a sliding window holds at most its window.

        Args:
            sizes: its axis sizes.
            layers: the dense blocks that it keeps.
            batch_size: number of sequences.
            max_model_len: tokens of each sequence.

        Raises:
            InputError: the cache is not one of keys and values of heads in every block.
        """
        if HEADS not in self.sizes:
            raise InputError(
                f"the memory of {self.config.model_type}'s cache is not known; "
                "give a budget of parameters, share or bytes"
            )
        positions = self._positions(max_model_len)
        head_dim = getattr(self.config, HEAD_DIM, None) or self.config.hidden_size // self.sizes[HEADS]
        kv_heads = sizes[KV_HEADS] if KV_HEADS in self.sizes else sizes[HEADS]
        bytes_per_position = 2 * kv_heads * head_dim * _dtype(self.config).itemsize
        return batch_size * sum(positions[layer] for layer in layers) * bytes_per_position

    def _positions(self, max_model_len: int) -> list[int]:
        """Return the number of cached positions of each dense block."""
        return [layer.max_cache_len for layer in StaticCache(self.config, max_cache_len=max_model_len).layers]


def stored_amounts(folder: Path) -> Amounts:
    """Return the shape and the bytes of each stored tensor, from the headers of a checkpoint's files."""
    amounts = {}
    for path in sorted(set(tensor_files(folder).values())):
        for name, entry in read_header(path).items():
            start, end = entry["data_offsets"]
            amounts[name] = (tuple(entry["shape"]), end - start)
    return amounts


def _dtype(config: PreTrainedConfig) -> torch.dtype:
    return config.dtype or torch.float32


@dataclass(frozen=True)
class Budget:
    """How large a pruned model may be: exactly one of `parameters`, `share`, `bytes` and `memory`.

    Attributes:
        parameters: number of parameters, tied weights counted once.
        share: the same as a share of the dense model's parameters, in 0..1.
        bytes: bytes of weights on disk.
        memory: bytes of weights and KV cache.
        tolerance: relative tolerance of the budget. A number of parameters may be missed by it on either side
            (2407.14679, section 4.3: 5 %); bytes are an upper bound and may be undercut by it. None: an upper bound
            without a lower one.
        batch_size: for `memory`, number of sequences in the KV cache.
        max_model_len: for `memory`, tokens of each sequence.
    """

    parameters: float | None = None
    share: float | None = None
    bytes: float | None = None
    memory: float | None = None
    tolerance: float | None = None
    batch_size: int = 1
    max_model_len: int = 4096

    @property
    def quantity(self) -> str:
        """What is counted: `parameters`, `bytes` or `memory`."""
        if self.bytes is not None:
            return "bytes"
        return "parameters" if self.memory is None else "memory"

    def bounds(self, costs: Costs) -> tuple[float, float]:
        """Return the lowest and the highest cost that fit the budget."""
        limit = self.parameters or self.bytes or self.memory
        if self.share is not None:
            limit = self.share * costs.num_parameters(costs.sizes, range(costs.sizes[LAYERS]))
        if self.tolerance is None:
            return 0, limit
        high = limit * (1 + self.tolerance) if self.quantity == "parameters" else limit
        return limit * (1 - self.tolerance), high

    def cost(self, costs: Costs, sizes: Sizes, layers: Sequence[int]) -> int:
        """Return what the budget counts, of a model of these sizes that keeps these dense blocks."""
        if self.quantity == "parameters":
            return costs.num_parameters(sizes, layers)
        weights = costs.disk_bytes(sizes, layers)
        if self.quantity == "bytes":
            return weights
        return weights + costs.cache_bytes(sizes, layers, self.batch_size, self.max_model_len)

    def describe(self, costs: Costs) -> str:
        """Return the bounds as text, such as `3,800,000,000 to 4,200,000,000 parameters`."""
        low, high = self.bounds(costs)
        cache = f"batch_size {self.batch_size}, max_model_len {self.max_model_len:,}"
        unit = {"bytes": "bytes on disk", "memory": f"bytes of weights and KV cache at {cache}"}
        return f"{low:,.0f} to {high:,.0f} {unit.get(self.quantity, self.quantity)}"
