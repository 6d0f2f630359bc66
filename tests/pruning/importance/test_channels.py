"""Reference: numpy in float64, one text at a time, in the order of the definition: tokens first, then texts."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.pruning.families import HEADS
from trl_prune.pruning.importance.channels import (
    ELEMENTS_PER_CHUNK,
    STATISTICS,
    TEXT_AGGREGATIONS,
    ChannelObserver,
    aggregate,
    masked_sums,
    text_statistics,
)
from trl_prune.pruning.importance.hooks import Site


REFERENCE = {
    "mean": lambda values: np.abs(values).mean(axis=0),
    "l2": lambda values: np.sqrt((values**2).sum(axis=0)),
    "var": lambda values: ((values - values.mean(axis=0)) ** 2).mean(axis=0),
}
CHANNELS = 3
texts = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def reference(activations: list[np.ndarray], batch: str, sequence: str) -> np.ndarray:
    return REFERENCE[batch](np.stack([REFERENCE[sequence](text) for text in activations]))


def random_texts(lengths: list[int], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, CHANNELS)) * 3 + 1 for length in lengths]


def padded(activations: list[np.ndarray], starts: list[int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return activations and mask of a batch with each text at its start index, padded with other values."""
    states, mask = torch.full((len(activations), width, CHANNELS), 99.0), torch.zeros(len(activations), width)
    for row, (text, start) in enumerate(zip(activations, starts, strict=True)):
        states[row, start : start + len(text)] = torch.from_numpy(text).float()
        mask[row, start : start + len(text)] = 1
    return states, mask.long()


def summed(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    batch_statistics = [text_statistics(states, mask).double() for states, mask in batches]
    return sum(
        torch.stack([statistics.sum(dim=1), statistics.square().sum(dim=1)], dim=1) for statistics in batch_statistics
    )


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(0, 99), st.data())
def test_all_nine_aggregations_for_any_padding_and_batch_split(lengths, seed, data):
    activations = random_texts(lengths, seed)
    width = max(lengths) + data.draw(st.integers(0, 4))
    starts = [data.draw(st.integers(0, width - length)) for length in lengths]
    cut = data.draw(st.integers(0, len(lengths)))
    parts = [part for part in (slice(0, cut), slice(cut, None)) if activations[part]]
    sums = summed([padded(activations[part], starts[part], width) for part in parts])
    for batch, sequence in product(TEXT_AGGREGATIONS, STATISTICS):
        importance = aggregate(sums, len(lengths), batch, sequence)
        # A variance of one text is 0: the difference of two sums that are 1e7 times their rounding.
        np.testing.assert_allclose(importance, reference(activations, batch, sequence), rtol=2e-4, atol=2e-4)


def test_number_of_aggregations():
    assert len(TEXT_AGGREGATIONS) * len(STATISTICS) == 9


def test_tokens_are_aggregated_before_texts():
    """The order matters for a long text of small and a short text of large activations."""
    activations = [np.full((9, CHANNELS), 1.0), np.full((1, CHANNELS), 10.0)]
    importance = aggregate(summed([padded(activations, [0, 0], 9)]), 2, "mean", "mean")
    assert importance.tolist() == [5.5] * CHANNELS  # over all tokens at once it would be 1.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("elements", [1, 50, 10_000])
def test_sums_do_not_depend_on_the_chunk_size(monkeypatch, dtype, elements):
    monkeypatch.setitem(ELEMENTS_PER_CHUNK, "cpu", elements)
    states = torch.randn(3, 20, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = (torch.arange(20) < torch.tensor([[20], [3], [11]])).long()
    sums = masked_sums(states, mask)
    masked = states.double() * mask[..., None]
    expected = torch.stack([masked.sum(1), masked.abs().sum(1), masked.square().sum(1)])
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_row_without_tokens_adds_nothing():
    assert not text_statistics(torch.randn(1, 4, 2), torch.zeros(1, 4)).any()


def test_heads_that_are_wider_in_some_blocks_have_the_norms_of_their_own_channels():
    """Heads of 2 channels in the first block and of 4 in the second."""
    modules = [torch.nn.Linear(4, 4), torch.nn.Linear(8, 4)]
    sites = [Site(HEADS, layer, module, "input") for layer, module in enumerate(modules)]
    observer = ChannelObserver(sites, units={HEADS: 2})
    observer._device = torch.device("cpu")
    observer.before_forward(torch.ones(1, 3))
    states = [torch.randn(1, 3, 4), torch.randn(1, 3, 8)]
    for site, state in zip(sites, states, strict=True):
        observer._add(site, state)
    norms = aggregate(observer.sums[HEADS], 1).unflatten(-1, (2, -1)).norm(dim=-1)
    expected = [state.abs().mean(dim=(0, 1)).double().unflatten(-1, (2, -1)).norm(dim=-1) for state in states]
    torch.testing.assert_close(norms, torch.stack(expected), rtol=1e-6, atol=1e-6)
