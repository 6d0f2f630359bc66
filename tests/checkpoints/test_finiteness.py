"""NaN and infinity in weights are found, and their weight is named."""

import pytest
import torch

from tests.conftest import rewrite_tensors, save_tiny
from trl_prune.checkpoints import is_finite, load_model
from trl_prune.errors import InputError


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_is_enough(dtype, value):
    tensor = torch.randn(7, 5).to(dtype)
    assert is_finite(tensor)
    tensor[3, 2] = value
    assert not is_finite(tensor)


def test_what_has_no_such_values_passes():
    assert is_finite(torch.zeros(0))
    assert is_finite(torch.zeros(3, dtype=torch.int64))
    assert is_finite(torch.zeros(3, dtype=torch.float8_e4m3fn))
    assert is_finite(torch.zeros(3, device="meta"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_is_not_loaded_with_such_a_weight(tmp_path, value):
    folder = save_tiny(tmp_path / "model")
    rewrite_tensors(folder, lambda tensors: tensors[UP].view(-1)[5].fill_(value))
    with pytest.raises(InputError, match=f"model: the weight {UP} has values that are NaN or infinite in float32"):
        load_model(folder, "float32")


def test_values_too_large_for_the_dtype_are_named_with_it(tmp_path):
    folder = save_tiny(tmp_path / "model")
    rewrite_tensors(folder, lambda tensors: tensors[UP].view(-1)[5].fill_(1e6))
    load_model(folder, "float32")
    with pytest.raises(
        InputError, match=f"{UP} has values that are NaN or infinite in float16.*too large for float16"
    ):
        load_model(folder, "float16")
