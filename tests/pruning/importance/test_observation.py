import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_model
from tests.pruning.batches import LENGTHS, batch
from tests.pruning.masking import ATTENTION_OUTPUTS, MLP_OUTPUTS, is_stream_norm
from trl_prune.pruning.families import FAMILIES, HEADS, HIDDEN, NEURONS
from trl_prune.pruning.importance import observation
from trl_prune.pruning.importance.observation import decoder_blocks, observe, slices, stream_sites, unit_sites, watched
from trl_prune.pruning.importance.scores import score


def by_hand(model, family) -> dict[str, list]:
    """The modules to watch, by names that know nothing of the table."""
    named = [pair for block in decoder_blocks(model) for pair in block.named_modules()]
    found = {
        HEADS: [module for name, module in named if name.endswith(ATTENTION_OUTPUTS)],
        NEURONS: [module for name, module in named if name.endswith(MLP_OUTPUTS)],
        HIDDEN: [module for name, module in named if is_stream_norm(module, name)],
    }
    return {axis: modules for axis, modules in found.items() if axis in family.axes}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_table_finds_the_modules_that_names_find(family):
    model = tiny_model(family)
    sites = unit_sites(model, FAMILIES[family])
    wanted = by_hand(model, FAMILIES[family])
    assert {site.axis for site in sites} == set(wanted)
    for axis, modules in wanted.items():
        assert [id(site.module) for site in sites if site.axis == axis] == [id(module) for module in modules]
    blocks = len(decoder_blocks(model))
    assert {site.layer for site in sites if site.axis == HIDDEN} == set(range(blocks))


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_stream_is_the_hidden_states_before_the_final_norm(family):
    model, seen = tiny_model(family), []
    with watched(stream_sites(model), lambda _, states: seen.append(states)):
        told = model(**batch((9,)), output_hidden_states=True).hidden_states
    assert len(seen) == len(told)
    assert all(torch.equal(one, other) for one, other in zip(seen[:-1], told[:-1], strict=True))
    assert not torch.allclose(seen[-1], told[-1])


def test_nothing_stays_behind_when_the_pass_fails():
    model = tiny_model("mixtral")
    broken = batch() | {"input_ids": torch.full((4, 17), 10**6)}
    with pytest.raises(IndexError):
        score(model, [broken])
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert model.config._experts_implementation in ("grouped_mm", "eager")


def rows_of(part: dict[str, torch.Tensor]) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(part["input_ids"], part["attention_mask"], strict=True)]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["left", "right"]), st.integers(0, 5),
    st.integers(1, 7),
)  # fmt: skip
def test_slices_hold_every_text_and_no_column_of_padding(lengths, side, extra, rows):
    whole = batch(tuple(lengths), side, max(lengths) + extra)
    parts = list(slices(whole, rows))
    assert [text for part in parts for text in rows_of(part)] == rows_of(whole)
    assert all(part["attention_mask"][:, [0, -1]].any(dim=0).all() for part in parts)
    assert max(len(part["input_ids"]) for part in parts) <= rows


def test_a_batch_of_padding_alone_is_left_out():
    empty = {"input_ids": torch.zeros(2, 3, dtype=torch.long), "attention_mask": torch.zeros(2, 3, dtype=torch.long)}
    assert list(slices(empty, 1)) == []
    assert score(tiny_model("llama"), [empty, batch()]).texts == len(LENGTHS)


def test_memory_bounds_the_rows_that_go_through_at_once(monkeypatch):
    model, seen = tiny_model("llama"), []

    class Counting:
        attached = staticmethod(lambda _: watched([], lambda *_: None))
        before = staticmethod(lambda mask: seen.append(len(mask)))
        after = staticmethod(lambda: None)

    observe(model, [batch()], [Counting()])
    held = 5 * 17 * 32 * 4  # stations of the stream x tokens x channels x bytes
    monkeypatch.setitem(observation.HELD_BYTES, "cpu", 3 * held)
    observe(model, [batch()], [Counting()])
    monkeypatch.setitem(observation.HELD_BYTES, "cpu", 1)
    observe(model, [batch()], [Counting()])
    assert seen == [4, 3, 1, 1, 1, 1, 1]


def offloaded(way: str, family: str, folder):
    model = tiny_model(family)
    if way == "cpu_offload":
        return cpu_offload(model)
    if way == "disk_offload":
        return disk_offload(model, str(folder))
    parts = {name: "cpu" for name, _ in model.named_children() if name != "model"}
    parts |= {f"model.{name}": "cpu" for name, _ in model.model.named_children() if name != "layers"}
    parts |= {f"model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(4)}
    return dispatch_model(model, parts, main_device="cpu", offload_dir=str(folder))


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("way", ["cpu_offload", "disk_offload", "device_map"])
def test_offloaded_models_score_as_loaded_ones(way, family, tmp_path):
    wanted = score(tiny_model(family), [batch()])
    told = score(offloaded(way, family, tmp_path / "offload"), [batch()])
    torch.testing.assert_close(told.layers.angle, wanted.layers.angle)
    torch.testing.assert_close(told.heads(), wanted.heads())
    torch.testing.assert_close(told.hidden(), wanted.hidden())
    if family == "mixtral":
        torch.testing.assert_close(told.expert_norms(), wanted.expert_norms())
