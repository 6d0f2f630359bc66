"""How a recipe's model is scored: in memory or block by block, said before it begins, with equal results."""

import shutil
from collections import namedtuple

import pytest
from safetensors.torch import load_file

from tests.conftest import tiny_tokenizer
from tests.published import published_config, save_hollow
from tests.recipes import prune_run, recipe_values
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe
from trl_prune.pruning.importance.memory import scoring_needs
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.recipe import parse_recipe
from trl_prune.runs import scoring
from trl_prune.runs.context import Run
from trl_prune.runs.scoring import (
    STATES,
    calibration,
    check_way,
    describe_texts,
    describe_way,
    expected_texts,
    is_out_of_core,
    states_on_disk,
)


def pruning_recipe(folder, name="run", **sections):
    values = recipe_values(folder, name) | {"prune": {"target": {"layers": 3}}, "recover": {}} | sections
    values.pop("rewrite")
    return parse_recipe(values, "test")


def test_out_of_core_gives_the_same_file_of_scores(tmp_path):
    scores = []
    for name, out_of_core in (("in", False), ("out", True)):
        section = {"samples": 8, "batch_size": 2, "out_of_core": out_of_core}
        run = run_recipe(pruning_recipe(tmp_path, name, score=section), ["score"])
        scores.append(run.folder.output("score", "scores").read_bytes())
        assert not (run.folder.stage_dir("score") / STATES).exists()
    assert scores[0] == scores[1]


def test_rounds_are_scored_by_blocks_as_well(tmp_path):
    kept = []
    for name, out_of_core in (("in", False), ("out", True)):
        section = {"samples": 8, "batch_size": 2, "out_of_core": out_of_core}
        cut = {"target": {"layers": 2}, "rounds": 2, "repairs": {}}
        run = run_recipe(pruning_recipe(tmp_path, name, score=section, prune=cut), ["prune"])
        kept.append(load_file(run.folder.output("prune", "model") / "model.safetensors"))
    assert all((kept[0][name] == tensor).all() for name, tensor in kept[1].items())


def test_a_model_larger_than_the_free_memory_is_scored_by_blocks_and_the_plan_says_so(tmp_path, monkeypatch):
    run = prune_run(tmp_path, target={"layers": 3})
    assert not is_out_of_core(run)
    assert describe_way(run).endswith("GB of memory")
    assert states_on_disk(run) == 0
    monkeypatch.setattr(scoring, "_free_memory", lambda _: 1000)
    assert is_out_of_core(run)
    assert describe_way(run).startswith("block by block, with up to ")
    assert states_on_disk(run) > 0
    assert not is_out_of_core(Run(pruning_recipe(tmp_path, score={"device_map": "auto"})))


def test_a_quantised_model_is_not_scored_by_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "_free_memory", lambda _: 1000)
    run = prune_run(tmp_path, target={"layers": 3})
    run.config.quantization_config = {"quant_method": "fp8"}
    assert not is_out_of_core(run)
    run = Run(pruning_recipe(tmp_path, score={"out_of_core": True}))
    run.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(
        InputError, match="score.out_of_core runs one block at a time, which llama cannot: its weights"
    ):
        check_way(run)


def test_needs_are_those_of_the_weights_and_the_states():
    config = published_config("Qwen3-235B-A22B")
    required = scoring_needs(meta_model(config), 2, 256, 512, "all")
    block, states = 2_487_755_008, 256 * 512 * 4096
    assert required.in_memory == 2 * 235_093_634_560
    assert required.by_blocks == 2 * (151936 * 4096 + 4096 + 2 * block + states)
    assert required.disk == 2 * (95 + 2) * states
    assert scoring_needs(meta_model(config), 2, 256, 512, "last").disk == 2 * (95 * 256 * 4096 + 2 * states)


@pytest.mark.slow  # transformers' loader looks at each of some 40,000 experts
@pytest.mark.parametrize("name", ["Qwen3-235B-A22B", "gpt-oss-120b"])
def test_the_plan_of_a_published_mixture(name, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**15, 0, 10**15))
    dense = save_hollow(tmp_path / "hollow", published_config(name))
    tiny_tokenizer().save_pretrained(dense)
    section = {"target": {"num_experts": 64}, "repairs": {}, "ranking": {"experts_by": "reap"}}
    recipe = pruning_recipe(tmp_path, model=str(dense), prune=section, dtype="bfloat16")
    lines = list(plan(recipe, ["prune"]))
    sizes = {
        "Qwen3-235B-A22B": ("235,093.6M -> 121,520.8M", "num_experts 128 -> 64"),
        "gpt-oss-120b": ("116,829.2M -> ", "num_experts 128 -> 64"),
    }
    assert all(text in lines[-1] for text in sizes[name])
    assert "block by block, with up to" in lines[-2]
    assert "of disk meanwhile" in lines[-2]
    assert "of memory" in lines[-1]


def test_texts_of_several_rows_are_counted_and_said(tmp_path):
    run = Run(pruning_recipe(tmp_path, score={"samples": 3, "rows_per_text": 2, "batch_size": 2}))
    batches = calibration(run)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 1]
    text = run.tokenizer.decode(batches[0]["input_ids"][0][batches[0]["attention_mask"][0].bool()])
    assert text.count("\n\n") == 1
    assert (expected_texts(run), describe_texts(run)) == (3, "3 texts of 2 rows each")
    both = Run(pruning_recipe(tmp_path, score={"samples": 6, "rows_per_text": [1, 2], "batch_size": 9}))
    (batch,) = calibration(both)
    found = [both.tokenizer.decode(ids[mask.bool()]) for ids, mask in zip(*batch.values(), strict=True)]
    assert len(found) == expected_texts(both) == 4 + 2
    assert sum("\n\n" in text for text in found) == 2
    assert describe_texts(both) == "6 texts of 1 and 2 rows each"
    with pytest.raises(InputError, match=r"score.rows_per_text is \[2, 2\]; wanted: each number once"):
        pruning_recipe(tmp_path, score={"rows_per_text": [2, 2]})
    with pytest.raises(InputError, match="has `rows_per_text`, which is for rows that are read"):
        pruning_recipe(tmp_path, score={"rows_per_text": 2, "dataset": "generated"})
