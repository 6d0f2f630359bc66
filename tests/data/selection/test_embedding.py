import sys

import numpy as np
import pytest
import torch

from tests.conftest import save_tiny, tiny_model, tiny_tokenizer
from trl_prune.data.selection import embedding
from trl_prune.data.selection.embedding import HiddenStateEmbedder, SentenceEmbedder, embed_rows
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


TEXTS = ["A short text.", "", "A longer text, of several more words than the first.", "Twenty!", "é 中文"]


class LengthEmbedder:
    """An embedder whose vector of a text is set by its length; it counts the texts and may fail."""

    width = 3

    def __init__(self, fingerprint="length", fail_after=None):
        self.fingerprint, self.fail_after = fingerprint, fail_after
        self.embedded, self.released = [], 0

    def embed(self, texts):
        if self.fail_after is not None and len(self.embedded) >= self.fail_after:
            raise KeyboardInterrupt
        self.embedded += texts
        angles = np.array([len(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1).astype(np.float32)

    def release(self):
        self.released += 1


@pytest.fixture
def texts():
    return ["x" * length for length in range(1, 11)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(embedding, "CHUNK_ROWS", 4)


def teacher_of(model, **changes):
    return LazyTeacher(lambda: model, tiny_tokenizer(), "tiny", **changes)


def pooled(model, ids):
    """The weighted mean of one text's states, in float64."""
    states = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0].double()
    positions = torch.arange(1, len(ids) + 1, dtype=torch.float64)
    mean = (positions[:, None] * states).sum(dim=0) / positions.sum()
    return (mean / mean.norm()).detach().numpy()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_hidden_states_are_averaged_by_position_text_by_text(family, batch_tokens):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    vectors = HiddenStateEmbedder(teacher_of(model), batch_tokens=batch_tokens).embed(TEXTS)
    assert vectors.dtype == np.float32
    for vector, text in zip(vectors, TEXTS, strict=True):
        ids = tokenizer(text)["input_ids"] or [tokenizer.eos_token_id]
        np.testing.assert_allclose(vector, pooled(model, ids), atol=1e-5)


def test_long_texts_are_read_up_to_the_limit():
    model, text = tiny_model("llama"), "many words, " * 20
    ids = tiny_tokenizer()(text)["input_ids"]
    for embedder, limit in (
        (HiddenStateEmbedder(teacher_of(model), max_tokens=7), 7),
        (HiddenStateEmbedder(teacher_of(model, max_model_len=9)), 9),
    ):
        np.testing.assert_allclose(embedder.embed([text])[0], pooled(model, ids[:limit]), atol=1e-5)
        assert str(limit) in embedder.fingerprint


def test_the_width_is_known_without_loading_the_model(tmp_path):
    def fail():
        raise AssertionError("loaded")

    folder = save_tiny(tmp_path / "model")
    teacher = LazyTeacher(fail, tiny_tokenizer(), "tiny", folder=folder)
    assert HiddenStateEmbedder(teacher).width == 32
    assert HiddenStateEmbedder(teacher_of(tiny_model("llama"))).width == 32


def test_rows_are_stored_in_the_order_of_the_dataset(tmp_path, texts):
    embedder = LengthEmbedder()
    stored = embed_rows(texts, embedder, tmp_path)
    np.testing.assert_allclose(stored, embedder.embed(texts), atol=1e-3)
    assert stored.dtype == np.float16
    assert isinstance(stored, np.memmap)
    assert embedder.released == 1


def test_an_interrupted_pass_embeds_only_what_is_missing(tmp_path, texts):
    with pytest.raises(KeyboardInterrupt):
        embed_rows(texts, LengthEmbedder(fail_after=8), tmp_path)
    resumed = LengthEmbedder()
    np.testing.assert_allclose(embed_rows(texts, resumed, tmp_path)[:, 0], np.cos(np.arange(1, 11)), atol=1e-3)
    assert resumed.embedded == texts[8:]
    complete = LengthEmbedder()
    embed_rows(texts, complete, tmp_path)
    assert complete.embedded == []


def test_other_texts_or_another_embedder_redo_the_rows(tmp_path, texts):
    embed_rows(texts, LengthEmbedder(), tmp_path)
    for changed, embedder in ((texts, LengthEmbedder("other")), (["z", *texts[1:]], LengthEmbedder("other"))):
        embed_rows(changed, embedder, tmp_path)
        assert embedder.embedded == changed


def test_two_processes_share_the_rows(tmp_path, texts):
    first, second = LengthEmbedder(), LengthEmbedder()
    with pytest.raises(InputError, match="incomplete"):
        embed_rows(texts, first, tmp_path, ProcessShare(0, 2))
    stored = embed_rows(texts, second, tmp_path, ProcessShare(1, 2))
    assert (first.embedded, second.embedded) == (texts[:4] + texts[8:], texts[4:8])
    np.testing.assert_array_equal(stored, embed_rows(texts, LengthEmbedder(), tmp_path / "alone"))


def test_embeddings_that_are_not_finite_are_an_error(tmp_path):
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[tiny_tokenizer()("T")["input_ids"]] = torch.nan
    with pytest.raises(InputError, match=r"1 rows are not finite, the first of row 3"):
        embed_rows(TEXTS, HiddenStateEmbedder(teacher_of(model)), tmp_path)


def test_no_texts_are_an_error(tmp_path):
    with pytest.raises(InputError, match="no texts"):
        embed_rows([], LengthEmbedder(), tmp_path)


def test_without_sentence_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r'pip install "trl-prune\[select\]".* hidden states'):
        SentenceEmbedder().embed(["text"])


def test_a_sentence_model_that_is_not_found_is_an_error(tmp_path):
    pytest.importorskip("sentence_transformers")
    with pytest.raises(InputError, match=r"'.*nowhere' cannot be loaded .* hidden states"):
        SentenceEmbedder(tmp_path / "nowhere").embed(["text"])


def sentence_model(folder, pooling="mean"):
    """Write a sentence-transformers model of a tiny Llama."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    transformer = modules.Transformer(str(save_tiny(folder / "base")))
    pool = modules.Pooling(32, pooling_mode=pooling)
    SentenceTransformer(modules=[transformer, pool], device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


def test_any_sentence_transformers_model_embeds(tmp_path):
    pytest.importorskip("sentence_transformers")
    embedder = SentenceEmbedder(sentence_model(tmp_path))
    vectors = embedder.embed(["A text.", "Another one, longer."])
    assert vectors.shape == (2, embedder.width) == (2, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    embedder.release()
    np.testing.assert_allclose(embedder.embed(["A text."])[0], vectors[0], atol=1e-5)


def test_the_fingerprint_of_a_sentence_model_changes_with_weights_and_pooling(tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = sentence_model(tmp_path / "first")
    fingerprint = SentenceEmbedder(folder).fingerprint
    assert SentenceEmbedder(folder).fingerprint == fingerprint
    assert SentenceEmbedder(sentence_model(tmp_path / "other", "max")).fingerprint != fingerprint
    changed = SentenceEmbedder(folder)
    with torch.no_grad():
        next(changed.model.parameters()).add_(1)
    assert changed.fingerprint != fingerprint
