"""Published mixtures on the meta device: parameters as their papers and cards say, before and after a cut."""

import pytest

from tests.published import published_config
from trl_prune.pruning.families import EXPERTS, LAYERS
from trl_prune.pruning.sizes.budget import Costs
from trl_prune.pruning.surgery.cut import meta_model


def qwen3_235b(layers=94, experts=128):
    attention = 2 * 4096 * 8192 + 2 * 4096 * 512 + 2 * 128
    block = attention + 2 * 4096 + experts * 4096 + experts * 3 * 4096 * 1536
    return layers * block + 2 * 151936 * 4096 + 4096


def deepseek_v3(layers=61, experts=256):
    queries = 7168 * 1536 + 1536 + 1536 * 128 * 192
    attention = queries + 7168 * 576 + 512 + 512 * 128 * 256 + 128 * 128 * 7168
    block = attention + 2 * 7168
    mixture = experts * 7168 + (experts + 1) * 3 * 7168 * 2048
    return layers * block + 3 * 3 * 7168 * 18432 + (layers - 3) * mixture + 2 * 129280 * 7168 + 7168


def gpt_oss_120b(layers=36, experts=128):
    attention = 2880 * 4096 + 4096 + 2 * (2880 * 512 + 512) + 4096 * 2880 + 2880 + 64
    expert = 2880 * 2 * 2880 + 2 * 2880 + 2880 * 2880 + 2880
    block = attention + 2 * 2880 + experts * (2880 + 1) + experts * expert
    return layers * block + 2 * 201088 * 2880 + 2880


@pytest.mark.parametrize(
    ("name", "formula", "billions"),
    [
        ("Qwen3-235B-A22B", qwen3_235b, 235.09),
        ("DeepSeek-V3", deepseek_v3, 671.03),
        ("gpt-oss-120b", gpt_oss_120b, 116.83),
    ],
)
def test_parameters_are_the_published_ones_and_those_of_the_cut_are_exact(name, formula, billions):
    config = published_config(name)
    assert round(formula() / 1e9, 2) == billions
    assert sum(weight.numel() for weight in meta_model(config).parameters()) == formula()
    costs = Costs.of(config)
    layers, experts = costs.sizes[LAYERS], costs.sizes[EXPERTS]
    assert costs.num_parameters(costs.sizes, range(layers)) == formula()
    assert costs.disk_bytes(costs.sizes, range(layers)) == 2 * formula()
    half = costs.num_parameters(costs.sizes | {EXPERTS: experts // 2}, range(layers))
    assert half == formula(experts=experts // 2)
    assert costs.num_parameters(costs.sizes, range(layers - 4)) == formula(layers=layers - 4)
