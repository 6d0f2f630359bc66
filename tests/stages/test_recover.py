import gc
import json
import weakref

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.recipes import kd_recipe, recipe_values
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.trainers.arms import training as arms


ARMS = {
    "sft": {"method": "sft"},
    "kd": {"teacher_cache": False, "args": {"hidden_loss": "none"}},
    "offline": {},
    "text": {"data": "text"},
    "lora": {"peft": {"r": 2}},
    "blocks": {"init": "random_units"},
    "weights": {"init": "random_weights"},
    "onward": {"method": "sft", "init": "sft"},
    "local": {"method": "local_kd", "data": "text", "args": {"blocks_after_cut": 0}},
}
STAGES = ["recover"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recover")
    return run_recipe(kd_recipe(folder, ARMS, tier="hidden"), STAGES)


def metrics(run, arm):
    return run.folder.require("recover", arm).metrics


def weights(run, arm):
    return AutoModelForCausalLM.from_pretrained(run.model_dir(arm), dtype=torch.float32).state_dict()


def test_every_arm_ends_as_a_checkpoint_of_the_pruned_shape(finished):
    pruned = AutoModelForCausalLM.from_pretrained(finished.model_dir("pruned")).state_dict()
    for arm in ARMS:
        recovered = weights(finished, arm)
        assert {name: weight.shape for name, weight in recovered.items()} == {
            name: weight.shape for name, weight in pruned.items()
        }
        assert not (finished.folder.stage_dir("recover", arm) / "start").exists()
        assert read_provenance(finished.model_dir(arm)).dense == finished.root


def test_arms_train_on_equally_many_tokens(finished):
    assert len({metrics(finished, arm)["tokens"] for arm in ARMS}) == 1
    assert metrics(finished, "text")["data"] == "text"


def test_training_on_the_cache_has_the_losses_of_the_online_teacher(finished):
    """Up to rounding of the states to 16 bits; tests/trainers/teachers/test_cached.py compares the two."""
    logs = [json.loads(finished.folder.output("recover", "log", arm).read_text()) for arm in ("kd", "offline", "sft")]
    online, offline, data = ([entry["loss"] for entry in log] for log in logs)
    assert offline == pytest.approx(online, rel=0.05)
    assert min(data) > 10 * max(online)


def test_baselines_start_from_random_units_or_weights(finished):
    starts = {arm: metrics(finished, arm)["init"] for arm in ("kd", "blocks", "weights")}
    assert starts == {"kd": "pruned", "blocks": "random_units", "weights": "random_weights"}
    keep = {arm: read_provenance(finished.model_dir(arm)).keep["num_hidden_layers"] for arm in ("kd", "blocks")}
    assert len(keep["kd"]) == len(keep["blocks"]) == 2
    assert read_provenance(finished.model_dir("weights")).edits == [{"edit": "random_weights", "seed": 0}]


def test_an_arm_goes_on_from_another_one(finished):
    first, second = (
        json.loads(finished.folder.output("recover", "log", arm).read_text()) for arm in ("sft", "onward")
    )
    assert second[0]["loss"] < first[0]["loss"]
    result = finished.folder.require("recover", "onward")
    assert result.metrics["init"] == "sft"
    assert result.inputs["start"] == finished.folder.result_hash("recover", "sft")
    card = (finished.model_dir("onward") / "README.md").read_text()
    assert card.count("Recovered by supervised fine-tuning") == 2


def test_flops_count_the_teacher(finished):
    tokens = metrics(finished, "kd")["tokens"]
    sizes = finished.folder.require("prune").metrics
    size = {name: sizes[name]["flops_per_token"] for name in ("dense", "pruned")}
    assert metrics(finished, "sft")["flops"] == {"student": 3 * tokens * size["pruned"], "teacher": 0.0}
    assert metrics(finished, "kd")["flops"] == {
        "student": 3 * tokens * size["pruned"],
        "teacher": tokens * size["dense"],
    }
    assert metrics(finished, "lora")["flops"]["student"] == 2 * tokens * size["pruned"]
    assert metrics(finished, "offline")["flops"]["teacher"] == tokens * size["dense"], "one epoch"
    keep = read_provenance(finished.model_dir("pruned")).keep["num_hidden_layers"]
    block = (size["dense"] - size["pruned"]) / 2
    # What is trained without blocks behind a cut, and up to where the dense model runs, for a cut of two of four.
    trained, last = {(0, 3): (1, 3), (0, 1): (1, 4), (2, 3): (1, 3), (1, 3): (1, 3), (0, 2): (2, 4), (1, 2): (2, 4)}[
        tuple(keep)
    ]
    assert metrics(finished, "local")["flops"] == {  # of four blocks two are kept
        "student": pytest.approx(3 * tokens * block * trained),
        "teacher": pytest.approx(tokens * block * last),
    }


def test_the_plan_describes_every_arm(finished):
    lines = "\n".join(plan(finished.recipe))
    for line in (
        "kd on references, 1 epochs, all weights, teacher cached, from random_units",
        "kd on text, 1 epochs, all weights, teacher cached",
        "sft on references, 1 epochs, all weights",
        "sft on references, 1 epochs, all weights, from sft",
        "local_kd on text, 1 epochs, all weights",
        "kd on references, 1 epochs, LoRA r=2, teacher cached",
    ):
        assert line in lines


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_an_interrupted_cached_arm_resumes_to_the_same_model(finished, tmp_path, monkeypatch):
    recipe = kd_recipe(tmp_path, {"offline": {}}, tier="hidden")
    steps = 0
    step = arms.KDTrainer.training_step

    def breaking(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise Killed
        return step(self, *args, **kwargs)

    monkeypatch.setattr(arms.KDTrainer, "training_step", breaking)
    with pytest.raises(Killed):
        run_recipe(recipe, STAGES)
    run = run_recipe(recipe, STAGES)
    assert metrics(run, "offline") == metrics(finished, "offline")
    wanted = weights(finished, "offline")
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights(run, "offline").items())


MIX = [{"source": "references", "share": 0.75}, {"source": "text", "share": 0.25}]


def test_a_mix_records_its_sources_and_a_kd_arm_trains_on_it_without_the_cache(tmp_path):
    arms = {"mix": {"method": "sft", "data": MIX}, "kd": {"data": MIX, "teacher_cache": False, "rows": 8}}
    run = run_recipe(kd_recipe(tmp_path, arms), STAGES)
    assert metrics(run, "mix")["data"] == "75 % references + 25 % text"
    assert metrics(run, "mix")["rows"] == 24
    sources = metrics(run, "mix")["sources"]
    assert [(source["source"], source["rows"]) for source in sources] == [("references", 18), ("text", 6)]
    assert sum(source["tokens"] for source in sources) == metrics(run, "mix")["tokens"], "one epoch"
    assert [source["rows"] for source in metrics(run, "kd")["sources"]] == [6, 2]
    assert metrics(run, "kd")["steps"] == 4, "batches of 2"
    assert "sft on 75 % references + 25 % text, 1 epochs" in "\n".join(plan(run.recipe))
    assert "kd on 75 % references + 25 % text, 8 rows, 1 epochs" in "\n".join(plan(run.recipe))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"divergence": "kl"}, "recover.kd.args: divergence is 'kl'"),
        (
            {"temperatur": 1.0},
            "recover.kd.args.temperatur is not an accepted argument; did you mean 'args.temperature'?",
        ),
        ({"teacher_cache": "x"}, "recover.kd.args.teacher_cache is not an accepted argument"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "recover.kd.args: One of min_lr or min_lr_rate should be set"),
        ({"lr_scheduler_kwargs": {"min_lr": 1e-5}}, "recover.kd.args: .*min_lr"),
    ],
)
def test_wrong_arguments_are_reported_before_anything_starts(tmp_path, args, message):
    with pytest.raises(InputError, match=message):
        run_recipe(kd_recipe(tmp_path, {"kd": {"args": args, "teacher_cache": False}}))
    assert not (tmp_path / "run").exists()


