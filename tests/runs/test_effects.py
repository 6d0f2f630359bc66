"""Blocks chosen by measured effect, against every choice measured by itself and after an interruption."""

from itertools import combinations

import pytest

from tests.recipes import prune_run
from trl_prune.checkpoints.loading import load_model
from trl_prune.runs import effects
from trl_prune.runs.effects import measured_loss, removed_by_effect


class Interrupted(Exception):
    """Stands for the kill of the process."""


def new_folder(path):
    path.mkdir()
    return path


@pytest.mark.parametrize("by", ["perplexity", "kl", "task:tiny_choice"])
def test_the_removed_block_is_the_one_with_the_least_effect(tmp_path, by):
    run = prune_run(tmp_path, by=by, target={"layers": 3})
    loss = measured_loss(run, load_model(run.dense_dir, dtype=run.dtype))
    assert removed_by_effect(run, 3, tmp_path) == [min(range(4), key=lambda layer: loss([layer]))]


def test_a_contiguous_search_measures_every_run_of_blocks(tmp_path):
    run = prune_run(tmp_path, by="kl", strategy="contiguous", target={"layers": 2})
    loss = measured_loss(run, load_model(run.dense_dir, dtype=run.dtype))
    runs = [pair for pair in combinations(range(4), 2) if pair[1] == pair[0] + 1]
    assert tuple(removed_by_effect(run, 2, tmp_path)) == min(runs, key=lambda pair: loss(list(pair)))


def test_an_interrupted_search_repeats_no_measurement(tmp_path, monkeypatch):
    run = prune_run(tmp_path, by="perplexity", strategy="greedy", target={"layers": 2})
    whole = removed_by_effect(run, 2, new_folder(tmp_path / "whole"))
    loss, measured = measured_loss(run, load_model(run.dense_dir, dtype=run.dtype)), []

    def interrupted_at(limit):
        def counted(removed):
            if len(measured) == limit:
                raise Interrupted
            measured.append(tuple(removed))
            return loss(removed)

        return lambda run, model: counted

    monkeypatch.setattr(effects, "measured_loss", interrupted_at(5))
    resumed = new_folder(tmp_path / "resumed")
    with pytest.raises(Interrupted):
        removed_by_effect(run, 2, resumed)
    monkeypatch.setattr(effects, "measured_loss", interrupted_at(None))
    assert removed_by_effect(run, 2, resumed) == whole
    assert len(measured) == len(set(measured)) == 4 + 3
