import pytest
import torch
from transformers import AutoModelForCausalLM

from trl_prune.checkpoints import load_model, precision
from trl_prune.trainers.teachers.source import TeacherSource


@pytest.mark.parametrize(
    ("native", "given", "expected"),
    [
        ("float32", {}, torch.float32),
        ("bfloat16", {}, torch.bfloat16),
        ("float32", {"dtype": "bfloat16"}, torch.bfloat16),
    ],
)
def test_half_precision_is_not_emulated_unless_asked_for(dense, tmp_path, monkeypatch, native, given, expected):
    AutoModelForCausalLM.from_pretrained(dense, dtype=torch.bfloat16).save_pretrained(tmp_path)
    monkeypatch.setattr(precision, "native_dtype", lambda _: (native, "the test says so"))
    assert TeacherSource(tmp_path, init_kwargs=given).load_model(torch.device("cpu")).dtype == expected
    if not given:
        assert load_model(tmp_path, "auto", "cpu").dtype == expected