def test_a_minimum_learning_rate_is_kept(tmp_path):
    args = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 4e-4}, "logging_steps": 1}
    run = run_recipe(kd_recipe(tmp_path, {"kd": {"args": args}}), STAGES)
    rates = [entry["learning_rate"] for entry in json.loads(run.folder.output("recover", "log", "kd").read_text())]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    assert 4e-4 <= rates[-1] < 4.3e-4


def test_an_arm_in_minutes_is_planned_and_measured(tmp_path):
    values = recipe_values(tmp_path)
    args = {name: value for name, value in values["recover"]["sft"]["args"].items() if name != "num_train_epochs"}
    arm = {"method": "kd", "data": "references", "validation": 2, "minutes": 0.1}
    recipe = parse_recipe(values | {"recover": {"kd": arm | {"args": args | {"hidden_loss": "none"}}}}, "test")
    assert "kd on references, 0.1 minutes, all weights, measured on 2 rows" in "\n".join(plan(recipe))
    curve = metrics(run_recipe(recipe, STAGES), "kd")["curve"]
    assert curve["metric"] == "kl"
    assert len(curve["points"]) == 7


def test_validation_leaves_rows_to_train_on(tmp_path):
    recipe = kd_recipe(tmp_path, {"kd": {"validation": 500}})
    with pytest.raises(InputError, match=r"recover.kd.validation is 500, and the arm has \d+ rows"):
        run_recipe(recipe, STAGES)


def test_an_arms_model_is_gone_when_the_next_one_is_loaded(tmp_path, monkeypatch):
    models, alive, build_trainer = [], [], arms.build_trainer

    def counted(*args):
        alive.append(sum(model() is not None for model in models))
        trainer = build_trainer(*args)
        models.append(weakref.ref(trainer.model))
        return trainer

    monkeypatch.setattr(arms, "build_trainer", counted)
    gc.disable()  # no collection by chance
    try:
        run_recipe(kd_recipe(tmp_path, {"one": {"method": "sft"}, "other": {"teacher_cache": False}}), STAGES)
    finally:
        gc.enable()
    assert alive == [0, 0]
