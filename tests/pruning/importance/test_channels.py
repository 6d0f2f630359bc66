"""Oracle: numpy in float64, text by text, in the order the definition gives: tokens first, then texts."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_prune.pruning.importance.channels import (
    ELEMENTS_AT_A_TIME,
    OVER_TEXTS,
    STATISTICS,
    aggregated,
    masked_sums,
    text_statistics,
)


NAIVE = {
    "mean": lambda values: np.abs(values).mean(axis=0),
    "l2": lambda values: np.sqrt((values**2).sum(axis=0)),
    "var": lambda values: ((values - values.mean(axis=0)) ** 2).mean(axis=0),
}
CHANNELS = 3
texts = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def naive(activations: list[np.ndarray], batch: str, sequence: str) -> np.ndarray:
    return NAIVE[batch](np.stack([NAIVE[sequence](text) for text in activations]))


def drawn(lengths: list[int], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(length, CHANNELS)) * 3 + 1 for length in lengths]


def padded(activations: list[np.ndarray], places: list[int], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return activations in a batch, each from its place on, among padding that carries something else."""
    states, mask = torch.full((len(activations), width, CHANNELS), 99.0), torch.zeros(len(activations), width)
    for row, (text, place) in enumerate(zip(activations, places, strict=True)):
        states[row, place : place + len(text)] = torch.from_numpy(text).float()
        mask[row, place : place + len(text)] = 1
    return states, mask.long()


def summed(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    statistics = [text_statistics(states, mask).double() for states, mask in batches]
    return sum(torch.stack([each.sum(dim=1), each.square().sum(dim=1)], dim=1) for each in statistics)


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(0, 99), st.data())
def test_all_nine_aggregations_from_one_pass_however_padded_and_split(lengths, seed, data):
    activations = drawn(lengths, seed)
    width = max(lengths) + data.draw(st.integers(0, 4))
    places = [data.draw(st.integers(0, width - length)) for length in lengths]
    cut = data.draw(st.integers(0, len(lengths)))
    parts = [part for part in (slice(0, cut), slice(cut, None)) if activations[part]]
    sums = summed([padded(activations[part], places[part], width) for part in parts])
    for batch, sequence in product(OVER_TEXTS, STATISTICS):
        told = aggregated(sums, len(lengths), batch, sequence)
        # A variance of one text is 0; the two sums it comes from are 1e7 times the rounding of either.
        np.testing.assert_allclose(told, naive(activations, batch, sequence), rtol=2e-4, atol=2e-4)


def test_there_are_nine():
    assert len(OVER_TEXTS) * len(STATISTICS) == 9


def test_tokens_are_aggregated_before_texts():
    """The two orders differ: a long quiet text and a short loud one."""
    activations = [np.full((9, CHANNELS), 1.0), np.full((1, CHANNELS), 10.0)]
    told = aggregated(summed([padded(activations, [0, 0], 9)]), 2, "mean", "mean")
    assert told.tolist() == [5.5] * CHANNELS  # over all tokens at once it were 1.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("elements", [1, 50, 10_000])
def test_sums_do_not_depend_on_how_much_is_read_at_once(monkeypatch, dtype, elements):
    monkeypatch.setitem(ELEMENTS_AT_A_TIME, "cpu", elements)
    states = torch.randn(3, 20, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = (torch.arange(20) < torch.tensor([[20], [3], [11]])).long()
    told = masked_sums(states, mask)
    exact = states.double() * mask[..., None]
    wanted = torch.stack([exact.sum(1), exact.abs().sum(1), exact.square().sum(1)])
    torch.testing.assert_close(told.double(), wanted, rtol=1e-5, atol=1e-5)


def test_a_row_without_tokens_adds_nothing():
    assert not text_statistics(torch.randn(1, 4, 2), torch.zeros(1, 4)).any()
