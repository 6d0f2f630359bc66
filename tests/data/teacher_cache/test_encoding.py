"""Reference: the teacher's own states and distributions, from one forward pass per row."""

import pytest
import torch

from tests.data.teacher_cache.cases import CountingLoader, cache_spec, dataset_keys, online_states, prepared_rows
from trl_prune.data.teacher_cache.codecs import Hidden, Sampled, TopK
from trl_prune.data.teacher_cache.verification import verify
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import lm_head


@pytest.mark.parametrize("family", ["llama", "cohere"])
def test_hidden_states_equal_the_teachers(tmp_path, family):
    rows, loader = prepared_rows(), CountingLoader(family)
    cache = write_cache(tmp_path / "cache", cache_spec(rows, Hidden(), loader))
    target = cache.targets(dataset_keys(rows))
    assert torch.equal(target.hidden, online_states(loader.model, rows).bfloat16().double())


@pytest.mark.parametrize("family", ["gemma2", "granite", "gpt2"])
def test_a_hidden_cache_includes_the_teachers_head(tmp_path, family):
    rows, loader = prepared_rows(), CountingLoader(family, dtype=torch.float32)
    cache = write_cache(tmp_path / "cache", cache_spec(rows, Hidden(), loader))
    target = cache.targets(dataset_keys(rows))
    torch.testing.assert_close(target.hidden, online_states(loader.model, rows), atol=2**-7, rtol=2**-7)
    expected = lm_head(loader.model)
    assert torch.equal(target.head.weight, expected.weight)
    assert (target.head.bias, target.head.scale, target.head.softcap) == (
        expected.bias,
        expected.scale,
        expected.softcap,
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_top_k_of_the_full_vocabulary_equals_the_teachers_distribution(tmp_path, temperature):
    rows, loader = prepared_rows(), CountingLoader()
    vocab_size = loader.model.config.vocab_size
    cache = write_cache(tmp_path / "cache", cache_spec(rows, TopK(vocab_size, temperature), loader))
    target = cache.targets(dataset_keys(rows))
    expected = (lm_head(loader.model).logits(online_states(loader.model, rows)) / temperature).softmax(-1)
    probs = torch.zeros_like(expected).scatter_add_(1, target.ids, target.probs)
    torch.testing.assert_close(probs, expected, atol=1e-6, rtol=5e-3)
    assert (target.tail == 0).all()


def test_a_sample_is_within_one_draw_of_the_teachers_distribution(tmp_path):
    rows, loader = prepared_rows(), CountingLoader()
    cache = write_cache(tmp_path / "cache", cache_spec(rows, Sampled(50), loader))
    target = cache.targets(dataset_keys(rows))
    expected = lm_head(loader.model).logits(online_states(loader.model, rows)).softmax(-1)
    probs = torch.zeros_like(expected).scatter_add_(1, target.ids, target.probs)
    assert ((probs - expected).abs() < 1 / 50).all()
    torch.testing.assert_close(target.probs.sum(-1), torch.ones(len(target.probs)))


@pytest.mark.parametrize("codec", [Sampled(), TopK(k=200), Hidden()])
def test_padding_ids_of_the_teachers_vocabulary_are_left_out(tmp_path, codec):
    rows, loader = prepared_rows(), CountingLoader()
    cache = write_cache(tmp_path / "cache", cache_spec(rows, codec, loader, vocab_size=200))
    assert cache.metadata.vocab_size == 200
    target = cache.targets(dataset_keys(rows))
    expected = lm_head(loader.model).logits(online_states(loader.model, rows))[:, :200].softmax(-1)
    if codec.tier == "hidden":
        assert len(target.head.weight) == 200
        probs = (target.hidden @ target.head.weight.T).softmax(-1)
    else:
        assert int(target.ids.max()) < 200
        probs = torch.zeros_like(expected).scatter_add_(1, target.ids, target.probs)
    assert ((probs - expected).abs() < 0.02).all()
    verify(cache, rows, loader.model)


def test_rows_with_non_finite_states_are_named(tmp_path):
    loader = CountingLoader(dtype=torch.float32)
    rows = prepared_rows()
    rows[4]["input_ids"][0] = 250
    with torch.no_grad():
        loader.model.get_input_embeddings().weight[250] = torch.nan
    with pytest.raises(InputError, match="not finite on prepared rows 4$"):
        write_cache(tmp_path / "cache", cache_spec(rows, Sampled(), loader))
