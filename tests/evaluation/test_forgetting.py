"""The comparison with the dense model equals one of full logits in float64."""

import pytest
import torch

from tests.conftest import VOCABULARY, tiny_model
from trl_prune.evaluation.forgetting import measure_forgetting
from trl_prune.losses import distill_head


LENGTHS = (17, 9, 4, 2, 1)


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def batches(texts, size, padding=0):
    """Return padded batches, with some columns that are padding in every row."""
    found = []
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        width = max(map(len, part)) + padding
        ids, mask = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width, dtype=torch.long)
        for row, text in enumerate(part):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        found.append({"input_ids": ids, "attention_mask": mask})
    return found


@torch.no_grad()
def by_hand(model, dense, texts):
    kl, cross_entropy, tokens = 0.0, 0.0, 0
    for text in texts:
        p, q = (one(text[None]).logits[0, :-1].double().log_softmax(-1) for one in (model, dense))
        kl += float((q.exp() * (q - p)).sum())
        cross_entropy -= float(p.gather(1, text[1:, None]).sum())
        tokens += len(text) - 1
    return kl / tokens, cross_entropy / tokens, tokens


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen3"])
def test_a_pruned_model_is_compared_at_every_token(texts, family):
    dense, model = tiny_model(family), tiny_model(family, seed=1, num_hidden_layers=2)
    if family == "gpt2":
        model = tiny_model(family, seed=1, n_layer=2)
    result = measure_forgetting(model, dense, batches(texts, 2))
    kl, cross_entropy, tokens = by_hand(model, dense, texts)
    assert result.tokens == tokens == sum(LENGTHS) - len(LENGTHS)
    assert result.kl == pytest.approx(kl, rel=1e-4)
    assert result.cross_entropy == pytest.approx(cross_entropy, rel=1e-4)
    assert result.kl > 0


def test_batches_and_padding_do_not_matter(texts):
    dense, model = tiny_model("llama"), tiny_model("llama", seed=1)
    alone = measure_forgetting(model, dense, batches(texts, 1))
    for size, padding in ((5, 0), (2, 3)):
        together = measure_forgetting(model, dense, batches(texts, size, padding))
        assert together.tokens == alone.tokens
        assert together.kl == pytest.approx(alone.kl, rel=1e-5)
        assert together.cross_entropy == pytest.approx(alone.cross_entropy, rel=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_the_dense_model_has_no_distance_from_itself(texts, family):
    dense = tiny_model(family)
    assert measure_forgetting(dense, dense, batches(texts, 2)).kl == 0
    assert measure_forgetting(tiny_model(family), dense, batches(texts, 2)).kl == 0


def test_logits_exist_for_a_tile_of_tokens_at_a_time(texts, monkeypatch):
    rows = []
    write_logits = distill_head.write_logits

    def recorded(hidden, head, out):
        rows.append(len(out))
        write_logits(hidden, head, out)

    monkeypatch.setattr(distill_head, "write_logits", recorded)
    monkeypatch.setattr(distill_head, "TILE_BYTES", dict.fromkeys(("cpu", "cuda"), 4 * VOCABULARY * 8))
    monkeypatch.setattr(distill_head, "MIN_ROWS", 1)
    model, dense = tiny_model("llama", seed=1), tiny_model("llama")
    tiled = measure_forgetting(model, dense, batches(texts, 5))
    assert max(rows) == 8
    assert tiled.kl == pytest.approx(by_hand(model, dense, texts)[0], rel=1e-4)


def test_without_texts_there_is_nothing_to_compare():
    assert measure_forgetting(tiny_model("llama"), tiny_model("llama"), []).tokens == 0
