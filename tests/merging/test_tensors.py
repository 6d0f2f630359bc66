"""Inner products in chunks, and the factors of sums, against plain arithmetic."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.merging import tensors as module
from trl_prune.merging.arithmetic import factors
from trl_prune.merging.tensors import cosine, gram


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 50))
def test_inner_products_do_not_depend_on_chunks(count, size, chunk):
    tensors = [torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    expected = torch.stack(tensors).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        torch.testing.assert_close(gram(tensors), expected @ expected.T)


def test_a_tensor_of_zeros_has_a_cosine_of_zero():
    assert cosine(gram([torch.zeros(3), torch.ones(3)])) == 0
    assert cosine(gram([torch.ones(3), -torch.ones(3)])) == pytest.approx(-1)


def test_factors_are_those_of_the_formulas():
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    models = [{"model": "a", "parameters": {"weight": 1}}, {"model": "b", "parameters": {"weight": 3}}]
    half = 0.5**0.5
    slerp = {"merge_method": "slerp", "models": models, "parameters": {"t": 0.5}}
    assert factors(slerp, [one, other]) == pytest.approx([half, half])
    assert factors(slerp, [one, one * 1.01]) == pytest.approx([0.5, 0.5])
    linear = {"merge_method": "linear", "models": models}
    assert factors(linear, [one, other]) == pytest.approx([0.25, 0.75])
    arithmetic = {"merge_method": "task_arithmetic", "models": models, "parameters": {"lambda": 0.5}}
    assert factors(arithmetic, [one, other, one]) == pytest.approx([0.5, 1.5, -1.0])
