import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tests.conftest import tiny_config
from trl_prune.data.generation import roomy_cache
from trl_prune.data.generation.roomy_cache import RoomyLayer


ROWS = 4
# Tokens to append, rows to keep, or `twice` to repeat all rows.
KEPT = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS)
STEPS = st.lists(st.one_of(st.integers(1, 9), KEPT, st.just("twice")))


@given(STEPS)
def test_it_holds_what_transformers_cache_holds(steps):
    ours, theirs = roomy_cache.roomy_cache(tiny_config("llama")), DynamicCache(config=tiny_config("llama"))
    rows = ROWS
    for step in [2, *steps]:
        if isinstance(step, int):
            states = [torch.randn(rows, 2, step, 8) for _ in range(2)]
            for mine, reference in zip(ours.update(*states, 1), theirs.update(*states, 1), strict=True):
                torch.testing.assert_close(mine, reference, rtol=0, atol=0)
        elif step == "twice" and rows < 100:
            ours.batch_repeat_interleave(2)
            theirs.batch_repeat_interleave(2)
            rows *= 2
        elif step != "twice":
            kept = torch.tensor([row % rows for row in step])
            ours.batch_select_indices(kept)
            theirs.batch_select_indices(kept)
            rows = len(kept)
        assert ours.get_seq_length(1) == theirs.get_seq_length(1)


def test_earlier_tokens_are_copied_once_for_many(monkeypatch):
    monkeypatch.setattr(roomy_cache, "ROOM", 5)
    layer, memory = RoomyLayer(), []
    for _ in range(13):
        keys, _ = layer.update(torch.randn(1, 1, 1, 2), torch.randn(1, 1, 1, 2))
        memory.append(keys.data_ptr())
    assert len(set(memory)) <= 3


def test_layers_of_a_sliding_window_are_transformers_own():
    layers = roomy_cache.roomy_cache(tiny_config("gemma2")).layers
    assert {type(layer) for layer in layers} == {RoomyLayer, DynamicSlidingWindowLayer}
    assert all(type(layer) is not DynamicLayer for layer in layers)


def test_caches_of_some_rows_each_become_one_of_all():
    whole = roomy_cache.roomy_cache(tiny_config("llama"))
    parts = [roomy_cache.roomy_cache(tiny_config("llama")) for _ in range(3)]
    keys, values = torch.randn(4, 6, 2, 5, 8), torch.randn(4, 6, 2, 5, 8)
    for layer in range(4):
        whole.update(keys[layer], values[layer], layer)
        for part, rows in zip(parts, (slice(0, 1), slice(1, 4), slice(4, 6)), strict=True):
            part.update(keys[layer, rows], values[layer, rows], layer)
    joined = roomy_cache.joined(parts)
    new = torch.randn(6, 2, 1, 8), torch.randn(6, 2, 1, 8)
    for layer in range(4):
        assert all(map(torch.equal, joined.update(*new, layer), whole.update(*new, layer)))


def test_caches_with_a_sliding_window_cannot_be_joined():
    assert roomy_cache.can_join(roomy_cache.roomy_cache(tiny_config("llama")))
    assert not roomy_cache.can_join(roomy_cache.roomy_cache(tiny_config("gemma2")))
