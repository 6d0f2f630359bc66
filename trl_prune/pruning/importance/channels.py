"""Running sums of channel activations, from which any aggregation over tokens and texts can be computed afterwards.

Importance of a channel is an aggregation over the tokens of each text, then over the texts (2407.14679, section 2.2:
mean, L2 and variance for either). Each text's three statistics go into a sum and a sum of squares, so one pass serves
all nine pairs. Padding is masked out per text: a score does not depend on how texts were batched.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.pruning.importance.forward import input_device
from trl_prune.pruning.importance.hooks import Site, activation_hooks


# The statistics of a text, in their order in the sums.
STATISTICS = ("mean", "l2", "var")
# Activations are summed in chunks of tokens, so that the temporaries of the three sums stay in the cache of a CPU.
ELEMENTS_PER_CHUNK = {"cpu": 2**17, "cuda": 2**26}

ChannelSums = dict[str, Tensor]


class ChannelObserver:
    """Accumulates statistics of the channels at the given sites.

    Attributes:
        sums: by axis `(sites, 3, 2, channels)`, float64, sites in the model's order: the statistics of a text (as in
            STATISTICS) by power (first, second). An axis is added with the first batch. Where units are wider in some
            blocks (Gemma 4's heads), those of the others end in zeros.
    """

    def __init__(
        self, sites: Iterable[Site], sums: ChannelSums | None = None, units: Mapping[str, int] | None = None
    ) -> None:
        self.sites, self._units = list(sites), units or {}
        self.sums: ChannelSums = {} if sums is None else sums
        self._counts: Counter = Counter()
        self._indices = {}  # of each site among those of its axis
        for site in self.sites:
            self._indices[site] = self._counts[site.key]
            self._counts[site.key] += 1

    def attach(self, model: PreTrainedModel) -> AbstractContextManager:
        """Return a context in which the sites are read; the sums move to the model's device."""
        self._device = input_device(model)
        self.sums.update({axis: sums.to(self._device) for axis, sums in self.sums.items()})
        return activation_hooks(self.sites, self._add)

    def before_forward(self, attention_mask: Tensor) -> None:
        """Store which positions are tokens."""
        self._mask = attention_mask

    def after_forward(self) -> None:
        """Do nothing: activations are summed in the hooks."""

    def _add(self, site: Site, activation: Tensor) -> None:
        mask = self._mask.to(activation.device)
        statistics = text_statistics(activation.reshape(*mask.shape, -1), mask)
        powers = torch.stack([statistics.sum(dim=1), statistics.square_().sum(dim=1)], dim=1)
        if site.key not in self.sums:
            shape = (self._counts[site.key], *powers.shape)
            self.sums[site.key] = torch.zeros(shape, dtype=torch.float64, device=self._device)
        channels = max(powers.shape[-1], self.sums[site.key].shape[-1])
        self.sums[site.key] = self._widened(self.sums[site.key], site.key, channels)
        self.sums[site.key][self._indices[site]] += self._widened(powers, site.key, channels).to(self._device)

    def _widened(self, sums: Tensor, axis: str, channels: int) -> Tensor:
        """Return sums of some number of channels, with zeros at the end of every unit."""
        if sums.shape[-1] == channels:
            return sums
        by_unit = sums.unflatten(-1, (self._units[axis], -1))
        return torch.nn.functional.pad(by_unit, (0, channels // self._units[axis] - by_unit.shape[-1])).flatten(-2)


def text_statistics(activation: Tensor, mask: Tensor) -> Tensor:
    """Return each text's mean of |x|, L2 norm and variance of x over its tokens, `(3, rows, channels)`, float32.

    Args:
        activation: `(rows, tokens, channels)`.
        mask: `(rows, tokens)`, 1 at tokens.
    """
    plain, absolute, squares = masked_sums(activation, mask)
    token_weight = 1 / mask.sum(dim=1, keepdim=True).clamp(min=1)
    statistics = torch.empty(3, *plain.shape, device=plain.device)
    torch.mul(absolute, token_weight, out=statistics[0])
    torch.sqrt(squares, out=statistics[1])
    torch.mul(squares, token_weight, out=statistics[2]).sub_(plain.mul_(token_weight).square_()).clamp_(min=0)
    return statistics


def masked_sums(activation: Tensor, mask: Tensor) -> Tensor:
    """Return the sums over tokens of x, |x| and x^2, `(3, rows, channels)`, float32.

    The sums are products with the mask, which run at memory bandwidth.
    """
    rows, tokens, channels = activation.shape
    sums = torch.zeros(3, rows, 1, channels, device=activation.device)
    weights = mask.float()[:, None]
    limit = ELEMENTS_PER_CHUNK.get(activation.device.type, ELEMENTS_PER_CHUNK["cuda"])
    step = max(1, limit // (rows * channels))
    buffer = torch.empty(rows, min(step, tokens), channels, device=activation.device)  # allocated once
    for start in range(0, tokens, step):
        chunk, weight = activation[:, start : start + step].float(), weights[:, :, start : start + step]
        magnitude = torch.abs(chunk, out=buffer[:, : chunk.shape[1]])
        sums[0].baddbmm_(weight, chunk)
        sums[1].baddbmm_(weight, magnitude)
        sums[2].baddbmm_(weight, magnitude.square_())
    return sums.squeeze(2)


def aggregate(sums: Tensor, num_texts: int, batch: str = "l2", sequence: str = "mean") -> Tensor:
    """Return the importance of channels: each text's statistic over tokens, aggregated over texts.

    Args:
        sums: `(..., 3, 2, channels)`, as filled by ChannelObserver.
        num_texts: number of texts in the sums.
        batch: the aggregation over texts: mean, l2 or var.
        sequence: the aggregation over the tokens of a text, done first.

    Returns:
        `(..., channels)`, float64, in the unit of the activations (its square for a variance).
    """
    first, second = sums[..., STATISTICS.index(sequence), :, :].unbind(dim=-2)
    return TEXT_AGGREGATIONS[batch](first, second, max(num_texts, 1))


# Functions of the sums of a statistic and of its square over texts, and of the number of texts.
TEXT_AGGREGATIONS = {
    "mean": lambda first, _, num_texts: first / num_texts,
    "l2": lambda _, second, __: second.sqrt(),
    "var": lambda first, second, num_texts: (second / num_texts - (first / num_texts).square()).clamp(min=0),
}
