"""Oracles: one forward pass per row and the definitions in float64; scipy's Jensen-Shannon distance."""

import math
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from tests.conftest import tiny_model, tiny_tokenizer
from tests.data.test_shared_blocks import without_blocks
from trl_prune.data.selection import model_pair, row_batches
from trl_prune.data.selection.row_batches import AnswerRows
from trl_prune.data.selection.scoring import (
    ScoreSpec,
    answer_alone_cross_entropy,
    score_rows,
    write_answers_alone,
    write_scores,
)
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.pruning.importance.hooks import decoder_blocks


BOS = 7
NO_ANSWER, ONE_TOKEN = 3, 9


def make_rows(count=14):
    """Rows of random length; the first third of each is masked, as a prompt is; two rows have nothing to score."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(count):
        length = int(torch.randint(3, 30, (1,), generator=generator))
        ids = torch.randint(0, 200, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [MASKED] * (length // 3) + ids[length // 3 :]})
    rows[NO_ANSWER]["labels"] = [MASKED] * len(rows[NO_ANSWER]["labels"])
    rows[ONE_TOKEN] = {"input_ids": [5], "labels": [5]}
    rows[4] = {key: list(values) for key, values in rows[2].items()}
    return rows


ROWS = make_rows()
DENSE = tiny_model("llama")
PRUNED = without_blocks(DENSE, [0, 1, 3])
OTHER = tiny_model("llama", seed=1)


def lazy(model, fingerprint, bos=None):
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token_id = bos
    return LazyTeacher(lambda: model, tokenizer, fingerprint)


def spec(rows=ROWS, dense=DENSE, pruned=PRUNED, bos=None, **settings):
    settings = {"batch_tokens": 64, "blocks_of": decoder_blocks} | settings
    return ScoreSpec(rows, lazy(dense, f"dense{id(dense)}"), lazy(pruned, f"pruned{id(pruned)}", bos), **settings)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(row_batches, "CHUNK_ROWS", 3)


@torch.inference_mode()
def reference(rows=ROWS, dense=DENSE, pruned=PRUNED, temperature=1.0):
    """Divergence and cross-entropy of each row, in float64."""
    lines = []
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
        learned = labels != MASKED
        if not learned.any():
            lines.append([math.nan, math.nan])
            continue
        logits = [model(ids).logits[0, :-1][learned].double() for model in (dense, pruned)]
        q, p = ((part / temperature).softmax(-1).numpy() for part in logits)
        nll = torch.nn.functional.cross_entropy(logits[1], labels[learned])
        lines.append([np.mean([jensenshannon(*pair) ** 2 for pair in zip(p, q, strict=True)]), float(nll)])
    return np.array(lines)


def columns(scores):
    return np.stack([scores.divergence, scores.cross_entropy], 1)


def assert_close(scores, expected):
    np.testing.assert_allclose(columns(scores), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("pruned", [PRUNED, OTHER])
def test_scores_equal_the_definition_row_by_row(tmp_path, temperature, pruned):
    scores = score_rows(tmp_path, spec(pruned=pruned, temperature=temperature))
    expected = reference(pruned=pruned, temperature=temperature)
    assert_close(scores, expected)
    assert np.nanmax(scores.divergence) <= math.log(2)
    assert np.nanmin(scores.divergence) > 1e-4
    empty = [NO_ANSWER, ONE_TOKEN]
    assert np.flatnonzero(np.isnan(scores.divergence)).tolist() == empty
    assert np.flatnonzero(scores.answer_tokens == 0).tolist() == empty
    assert scores.answer_tokens.tolist() == [sum(label != MASKED for label in row["labels"][1:]) for row in ROWS]


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "qwen3"])
def test_other_families_have_the_same_definition(tmp_path, family):
    dense, pruned = tiny_model(family), tiny_model(family, seed=1)
    assert_close(score_rows(tmp_path, spec(dense=dense, pruned=pruned)), reference(dense=dense, pruned=pruned))


def test_a_model_does_not_diverge_from_itself(tmp_path):
    scores = score_rows(tmp_path, spec(pruned=DENSE))
    assert np.nanmax(scores.divergence) == np.nanmin(scores.divergence) == 0


def test_the_divergence_is_symmetric(tmp_path):
    one = score_rows(tmp_path / "one", spec(dense=DENSE, pruned=OTHER))
    other = score_rows(tmp_path / "other", spec(dense=OTHER, pruned=DENSE))
    np.testing.assert_array_equal(one.divergence, other.divergence)


@pytest.mark.parametrize("batch_tokens", [1, 30, 1000])
def test_the_batch_size_changes_no_score(tmp_path, batch_tokens):
    assert_close(score_rows(tmp_path, spec(batch_tokens=batch_tokens)), reference())


def test_the_order_of_the_rows_changes_no_score(tmp_path):
    order = np.random.default_rng(0).permutation(len(ROWS))
    scores = score_rows(tmp_path, spec(rows=[ROWS[index] for index in order]))
    assert_close(scores, reference()[order])


def test_separate_and_shared_blocks_give_equal_scores(tmp_path):
    shared = score_rows(tmp_path / "shared", spec())
    separate = score_rows(tmp_path / "separate", spec(blocks_of=None))
    np.testing.assert_array_equal(columns(shared), columns(separate))


def test_sharing_that_changes_the_states_is_not_used(tmp_path, monkeypatch, caplog):
    def wrong_states(dense, pruned, inputs, shared, blocks_of):
        return tuple(model_pair.backbone_states(model, inputs) * 1.01 for model in (dense, pruned))

    monkeypatch.setattr(model_pair, "shared_states", wrong_states)
    assert_close(score_rows(tmp_path, spec()), reference())
    assert [record.message for record in caplog.records] == [
        "the first 2 blocks of both models are equal, but running them once changes the states; both run"
    ]


@pytest.mark.parametrize("resident", [True, False])
def test_two_processes_write_the_scores_of_one(tmp_path, resident):
    one = score_rows(tmp_path / "one", spec(resident=resident))
    for index in (1, 0):
        write_scores(tmp_path / "two", spec(resident=resident), ProcessShare(index, 2))
    assert len(list((tmp_path / "two").glob("dense-states-*"))) == (0 if resident else 2)
    np.testing.assert_array_equal(columns(score_rows(tmp_path / "two", unloadable(resident=resident))), columns(one))
    assert not list((tmp_path / "two").glob("dense-states-*"))


def unloadable(**settings):
    """Settings of models that must not be loaded."""
    given = spec(**settings)

    def load():
        raise AssertionError

    dense, pruned = (LazyTeacher(load, part.tokenizer, part.fingerprint) for part in (given.dense, given.pruned))
    return ScoreSpec(given.rows, dense, pruned, given.temperature, resident=given.resident)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("after", range(5))
def test_an_interrupted_pass_resumes_and_gives_the_same_scores(tmp_path, resident, after):
    whole = score_rows(tmp_path / "whole", spec(resident=resident))

    def stop(chunks):
        if len(chunks) < 5:  # the shards of the dense model's states
            yield from chunks
            return
        yield from chunks[:after]
        raise Killed

    with pytest.raises(Killed):
        score_rows(tmp_path / "broken", spec(resident=resident), ProcessShare(progress=stop))
    with pytest.raises(InputError, match=rf"is incomplete: {5 - after} of 5 chunks"):
        score_rows(tmp_path / "broken", unloadable(resident=resident), ProcessShare(5, 6))
    done = []
    share = ProcessShare(progress=lambda chunks: done.append(chunks) or iter(chunks))
    resumed = score_rows(tmp_path / "broken", spec(resident=resident), share)
    np.testing.assert_array_equal(columns(resumed), columns(whole))
    assert list(range(after, 5)) in done
    assert not list((tmp_path / "broken").glob("dense-states*"))


def test_other_rows_models_or_temperature_redo_the_scores(tmp_path):
    score_rows(tmp_path, spec())
    for changes in ({"temperature": 2.0}, {"pruned": OTHER}, {"dense": OTHER}, {"rows": ROWS[:-1]}):
        assert_close(score_rows(tmp_path, spec(**changes)), reference(**({"temperature": 1.0} | changes)))
    score_rows(tmp_path, unloadable(rows=ROWS[:-1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_model_after_the_other_gives_the_same_scores(tmp_path, dtype):
    """But for the rounding of the stored states to bfloat16, and of a bfloat16 model in batches of another shape."""
    models = {"dense": tiny_model("llama").to(dtype), "pruned": tiny_model("llama", seed=1).to(dtype)}
    stored = score_rows(tmp_path / "stored", spec(resident=False, **models))
    resident = score_rows(tmp_path / "resident", spec(**models))
    rounding = 4 * torch.finfo(torch.bfloat16).eps
    np.testing.assert_allclose(stored.divergence, resident.divergence, rtol=rounding)
    np.testing.assert_allclose(
        stored.cross_entropy, resident.cross_entropy, rtol=rounding if dtype == torch.bfloat16 else 1e-6
    )


def test_the_dense_model_is_freed_before_the_pruned_one_is_loaded(tmp_path):
    loaded = []

    def load_dense():
        model = tiny_model("llama")
        loaded.append(weakref.ref(model))
        return model

    def load_pruned():
        assert loaded[0]() is None
        return PRUNED

    tokenizer = tiny_tokenizer()
    dense, pruned = LazyTeacher(load_dense, tokenizer, "dense"), LazyTeacher(load_pruned, tokenizer, "pruned")
    score_rows(tmp_path, ScoreSpec(ROWS, dense, pruned, resident=False))
    assert len(loaded) == 1


@pytest.mark.parametrize("name", ["dense", "pruned"])
@pytest.mark.parametrize("place", ["model.layers.3", "lm_head"])
def test_logits_that_are_not_finite_name_the_model_and_rows(tmp_path, name, place):
    broken = tiny_model("llama", seed=2)
    with torch.no_grad():
        next(broken.get_submodule(place).parameters()).fill_(math.nan)
    longest = AnswerRows.read(ROWS).order[0]
    with pytest.raises(InputError, match=rf"the {name} model's logits are not finite on rows .*\b{longest}\b"):
        score_rows(tmp_path, spec(**{name: broken}))


def test_one_row_that_is_not_finite_is_named(tmp_path):
    broken = tiny_model("llama", tie_word_embeddings=False, seed=2)
    rare = 201
    rows = [{key: list(values) for key, values in row.items()} for row in ROWS]
    rows[6]["input_ids"][0] = rare
    with torch.no_grad():
        broken.get_input_embeddings().weight[rare] = math.inf
    with pytest.raises(InputError, match="the pruned model's logits are not finite on rows 6; "):
        score_rows(tmp_path / "pruned", spec(rows=rows, pruned=broken))
    with pytest.raises(InputError, match="the dense model's states .* not finite on prepared rows 6$"):
        score_rows(tmp_path / "dense", spec(rows=rows, dense=broken, resident=False))


def test_logits_that_are_not_the_heads_are_refused(tmp_path):
    model = tiny_model("llama", seed=3)
    model.lm_head.register_forward_hook(lambda _, __, output: output * 2)
    with pytest.raises(InputError, match="the logits of the pruned model .* are not its LM head applied"):
        score_rows(tmp_path, spec(pruned=model))


@pytest.mark.parametrize("rows", [[], [ROWS[NO_ANSWER], ROWS[ONE_TOKEN]]])
@pytest.mark.parametrize("resident", [True, False])
def test_without_an_answer_no_model_is_loaded(tmp_path, rows, resident):
    scores = score_rows(tmp_path, unloadable(rows=rows, resident=resident))
    assert np.isnan(scores.divergence).tolist() == [True] * len(rows)
    assert np.isnan(answer_alone_cross_entropy(tmp_path, unloadable(rows=rows))).all()


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"batch_tokens": 0}])
def test_impossible_settings_are_refused(settings):
    (name,) = settings
    with pytest.raises(InputError, match=f"{name} is 0"):
        spec(**settings)


@torch.inference_mode()
def alone(bos):
    values = []
    for row in ROWS:
        pairs = list(zip(row["input_ids"], row["labels"], strict=True))[1:]
        ids = ([] if bos is None else [bos]) + [token for token, label in pairs if label != MASKED]
        if len(ids) < 2:
            values.append(math.nan)
            continue
        logits = PRUNED(torch.tensor([ids])).logits[0, :-1].double()
        values.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))))
    return values


@pytest.mark.parametrize("bos", [None, BOS])
def test_answers_are_scored_without_their_prompts(tmp_path, bos):
    values = answer_alone_cross_entropy(tmp_path, spec(bos=bos))
    np.testing.assert_allclose(values, alone(bos), rtol=2e-6)


def test_answers_alone_are_shared_resumed_and_kept(tmp_path):
    for index in range(2):
        write_answers_alone(tmp_path, spec(bos=BOS), ProcessShare(index, 2))
    values = answer_alone_cross_entropy(tmp_path, unloadable(bos=BOS))
    np.testing.assert_allclose(values, alone(BOS), rtol=2e-6)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.selection import test_scoring as cases
from trl_prune.data.selection import row_batches
from trl_prune.data.sharing import ProcessShare
row_batches.CHUNK_ROWS = 3
def progress(chunks):
    yield from chunks[:2]
    os.kill(os.getpid(), signal.SIGKILL)
dense, pruned = (cases.lazy(model, name) for model, name in ((cases.DENSE, "dense"), (cases.PRUNED, "pruned")))
spec = cases.ScoreSpec(cases.ROWS, dense, pruned, batch_tokens=64)
cases.write_scores(Path(sys.argv[1]), spec, ProcessShare(progress=progress))
"""


@pytest.mark.slow
def test_a_killed_process_keeps_its_chunks(tmp_path):
    folder = tmp_path / "killed"
    assert (
        subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False, env=dict(os.environ)).returncode == -9
    )
    given = ScoreSpec(ROWS, lazy(DENSE, "dense"), lazy(PRUNED, "pruned"), batch_tokens=64)
    done = []
    share = ProcessShare(progress=lambda chunks: done.append(chunks) or iter(chunks))
    resumed = score_rows(folder, given, share)
    assert done == [[2, 3, 4]]
    np.testing.assert_array_equal(columns(resumed), columns(score_rows(tmp_path / "whole", given)))
