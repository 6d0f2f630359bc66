import pytest
import torch

from tests.conftest import SIZES, VOCABULARY, tiny_config, tiny_model
from tests.families import family_params
from trl_prune.evaluation.efficiency import FLOP_TOKENS, count_work, measure_size
from trl_prune.pruning.deriving.tiny import tiny_config as tiny_config_of
from trl_prune.pruning.surgery.cut import LAYERS, meta_model


def test_the_size_of_a_llama_equals_the_count_by_hand():
    model = tiny_model("llama")
    hidden, inner, layers, heads, groups = 32, SIZES["intermediate_size"], 4, 4, 2
    head = hidden // heads
    projections = 2 * hidden * hidden + 2 * hidden * groups * head + 3 * hidden * inner
    parameters = 2 * VOCABULARY * hidden + layers * (projections + 2 * hidden) + hidden
    attention = 2 * 2 * FLOP_TOKENS * hidden  # scores and weighted sums over all positions, per token
    rotary = (head // 2) * 2  # the angles are a matrix product too
    size = measure_size(meta_model(model.config))
    assert size.parameters == parameters == sum(weight.numel() for weight in model.parameters())
    flops = layers * (2 * projections + attention) + 2 * VOCABULARY * hidden
    assert size.flops_per_token == pytest.approx(flops + rotary, abs=rotary)


def test_a_token_costs_the_experts_it_is_routed_to():
    config, routed = tiny_model("mixtral").config, {}
    for count in (1, 2):
        config.num_experts_per_tok = count
        routed[count] = measure_size(meta_model(config))
    expert = 2 * 3 * config.hidden_size * config.intermediate_size * config.num_hidden_layers
    assert routed[2].flops_per_token - routed[1].flops_per_token == expert
    assert routed[2].parameters == routed[1].parameters


def test_removed_blocks_save_their_parameters_and_operations():
    config = tiny_model("llama").config
    dense, half = measure_size(meta_model(config)), measure_size(meta_model(config, {LAYERS: [0, 3]}))
    quarter = measure_size(meta_model(config, {LAYERS: [0]}))
    assert dense.parameters - half.parameters == 2 * (half.parameters - quarter.parameters)
    assert dense.flops_per_token - half.flops_per_token == 2 * (half.flops_per_token - quarter.flops_per_token)


@pytest.mark.parametrize("family", family_params())
def test_every_family_is_counted_on_the_meta_device(family):
    model = tiny_model(family)
    assert measure_size(meta_model(model.config)).parameters == sum(weight.numel() for weight in model.parameters())


def test_the_work_of_a_llama_equals_the_count_by_hand():
    hidden, inner, layers, groups, head = 32, SIZES["intermediate_size"], 4, 2, 8
    work = count_work(meta_model(tiny_model("llama").config))
    projections = 2 * hidden * hidden + 2 * hidden * groups * head + 3 * hidden * inner
    norms = (2 * layers + 1) * hidden
    assert work.decode_weights == hidden + layers * projections + norms + VOCABULARY * hidden  # one row of the table
    assert work.cache_values == layers * 2 * groups * head
    attention = 2 * 2 * FLOP_TOKENS * hidden
    flops = layers * (2 * projections + attention) + 2 * VOCABULARY * hidden / FLOP_TOKENS
    assert work.prefill_flops == pytest.approx(flops, abs=head)
    assert work.decode_reads(100) == work.decode_weights + 100 * work.cache_values


def test_a_tied_table_is_read_once_as_the_head():
    tied, untied = (
        count_work(meta_model(tiny_model("llama", tie_word_embeddings=is_tied).config)) for is_tied in (True, False)
    )
    assert untied.decode_weights - tied.decode_weights == 32  # a row of the other table


def test_a_token_reads_the_experts_it_is_routed_to():
    config, read = tiny_model("mixtral").config, {}
    for count in (1, 2):
        config.num_experts_per_tok = count
        read[count] = count_work(meta_model(config)).decode_weights
    assert read[2] - read[1] == 3 * config.hidden_size * config.intermediate_size * config.num_hidden_layers


@pytest.mark.parametrize("family", family_params())
def test_the_cache_of_every_family_is_what_a_real_text_leaves(family):
    model = tiny_model(family)
    length = min(FLOP_TOKENS, getattr(model.config, "max_position_embeddings", FLOP_TOKENS))
    work = count_work(meta_model(model.config))
    tokens = torch.arange(length)[None] % VOCABULARY
    with torch.no_grad():
        cache = model(tokens, use_cache=True, logits_to_keep=1).past_key_values
    values = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert work.cache_values * length == pytest.approx(values)
    assert 0 < work.decode_weights <= sum(weight.numel() for weight in model.parameters())
    assert work.prefill_flops < measure_size(meta_model(model.config)).flops_per_token


@pytest.mark.parametrize("model_type", ["bamba", "lfm2", "qwen3_next"])
def test_hybrids_whose_masks_read_values_are_counted(model_type):
    model = meta_model(tiny_config_of(model_type))
    assert measure_size(model).flops_per_token > model.config.num_hidden_layers * model.config.hidden_size**2
    assert count_work(model).cache_values > 0


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_mixtures_of_any_dtype_and_width_are_counted(dtype):
    """Grouped products of experts exist for bfloat16 and widths that are multiples of 8 alone."""
    model = meta_model(tiny_config("qwen3_moe", hidden_size=36, dtype=dtype))
    assert measure_size(model).parameters == sum(weight.numel() for weight in model.parameters())
