"""Blocks chosen by measured effect, against every choice measured by itself and after an interruption."""

from itertools import combinations

import pytest
import torch

from tests.conftest import save_tiny
from tests.recipes import prune_run, recipe
from trl_prune.checkpoints.loading import load_model
from trl_prune.errors import InputError
from trl_prune.pruning.choosing.losses import MeasuredLosses
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.cut import Cut
from trl_prune.recipe import parse_recipe
from trl_prune.runs import effects
from trl_prune.runs.context import Run
from trl_prune.runs.effects import describe_search, effect_tasks, found_by_effect, measured_effect, removed_by_effect
from trl_prune.runs.evaluation import mean_score
from trl_prune.runs.repairs import fitted_repairs
from trl_prune.runs.scoring import calibration
from trl_prune.stages.prune import check


class Interrupted(Exception):
    """Stands for the kill of the process."""


def new_folder(path):
    path.mkdir()
    return path


def losses_of(run):
    return MeasuredLosses(measured_effect(run, load_model(run.dense_dir, dtype=run.dtype)))


@pytest.mark.parametrize("by", ["perplexity", "kl", "agreement", "task:tiny_choice"])
def test_the_removed_block_is_the_one_with_the_least_effect(tmp_path, by):
    run = prune_run(tmp_path, by=by, target={"layers": 3})
    losses = losses_of(run)([(layer,) for layer in range(4)])
    assert removed_by_effect(run, 3, tmp_path) == [losses.index(min(losses))]
    found = found_by_effect(tmp_path)
    assert found["loss"] == min(losses)
    assert found["cost"]["choices"] == 4
    assert found["cost"]["dense_passes"] == (0 if by.startswith("task") else (6 + 3) / 4)


def test_a_contiguous_search_measures_every_run_of_blocks(tmp_path):
    run = prune_run(tmp_path, by="kl", strategy="contiguous", target={"layers": 2})
    runs = [pair for pair in combinations(range(4), 2) if pair[1] == pair[0] + 1]
    assert tuple(removed_by_effect(run, 2, tmp_path)) == min(runs, key=lambda pair: losses_of(run)([pair]))


@pytest.mark.parametrize("by", ["kl", "task:tiny_choice"])
@torch.inference_mode()
def test_as_repaired_the_effect_is_that_of_the_repaired_checkpoint(tmp_path, by):
    section = {"by": by, "as_repaired": True, "target": {"layers": 3}, "repairs": {"linear_map": {"ridge": 0.01}}}
    run, keep = prune_run(tmp_path, **section), {LAYERS: [0, 1, 3]}
    (loss,) = losses_of(run)([(2,)])
    repairs = fitted_repairs(run, Cut.of(run.config, keep), tmp_path / "fits")
    run.prune_to(tmp_path / "pruned", keep, repairs)
    dense, pruned = (load_model(folder, dtype=run.dtype) for folder in (run.dense_dir, tmp_path / "pruned"))
    if by == "kl":
        divergences = [divergence(dense, pruned, batch) for batch in calibration(run)]
        assert loss == pytest.approx(torch.cat(divergences).mean().item(), rel=1e-4)
        assert losses_of(prune_run(tmp_path, **section | {"as_repaired": False}))([(2,)]) != [loss]
    else:
        assert loss == -mean_score(run, pruned, effect_tasks(run))


def divergence(dense, pruned, batch):
    """Return the KL divergence at every token."""
    wanted, found = (model(**batch, use_cache=False).logits.log_softmax(-1) for model in (dense, pruned))
    return (wanted.exp() * (wanted - found)).sum(-1)[batch["attention_mask"].bool()]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"repairs": {}}, "prune.repairs has no linear_map"),
        (
            {"target": {"layers": 3, "hidden_size": 16}, "repairs": {"norm_rescale": {}}},
            "prune.repairs has no linear_map",
        ),
    ],
)
def test_a_recipe_that_fits_no_maps_cannot_measure_with_them(tmp_path, section, words):
    run = prune_run(tmp_path, **{"by": "kl", "as_repaired": True, "target": {"layers": 3}} | section)
    with pytest.raises(InputError, match=f"prune.as_repaired measures with linear maps: {words}"):
        check(run)


def test_too_few_texts_for_maps_are_refused(tmp_path):
    values = recipe(tmp_path, recover={}, rewrite=None).model_dump() | {"score": {"samples": 1}}
    section = {"by": "kl", "as_repaired": True, "target": {"layers": 3}}
    with pytest.raises(InputError, match=r"linear maps: no linear_map: \d+ calibration tokens, 320 required"):
        check(Run(parse_recipe(values | {"prune": section}, "test")))


