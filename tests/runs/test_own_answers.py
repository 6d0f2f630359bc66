"""Calibration texts in the dense model's own words, as a run makes and keeps them."""

import json

import pytest
import torch

from tests.conftest import rewrite_tensors
from tests.recipes import recipe_values
from trl_prune.data.answered_prompts import row_prompts
from trl_prune.data.generation.transformers_engine import TransformersEngine
from trl_prune.errors import InputError
from trl_prune.losses.positions import COUNTED
from trl_prune.pipeline import plan, run_recipe
from trl_prune.pruning.importance.scores import Scores, score
from trl_prune.recipe import parse_recipe
from trl_prune.runs import scoring
from trl_prune.runs.context import Run
from trl_prune.runs.own_answers import own_answer_batches, own_answer_tokens, summary


def generating_recipe(folder, score=None, **sections):
    values = recipe_values(folder) | {"recover": {}, "prune": {"target": {"layers": 3}}} | sections
    values["score"] |= {"dataset": "generated", "max_new_tokens": 6} | (score or {})
    values.pop("rewrite")
    return parse_recipe(values, "test")


@pytest.fixture
def no_model(monkeypatch):
    """Let the model not be loaded."""
    monkeypatch.setattr(Run, "load_for_scoring", lambda *_: pytest.fail("the model is loaded"))


def test_texts_are_prompts_with_the_models_greedy_answers(tmp_path):
    run = Run(generating_recipe(tmp_path))
    texts = [row for batch in own_answer_batches(run) for row in rows_of(batch)]
    model = run.load_for_scoring(run.dense_dir)
    prompts = {tuple(prompt.ids) for prompt in row_prompts(run.dataset, run.tokenizer, {}, 500)}
    for ids, counted in texts:
        first = counted.index(True)
        prompt = ids[: first + 1]
        assert tuple(prompt) in prompts
        generated = model.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)[0, len(prompt) :]
        answer = run.tokenizer.decode(generated, skip_special_tokens=True)
        assert run.tokenizer.decode(ids[first + 1 :], skip_special_tokens=True) == answer
    assert summary(run)["asked"] == 8 == len(texts) + summary(run)["empty"]


def rows_of(batch):
    for ids, mask, counted in zip(*(batch[name] for name in ("input_ids", "attention_mask", COUNTED)), strict=True):
        yield ids[mask.bool()].tolist(), counted[mask.bool()].tolist()


@pytest.mark.slow
def test_answers_are_generated_once_and_kept_when_other_settings_change(tmp_path, monkeypatch):
    run = run_recipe(generating_recipe(tmp_path), ["score"])
    stored = {path.name: path.read_bytes() for path in (run.folder.stage_dir("score") / "answers").iterdir()}
    metrics = json.loads((run.folder.stage_dir("score") / "result.json").read_text())["metrics"]
    assert metrics["answers"]["asked"] == 8
    monkeypatch.setattr(TransformersEngine, "generate", lambda *_: pytest.fail("an answer is generated again"))
    again = run_recipe(generating_recipe(tmp_path, {"tokens": "last"}), ["score"])
    assert {path.name for path in (again.folder.stage_dir("score") / "answers").iterdir()} == set(stored)
    assert own_answer_tokens(again) == sum(int(batch["attention_mask"].sum()) for batch in own_answer_batches(again))


def test_scores_count_answers_alone(tmp_path):
    run = run_recipe(generating_recipe(tmp_path), ["score"])
    found = Scores.load(run.folder.output("score", "scores"))
    batches = own_answer_batches(run)
    assert found.layers.num_positions == sum(int(batch[COUNTED].sum()) for batch in batches)
    model = run.load_for_scoring(run.dense_dir)
    whole = [{name: tensor for name, tensor in batch.items() if name != COUNTED} for batch in batches]
    all_tokens = score(model, whole)
    assert not torch.allclose(all_tokens.layers.block_influence(), found.layers.block_influence(), rtol=1e-4)
    assert not torch.allclose(all_tokens.neurons(), found.neurons(), rtol=1e-3)
    states, counted = all_states(model, whole), torch.cat([batch[COUNTED].flatten() for batch in batches])
    cosine = torch.nn.functional.cosine_similarity(states[:-1, counted], states[1:, counted], dim=-1)
    torch.testing.assert_close(found.layers.block_influence().float(), 1 - cosine.mean(dim=1), rtol=1e-3, atol=1e-5)


@torch.inference_mode()
def all_states(model, batches):
    """Return the stream before every block and after the last, of all positions, by hooks."""
    blocks, read = model.model.layers, []
    handles = [block.register_forward_pre_hook(lambda _, args: read.append(args[0])) for block in blocks]
    handles.append(blocks[-1].register_forward_hook(lambda _, __, output: read.append(output)))
    for batch in batches:
        model(**batch)
    [handle.remove() for handle in handles]
    by_batch = [read[start : start + 5] for start in range(0, len(read), 5)]
    return torch.stack([torch.cat([states[layer].flatten(0, 1) for states in by_batch]) for layer in range(5)])


@pytest.mark.slow
def test_blocks_are_chosen_by_what_changes_in_answers(tmp_path):
    cut = {"by": "kl", "strategy": "beam", "beam_width": 2, "target": {"layers": 2}, "repairs": {}}
    run = run_recipe(generating_recipe(tmp_path, prune=cut), ["prune"])
    found = run.folder.result("prune").metrics["by_effect"]
    assert found["strategy"] == "beam"
    assert found["removed"] == run.folder.result("prune").metrics["removed"]
    assert (run.folder.stage_dir("score") / "answers").is_dir()


@pytest.mark.slow
def test_scoring_block_by_block_counts_the_same_positions(tmp_path, monkeypatch):
    run = run_recipe(generating_recipe(tmp_path), ["score"])
    whole = run.folder.output("score", "scores").read_bytes()
    monkeypatch.setattr(scoring, "is_out_of_core", lambda _: True)
    found = scoring.score_checkpoint(run, run.dense_dir, tmp_path)
    found.save(tmp_path / "found.safetensors")
    assert (tmp_path / "found.safetensors").read_bytes() == whole


def test_the_plan_generates_nothing(tmp_path, no_model):
    lines = list(plan(generating_recipe(tmp_path), ["prune"]))
    assert any("the dense model's answers to 8 prompts, up to 6 tokens each" in line for line in lines)


def test_a_model_that_answers_nothing_is_one_sentence(tmp_path):
    run = Run(generating_recipe(tmp_path))
    eos = run.tokenizer.eos_token_id

    def only_ends(tensors):
        tensors["model.norm.weight"].zero_()
        tensors["lm_head.weight"].zero_()

    rewrite_tensors(run.dense_dir, only_ends)  # all logits are equal, and the first token is the likeliest
    generation = {"eos_token_id": [0, eos]}
    (run.dense_dir / "generation_config.json").write_text(json.dumps(generation))
    with pytest.raises(InputError, match="'generated', and the dense model answers none of 8 prompts"):
        own_answer_batches(Run(generating_recipe(tmp_path)))


def test_rows_without_prompts_are_one_sentence(tmp_path):
    recipe_values(tmp_path)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "plain"}))
    recipe = generating_recipe(tmp_path, dataset={"path": str(tmp_path / "texts.jsonl")})
    with pytest.raises(InputError, match="has no row with an answer behind a prompt of at most 506 tokens"):
        list(plan(recipe, ["score"]))


def test_a_model_larger_than_memory_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "is_out_of_core", lambda _: True)
    with pytest.raises(InputError, match="score.dataset is 'generated', for which all of the model must be in memory"):
        list(plan(generating_recipe(tmp_path), ["score"]))
