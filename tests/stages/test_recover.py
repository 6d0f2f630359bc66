import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.stages.test_cache_teacher import parse, values
from trl_prune.checkpoints import read_provenance
from trl_prune.errors import InputError
from trl_prune.pipeline import plan, run_recipe
from trl_prune.trainers.arms import training as arms


ARMS = {
    "sft": {"method": "sft"},
    "kd": {"teacher_cache": False, "args": {"hidden_loss": "none"}},
    "offline": {},
    "text": {"data": "text"},
    "lora": {"peft": {"r": 2}},
    "blocks": {"init": "random_units"},
    "weights": {"init": "random_weights"},
}
STAGES = ["score", "prune", "cache_teacher", "recover"]


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recover")
    return run_recipe(parse(values(folder, ARMS, tier="hidden")), STAGES)


def metrics(run, arm):
    return run.folder.needed("recover", arm).metrics


def weights(run, arm):
    return AutoModelForCausalLM.from_pretrained(run.model_dir(arm), dtype=torch.float32).state_dict()


def test_every_arm_ends_as_a_checkpoint_of_the_pruned_shape(road):
    pruned = AutoModelForCausalLM.from_pretrained(road.model_dir("pruned")).state_dict()
    for arm in ARMS:
        told = weights(road, arm)
        assert {name: weight.shape for name, weight in told.items()} == {
            name: weight.shape for name, weight in pruned.items()
        }
        assert not (road.folder.stage_dir("recover", arm) / "start").exists()
        assert read_provenance(road.model_dir(arm)).dense == road.root


def test_arms_learn_from_as_many_tokens(road):
    assert len({metrics(road, arm)["tokens"] for arm in ARMS}) == 1
    assert metrics(road, "text")["data"] == "text"


def test_the_cache_teaches_what_the_teacher_teaches(road):
    """But for the states' rounding to 16 bits; tests/trainers/teachers/test_cached.py holds the two to each other."""
    logs = [json.loads(road.folder.output("recover", "log", arm).read_text()) for arm in ("kd", "offline", "sft")]
    online, offline, data = ([entry["loss"] for entry in log] for log in logs)
    assert offline == pytest.approx(online, rel=0.05)
    assert min(data) > 10 * max(online)


def test_baselines_start_elsewhere(road):
    told = {arm: metrics(road, arm)["init"] for arm in ("kd", "blocks", "weights")}
    assert told == {"kd": "pruned", "blocks": "random_units", "weights": "random_weights"}
    keep = {arm: read_provenance(road.model_dir(arm)).keep["num_hidden_layers"] for arm in ("kd", "blocks")}
    assert len(keep["kd"]) == len(keep["blocks"]) == 2
    assert read_provenance(road.model_dir("weights")).edits == [{"edit": "random_weights", "seed": 0}]


def test_operations_count_the_teacher(road):
    tokens = metrics(road, "kd")["tokens"]
    sizes = road.folder.needed("prune").metrics
    size = {name: sizes[name]["flops_per_token"] for name in ("dense", "pruned")}
    assert metrics(road, "sft")["flops"] == {"student": 3 * tokens * size["pruned"], "teacher": 0.0}
    assert metrics(road, "kd")["flops"] == {"student": 3 * tokens * size["pruned"], "teacher": tokens * size["dense"]}
    assert metrics(road, "lora")["flops"]["student"] == 2 * tokens * size["pruned"]
    assert metrics(road, "offline")["flops"]["teacher"] == tokens * size["dense"], "one epoch"


def test_the_plan_tells_arms_apart(road):
    lines = "\n".join(plan(road.recipe))
    for told in (
        "kd on references, 1 epochs, all weights, teacher cached, from random_units",
        "kd on text, 1 epochs, all weights, teacher cached",
        "sft on references, 1 epochs, all weights",
        "kd on references, 1 epochs, LoRA r=2, teacher cached",
    ):
        assert told in lines


class Killed(BaseException):
    pass


def test_a_broken_cached_arm_goes_on_and_ends_the_same(road, tmp_path, monkeypatch):
    recipe = parse(values(tmp_path, {"offline": {}}, tier="hidden"))
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
    assert metrics(run, "offline") == metrics(road, "offline")
    wanted = weights(road, "offline")
    assert all(torch.equal(weight, wanted[name]) for name, weight in weights(run, "offline").items())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"divergence": "kl"}, "recover.kd.args: divergence is 'kl'"),
        ({"temperatur": 1.0}, "recover.kd.args.temperatur is no argument here; did you mean 'temperature'?"),
        ({"teacher_cache": "x"}, "recover.kd.args.teacher_cache is no argument here"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "recover.kd.args: One of min_lr or min_lr_rate should be set"),
        ({"lr_scheduler_kwargs": {"min_lr": 1e-5}}, "recover.kd.args: .*min_lr"),
    ],
)
def test_wrong_arguments_are_told_before_anything_starts(tmp_path, args, message):
    with pytest.raises(InputError, match=message):
        run_recipe(parse(values(tmp_path, {"kd": {"args": args, "teacher_cache": False}})))
    assert not (tmp_path / "run").exists()


def test_a_minimum_learning_rate_is_kept(tmp_path):
    told = values(tmp_path, {"kd": {}})
    args = told["recover"]["kd"]["args"]
    args |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 4e-4}, "logging_steps": 1}
    run = run_recipe(parse(told), STAGES)
    rates = [entry["learning_rate"] for entry in json.loads(run.folder.output("recover", "log", "kd").read_text())]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    assert 4e-4 <= rates[-1] < 4.3e-4