def test_a_model_whose_blocks_take_no_maps_is_refused(tmp_path):
    save_tiny(tmp_path / "gemma", "gemma2")
    values = recipe(tmp_path, recover={}, rewrite=None).model_dump() | {"model": str(tmp_path / "gemma")}
    section = {"by": "kl", "as_repaired": True, "target": {"layers": 3}}
    with pytest.raises(InputError, match="linear maps: linear_map cannot repair gemma2: it has a norm"):
        check(Run(parse_recipe(values | {"prune": section}, "test")))


@pytest.mark.parametrize(
    ("family", "samples", "as_repaired"), [("llama", 64, True), ("llama", 1, False), ("gemma2", 64, False)]
)
def test_auto_measures_as_repaired_where_maps_can_be_fitted(tmp_path, family, samples, as_repaired):
    save_tiny(tmp_path / "model", family)
    values = recipe(tmp_path, recover={}, rewrite=None).model_dump() | {"model": str(tmp_path / "model")}
    values |= {"score": {"samples": samples}}
    section = {"by": "kl", "strategy": "contiguous", "target": {"layers": 3}}
    auto, plain = (
        Run(parse_recipe(values | {"prune": section | {"as_repaired": wanted}}, "test")) for wanted in ("auto", False)
    )
    check(auto)
    assert ("linear maps" in describe_search(auto, 3)) == as_repaired
    losses, plain_losses = (losses_of(run)([(layer,) for layer in range(4)]) for run in (auto, plain))
    assert removed_by_effect(auto, 3, new_folder(tmp_path / "auto")) == [losses.index(min(losses))]
    assert found_by_effect(tmp_path / "auto").get("as_repaired", False) == as_repaired
    assert (losses[2] != plain_losses[2]) == as_repaired


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "greedy search: about 7 choices of blocks measured, 3.5 passes of the dense model over the texts"),
        ({"strategy": "single"}, "single search: about 4 choices of blocks measured, 2.2 passes"),
        ({"strategy": "beam", "beam_width": 2}, "beam search: about 9 choices of blocks measured"),
        ({"by": "task:tiny_choice"}, "greedy search: about 7 choices of blocks measured"),
        (
            {"as_repaired": True},
            "greedy search: about 7 choices of blocks measured with linear maps in the place of what they remove, "
            "4.2 passes of the dense model over the texts",
        ),
    ],
)
def test_the_plan_says_what_the_search_costs(tmp_path, section, words):
    run = prune_run(tmp_path, **{"by": "kl", "target": {"layers": 2}} | section)
    assert describe_search(run, 2).startswith(words)


def test_a_search_reads_as_many_texts_as_it_needs(tmp_path):
    section = {"by": "kl", "target": {"layers": 2}}
    values = recipe(tmp_path, recover={}, rewrite=None).model_dump() | {"score": {"batch_size": 2}}
    runs = (Run(parse_recipe(values | {"prune": section | texts}, "test")) for texts in ({}, {"texts": 3}))
    every, few = runs
    model = load_model(every.dense_dir, dtype=every.dtype)
    tokens, fewer = (measured_effect(run, model).tokens for run in (every, few))
    assert fewer == [tokens[0], tokens[len(tokens) // 2]]  # two batches of two, from all over the texts
    assert describe_search(few, 2) == describe_search(every, 2)  # in passes over the texts that are read


@pytest.mark.parametrize("strategy", ["greedy", pytest.param("swap", marks=pytest.mark.slow)])
def test_an_interrupted_search_repeats_no_measurement(tmp_path, monkeypatch, strategy):
    run = prune_run(tmp_path, by="perplexity", strategy=strategy, target={"layers": 2})
    whole = removed_by_effect(run, 2, new_folder(tmp_path / "whole"))
    effect, measured = measured_effect(run, load_model(run.dense_dir, dtype=run.dtype)), []
    sums = effect.sums

    def interrupted_at(limit):
        def counted(part, choices):
            if len(measured) >= limit:
                raise Interrupted
            measured.extend((part, choice) for choice in choices)
            return sums(part, choices)

        effect.sums = counted
        return lambda run, model: effect

    monkeypatch.setattr(effects, "measured_effect", interrupted_at(18))
    resumed = new_folder(tmp_path / "resumed")
    with pytest.raises(Interrupted):
        removed_by_effect(run, 2, resumed)
    monkeypatch.setattr(effects, "measured_effect", interrupted_at(10**6))
    assert removed_by_effect(run, 2, resumed) == whole
    assert len(measured) == len(set(measured))
    assert found_by_effect(resumed) == found_by_effect(tmp_path / "whole")
