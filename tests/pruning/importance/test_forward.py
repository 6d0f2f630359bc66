"""Observed forward passes: rows per slice, padding, hooks after an error, offloaded models."""

from contextlib import nullcontext

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_model
from tests.pruning.batches import LENGTHS, batch
from trl_prune.pruning.importance.forward import MAX_STATES_BYTES, observe, row_slices
from trl_prune.pruning.importance.scores import score


def test_no_hook_remains_after_a_failed_pass():
    model = tiny_model("mixtral")
    out_of_vocabulary = batch() | {"input_ids": torch.full((4, 17), 10**6)}
    with pytest.raises(IndexError):
        score(model, [out_of_vocabulary])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert model.config._experts_implementation in ("grouped_mm", "eager")


def texts_of(part: dict[str, torch.Tensor]) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(part["input_ids"], part["attention_mask"], strict=True)]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["left", "right"]), st.integers(0, 5),
    st.integers(1, 7),
)  # fmt: skip
def test_slices_hold_every_text_and_no_column_of_padding(lengths, side, padding, rows):
    full = batch(tuple(lengths), side, max(lengths) + padding)
    parts = list(row_slices(full, rows))
    assert [text for part in parts for text in texts_of(part)] == texts_of(full)
    assert all(part["attention_mask"][:, [0, -1]].any(dim=0).all() for part in parts)
    assert max(len(part["input_ids"]) for part in parts) <= rows


def test_a_batch_of_padding_only_is_skipped():
    empty = {"input_ids": torch.zeros(2, 3, dtype=torch.long), "attention_mask": torch.zeros(2, 3, dtype=torch.long)}
    assert list(row_slices(empty, 1)) == []
    assert score(tiny_model("llama"), [empty, batch()]).num_texts == len(LENGTHS)


def test_memory_limits_the_rows_per_forward_pass(monkeypatch):
    model, row_counts = tiny_model("llama"), []

    class RowCounter:
        attach = staticmethod(lambda _: nullcontext())
        before_forward = staticmethod(lambda mask: row_counts.append(len(mask)))
        after_forward = staticmethod(lambda: None)

    observe(model, [batch()], [RowCounter()])
    row_bytes = 5 * 17 * 32 * 4  # states of the residual stream x tokens x channels x bytes
    monkeypatch.setitem(MAX_STATES_BYTES, "cpu", 3 * row_bytes)
    observe(model, [batch()], [RowCounter()])
    monkeypatch.setitem(MAX_STATES_BYTES, "cpu", 1)
    observe(model, [batch()], [RowCounter()])
    assert row_counts == [4, 3, 1, 1, 1, 1, 1]


def offloaded(method: str, family: str, folder):
    model = tiny_model(family)
    if method == "cpu_offload":
        return cpu_offload(model)
    if method == "disk_offload":
        return disk_offload(model, str(folder))
    parts = {name: "cpu" for name, _ in model.named_children() if name != "model"}
    parts |= {f"model.{name}": "cpu" for name, _ in model.model.named_children() if name != "layers"}
    parts |= {f"model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(4)}
    return dispatch_model(model, parts, main_device="cpu", offload_dir=str(folder))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("method", ["cpu_offload", "disk_offload", "device_map"])
def test_offloaded_models_have_the_same_scores(method, family, tmp_path):
    expected = score(tiny_model(family), [batch()])
    scores = score(offloaded(method, family, tmp_path / "offload"), [batch()])
    torch.testing.assert_close(scores.layers.angle, expected.layers.angle)
    torch.testing.assert_close(scores.heads(), expected.heads())
    torch.testing.assert_close(scores.hidden(), expected.hidden())
    if family == "mixtral":
        torch.testing.assert_close(scores.expert_importance(), expected.expert_importance())
