import json

import pytest
from transformers import HfArgumentParser

from trl_prune import KDConfig


CPU = {"use_cpu": True, "bf16": False}
CPU_FLAGS = ["--use_cpu", "true", "--bf16", "false"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"divergence": "kl"}, "divergence is 'kl'; allowed: forward_kl"),
        ({"divergence": "jsd", "jsd_beta": 0.0}, "jsd_beta is 0.0"),
        ({"divergence": "mse", "top_k": 5}, "compares the full vocabulary"),
        ({"temperature": 0}, "`temperature` is 0; wanted: more than 0"),
        ({"kd_weight": -1.0}, "`kd_weight` is -1.0; wanted: 0 or more"),
        ({"kd_weight": 0.0}, "both 0: there is nothing to learn"),
        ({"top_k": 0}, "`top_k` is 0; wanted: 1 or more"),
        ({"hidden_loss": ["blocks"]}, "`hidden_loss` is .*; allowed: auto, none, embedding, block"),
        ({"hidden_loss": []}, "`hidden_loss` is"),
        ({"hidden_distance": "l1"}, "`hidden_distance` is 'l1'; allowed: cosine, mse"),
        ({"hidden_weight": -0.5}, "`hidden_weight` is -0.5; wanted: 0 or more"),
        ({"layer_map": "all"}, "`layer_map` is 'all'; allowed: auto, origins"),
    ],
)
def test_invalid_values_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        KDConfig(str(tmp_path), **CPU, **arguments)


def test_the_defaults_are_the_papers(tmp_path):
    objective = KDConfig(str(tmp_path), **CPU).objective
    assert (objective.divergence, objective.temperature, objective.ce_weight) == ("forward_kl", 1.0, 0.0)


@pytest.mark.parametrize("hidden_loss", ["none", "auto", ["none"]])
def test_the_command_line_turns_states_off(hidden_loss, tmp_path):
    args = KDConfig(str(tmp_path), **CPU, hidden_loss=hidden_loss)
    assert args.hidden_loss == (hidden_loss if isinstance(hidden_loss, str) else hidden_loss[0])
    flags = ["--output_dir", str(tmp_path), *CPU_FLAGS, "--hidden_loss", args.hidden_loss]
    (parsed,) = HfArgumentParser(KDConfig).parse_args_into_dataclasses(flags)
    assert parsed.hidden_loss == args.hidden_loss


@pytest.mark.parametrize(
    ("metric", "greater"), [("kl", False), ("eval_kl", False), ("eval_first_kl", False), ("eval_top1_agreement", True)]
)
def test_a_lower_divergence_is_better(metric, greater, tmp_path):
    arguments = CPU | {"metric_for_best_model": metric}
    assert KDConfig(str(tmp_path), **arguments).greater_is_better is greater
    assert KDConfig(str(tmp_path), **arguments, greater_is_better=True).greater_is_better is True


def test_the_command_line_gives_lists_and_mappings(tmp_path):
    flags = ["--output_dir", str(tmp_path), *CPU_FLAGS, "--hidden_weight", "0.5"]
    flags += ["--hidden_loss", "block", "mlp", "--layer_map", json.dumps({"1": 2})]
    (args,) = HfArgumentParser(KDConfig).parse_args_into_dataclasses(flags)
    assert args.hidden_loss == ["block", "mlp"]
    assert args.layer_map == {"1": 2}
    assert args.hidden_weight == 0.5
