"""Oracle: full logits of both models in float64."""

import pytest
import torch

from tests.conftest import VOCABULARY, tiny_model
from tests.evaluation.speculative.models import draft_of
from trl_prune.errors import InputError
from trl_prune.evaluation.speculative.acceptance import (
    by_capability,
    by_output_position,
    greedy_rate,
    mean_rate,
    rounds_of_texts,
    sampled_rate,
    text_acceptance,
)
from trl_prune.evaluation.speculative.texts import Text
from trl_prune.losses import paired_logits


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, VOCABULARY, (length,), generator=generator).tolist() for length in (30, 9, 2)]
    return [Text(row[:prompt], row[prompt:], name) for row, prompt, name in zip(ids, (4, 8, 1), "aba", strict=True)]


def by_hand(target, draft, text, temperature):
    ids = torch.tensor([text.prompt + text.continuation])
    with torch.no_grad():
        logits = [model(ids).logits[0, len(text.prompt) - 1 : -1].double() for model in (target, draft)]
    p, q = ((part / temperature).softmax(-1) for part in logits)
    label = torch.tensor(text.continuation)[:, None]
    given = (q.gather(1, label) / p.gather(1, label)).clamp(max=1)[:, 0]
    return torch.minimum(p, q).sum(-1), logits[0].argmax(-1) == logits[1].argmax(-1), given


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_acceptance_equals_a_dense_computation(texts, family, temperature, monkeypatch):
    monkeypatch.setattr(paired_logits, "MIN_ROWS", 1)
    monkeypatch.setitem(paired_logits.TILE_BYTES, "cpu", 7 * 4 * VOCABULARY)
    target = tiny_model(family)
    draft = draft_of(target)
    for text, found in zip(texts, text_acceptance(target, draft, texts, temperature), strict=True):
        overlap, agrees, given = by_hand(target, draft, text, temperature)
        assert found.overlap == pytest.approx(overlap.numpy(), abs=2e-6)
        assert found.agrees.tolist() == agrees.tolist()
        assert found.given_token == pytest.approx(given.numpy(), abs=1e-5)


def test_a_model_accepts_all_of_its_own(texts):
    target = tiny_model("llama")
    found = text_acceptance(target, tiny_model("llama"), texts)
    assert mean_rate(found, sampled_rate) == pytest.approx(1, abs=1e-6)
    assert mean_rate(found, greedy_rate) == 1
    assert rounds_of_texts(found, 4, is_greedy=True).calls == 6 + 1 + 1
    assert rounds_of_texts(found, 4, is_greedy=False).calls == pytest.approx(6 + 1 + 1, abs=1e-3)


def test_means_of_capabilities_and_of_ranges_of_the_output(texts):
    target = tiny_model("llama")
    found = text_acceptance(target, draft_of(target), texts)
    groups = by_capability(found, sampled_rate)
    assert {name: (one["texts"], one["tokens"]) for name, one in groups.items()} == {"a": (2, 27), "b": (1, 1)}
    assert groups["b"]["alpha"] == pytest.approx(found[1].overlap.mean())
    ranges = by_output_position(found, sampled_rate)
    assert [(one["start"], one["end"], one["tokens"]) for one in ranges] == [(0, 16, 18), (16, 26, 10)]
    assert ranges[1]["alpha"] == pytest.approx(found[0].overlap[16:].mean())
    assert mean_rate([], sampled_rate) is None


@pytest.mark.parametrize("broken", ["target", "draft"])
def test_a_model_without_finite_logits_is_named(texts, broken):
    models = {"target": tiny_model("llama"), "draft": tiny_model("llama")}
    models[broken].get_output_embeddings().weight.data[3] = float("nan")
    with pytest.raises(InputError, match=f"^the {broken} model's logits are not finite"):
        text_acceptance(models["target"], models["draft"], texts)
