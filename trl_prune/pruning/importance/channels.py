"""Running sums over what channels carry, from which any aggregation over tokens and texts can be told afterwards.

Importance of a channel is an aggregation over the tokens of each text, then over the texts (2407.14679, section 2.2:
mean, L2 and variance for either). Each text's three statistics go into a sum and a sum of squares, so one pass serves
all nine pairs. Padding is masked out text by text: a score does not depend on how texts were batched.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.pruning.importance.observation import Site, input_device, watched


# The statistics of a text, in their order in the sums.
STATISTICS = ("mean", "l2", "var")
# Activations are read a few tokens at a time, so that the temporaries of the three sums stay in the cache of a CPU.
ELEMENTS_AT_A_TIME = {"cpu": 2**17, "cuda": 2**26}

ChannelSums = dict[str, Tensor]


class ChannelObserver:
    """Adds up what channels carry at the given sites.

    Attributes:
        sums: by axis `(sites, 3, 2, channels)`, float64, sites in the model's order: the statistics of a text (as in
            STATISTICS) by power (first, second). Axes appear with the first batch.
    """

    def __init__(self, sites: Iterable[Site], sums: ChannelSums | None = None) -> None:
        self.sites = list(sites)
        self.sums: ChannelSums = {} if sums is None else sums
        self._counts = Counter(site.axis for site in self.sites)
        seen: Counter = Counter()
        self._places = {}
        for site in self.sites:
            self._places[site] = seen[site.axis]
            seen[site.axis] += 1

    def attached(self, model: PreTrainedModel) -> AbstractContextManager:
        """Return a context in which the sites are read; the sums move to the model's device."""
        self._device = input_device(model)
        self.sums.update({axis: sums.to(self._device) for axis, sums in self.sums.items()})
        return watched(self.sites, self._read)

    def before(self, mask: Tensor) -> None:
        """Learn which positions are tokens."""
        self._mask = mask

    def after(self) -> None:
        """Add nothing: activations are summed as they pass."""

    def _read(self, site: Site, activation: Tensor) -> None:
        mask = self._mask.to(activation.device)
        statistics = text_statistics(activation.reshape(*mask.shape, -1), mask)
        added = torch.stack([statistics.sum(dim=1), statistics.square_().sum(dim=1)], dim=1)
        if site.axis not in self.sums:
            shape = (self._counts[site.axis], *added.shape)
            self.sums[site.axis] = torch.zeros(shape, dtype=torch.float64, device=self._device)
        self.sums[site.axis][self._places[site]] += added.to(self._device)


def text_statistics(activation: Tensor, mask: Tensor) -> Tensor:
    """Return each text's mean of |x|, L2 norm and variance of x over its tokens, `(3, rows, channels)`, float32.

    Args:
        activation: `(rows, tokens, channels)`.
        mask: `(rows, tokens)`, 1 at tokens.
    """
    plain, absolute, squares = masked_sums(activation, mask)
    share = 1 / mask.sum(dim=1, keepdim=True).clamp(min=1)
    statistics = torch.empty(3, *plain.shape, device=plain.device)
    torch.mul(absolute, share, out=statistics[0])
    torch.sqrt(squares, out=statistics[1])
    torch.mul(squares, share, out=statistics[2]).sub_(plain.mul_(share).square_()).clamp_(min=0)
    return statistics


def masked_sums(activation: Tensor, mask: Tensor) -> Tensor:
    """Return the sums over tokens of x, |x| and x^2, `(3, rows, channels)`, float32.

    The sums are products with the mask: reading alone, at the speed of memory.
    """
    rows, tokens, channels = activation.shape
    sums = torch.zeros(3, rows, 1, channels, device=activation.device)
    weights = mask.float()[:, None]
    limit = ELEMENTS_AT_A_TIME.get(activation.device.type, ELEMENTS_AT_A_TIME["cuda"])
    step = max(1, limit // (rows * channels))
    room = torch.empty(rows, min(step, tokens), channels, device=activation.device)  # asked of the system once
    for start in range(0, tokens, step):
        chunk, weight = activation[:, start : start + step].float(), weights[:, :, start : start + step]
        magnitude = torch.abs(chunk, out=room[:, : chunk.shape[1]])
        sums[0].baddbmm_(weight, chunk)
        sums[1].baddbmm_(weight, magnitude)
        sums[2].baddbmm_(weight, magnitude.square_())
    return sums.squeeze(2)


def aggregated(sums: Tensor, texts: int, batch: str = "l2", sequence: str = "mean") -> Tensor:
    """Return channels' importance: the statistic of each text, aggregated over texts.

    Args:
        sums: `(..., 3, 2, channels)`, as ChannelObserver fills them.
        texts: how many texts they hold.
        batch: the aggregation over texts: mean, l2 or var.
        sequence: the aggregation over a text's tokens, made first.

    Returns:
        `(..., channels)`, float64, in the activation's unit (its square for a variance).
    """
    first, second = sums[..., STATISTICS.index(sequence), :, :].unbind(dim=-2)
    return OVER_TEXTS[batch](first, second, max(texts, 1))


OVER_TEXTS = {
    "mean": lambda first, _, texts: first / texts,
    "l2": lambda _, second, __: second.sqrt(),
    "var": lambda first, second, texts: (second / texts - (first / texts).square()).clamp(min=0),
}
