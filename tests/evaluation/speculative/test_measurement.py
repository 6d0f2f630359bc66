"""A draft is judged as a whole, on tiny models: what depends on the models is exact, costs and speeds are there."""

import json
from dataclasses import replace

import pytest

from tests.conftest import tiny_model
from tests.evaluation.speculative.models import draft_of, flatter
from trl_prune.evaluation.speculative import advice
from trl_prune.evaluation.speculative.costs import StepCosts, depth_cost, measure_costs
from trl_prune.evaluation.speculative.drafting import Difference
from trl_prune.evaluation.speculative.generation import MeasuredDrafting
from trl_prune.evaluation.speculative.measurement import (
    ExpectedAcceptance,
    Speculation,
    SpeculativeSettings,
    continue_prompts,
    measure_speculation,
)
from trl_prune.evaluation.speculative.prediction import DepthCost, Rounds, speed_up
from trl_prune.evaluation.speculative.summary import acceptance_summary, one_text, speed_summary
from trl_prune.evaluation.speculative.texts import SpeculativePrompt
from trl_prune.evaluation.timing import Interval, median_interval


ONE = Interval(1.0, 1.0, 1.0)
SETTINGS = SpeculativeSettings((1, 3), (1, 2), max_new_tokens=8, timed_prompts=2)
PROMPTS = [
    SpeculativePrompt([5, 6, 7], [9, 10, 11], "one"),
    SpeculativePrompt([8, 9], None, "one"),
    SpeculativePrompt([40, 41, 42, 43], [7], "other"),
]


@pytest.fixture(scope="module")
def speculation():
    target = flatter(tiny_model("llama"))
    texts = continue_prompts(target, PROMPTS, SETTINGS)
    return measure_speculation(target, draft_of(target), texts, SETTINGS)


def test_every_kind_of_text_is_judged(speculation):
    expected = speculation.expected
    assert {kind: one.texts for kind, one in expected.items()} == {"greedy": 3, "sampled": 3, "reference": 2}
    assert expected["greedy"].alpha == expected["greedy"].agreement
    assert expected["sampled"].alpha == expected["sampled"].overlap < 1
    assert expected["reference"].rounds == {}
    assert expected["greedy"].by_capability.keys() == {"one", "other"}
    assert expected["greedy"].rounds[3].calls == round(expected["greedy"].rounds[3].calls)


def test_greedy_text_is_the_targets_own_on_every_prompt(speculation):
    assert (speculation.compared, speculation.differences) == (3, [])


def test_decoding_is_counted_and_timed_for_each_length(speculation):
    assert speculation.measured.keys() == {"greedy", "sampled"}
    for drafting in speculation.measured.values():
        assert drafting.rounds.keys() == drafting.speed_up.keys() == {1, 3}
        assert all(rounds.tokens == 16 for rounds in drafting.rounds.values())
        assert all(speed.value > 0 for speed in drafting.speed_up.values())


def test_predictions_follow_from_acceptance_and_costs(speculation):
    costs = speculation.costs[1]
    assert costs.batch_size == 2
    prediction = speculation.prediction("greedy", costs)
    rounds = speculation.expected["greedy"].rounds[3]
    ratio, verification = costs.cost_ratio.value, costs.verification[3].value
    assert prediction.expected[3] == speed_up(rounds.tokens_per_call, 3, ratio, verification)
    assert prediction.bound[3] == pytest.approx(4 / (3 * ratio + verification))
    assert prediction.best in (1, 3)


def test_summaries_are_json(speculation):
    accepted, speeds = acceptance_summary(speculation), speed_summary(speculation)
    assert json.loads(json.dumps(accepted)) == accepted
    assert json.loads(json.dumps(speeds)) == speeds
    assert accepted["expected"]["greedy"]["by_length"].keys() == accepted["measured"]["greedy"].keys() == {"1", "3"}
    assert [one["batch_size"] for one in speeds["predicted"]["sampled"]] == [1, 2]
    assert speeds["best_measured"]["greedy"] in (1, 3)


def test_a_padded_embedding_is_judged_without_decoding():
    target, draft = flatter(tiny_model("llama")), tiny_model("llama", vocab_size=264)
    settings = SpeculativeSettings((2,), (1,), max_new_tokens=4, sampled=False)
    found = measure_speculation(target, draft, continue_prompts(target, PROMPTS, settings), settings)
    assert (found.measured, found.compared) == ({}, 0)
    assert found.expected["greedy"].tokens == 12
    assert "padded to different sizes" in speed_summary(found)["warnings"][1]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_costs_leave_the_cache_as_it_was(family):
    model = tiny_model(family)
    costs = measure_costs(model, draft_of(model, 1), (2,), batch_size=2, context=12)
    assert costs.cost_ratio.value > 0
    assert costs.verification.keys() == {2}
    depth = depth_cost(model)
    assert depth.blocks == 4
    assert 0 < depth.ratio(1) < depth.ratio(3) < 1


def made_up(speed, cost_ratio=0.75, alpha=0.9, differences=(), parameters=(100, 80), verification=ONE):
    rounds = {g: Rounds(100, 100 / (1 + alpha * g), (1,), (1,)) for g in (1, 2, 4)}
    expected = ExpectedAcceptance(4, 100, alpha, alpha, alpha, {}, [], rounds)
    ratio = Interval(cost_ratio, cost_ratio, cost_ratio)
    costs = StepCosts(1, 10, ratio, dict.fromkeys((1, 2, 4), verification), 0.1)
    measured = MeasuredDrafting(rounds, dict.fromkeys((1, 2, 4), speed), [])
    depth = DepthCost(30, 106, 28)
    return Speculation(
        {"greedy": expected}, {"greedy": measured}, [costs], 4, list(differences), depth, parameters, "float32"
    )


def test_a_draft_that_does_not_pay_is_said_to_and_which_depth_would():
    loss, sentence = advice.warnings(made_up(Interval(0.9, 0.8, 0.99)))
    assert loss == "No draft length pays for greedy decoding: the best, 1, was measured at 0.90x [0.80, 0.99]."
    assert "costs 0.75 of the target's" in sentence
    assert "at most 1.25x with these draft lengths, and less than 1.33x with any" in sentence
    assert "at the measured acceptance of 0.90 up to " in sentence
    assert "at an assumed 0.8 up to " in sentence
    costly = Interval(9.0, 9.0, 9.0)
    assert "at the measured acceptance of 0.10 none, at an assumed 0.8 none; and if judging several tokens cost" in (
        advice.depth_advice(made_up(None, alpha=0.1, verification=costly))
    )


def test_a_draft_that_pays_has_no_warning():
    assert advice.warnings(made_up(Interval(1.3, 1.2, 1.4))) == []


@pytest.mark.parametrize("gap", [0.4, None])
def test_a_text_that_differs_by_no_tie_is_said_to_be_changed(gap):
    differences = [Difference(2, 4, 7, gap), Difference(1, 4, 7, -1e-5)]
    found = made_up(Interval(1.3, 1.2, 1.4), differences=differences)
    tie, changed = advice.warnings(found)
    assert "on 1 of 4 prompts, by at most 1e-05 between the logits of the two tokens: tokens verified" in tie
    assert changed.endswith(": this is no tie (up to 0.001 in float32), the draft changed the text.")
    in_half = advice.warnings(replace(found, dtype="bfloat16"))
    assert any("draft changed the text" in sentence for sentence in in_half) == (gap is None)


def test_greedy_and_sampled_decoding_are_judged_apart_and_at_the_best_length_alone():
    found, gain = made_up(Interval(1.3, 1.2, 1.4)), Interval(1.3, 0.9, 1.5)
    slower = {1: Interval(1.1, 1.05, 1.2), 2: gain, 4: Interval(0.9, 0.8, 1.0)}
    sampled = replace(found.measured["greedy"], speed_up=slower)
    expected = found.expected | {"sampled": found.expected["greedy"]}
    found = replace(found, expected=expected, measured=found.measured | {"sampled": sampled})
    assert (advice.pays(found, "greedy"), advice.pays(found, "sampled")) == (True, False)
    assert advice.warnings(found)[0] == (
        "No draft length pays for sampled decoding: the best, 2, was measured at 1.30x [0.90, 1.50]."
    )


def test_a_gain_without_an_interval_is_unknown():
    found = made_up(median_interval([1.4, 1.6]))
    assert advice.pays(found, "greedy") is None
    (sentence,) = advice.warnings(found)
    assert sentence.startswith("Whether greedy decoding gains is unknown: the best draft length, 1, was measured at ")


def test_a_draft_slower_than_the_target_has_no_bound_by_its_cost():
    sentence = advice.warnings(made_up(Interval(0.5, 0.4, 0.6), cost_ratio=1.5))[-1]
    assert "with these draft lengths. Depths" in sentence


def test_one_text_at_a_time_is_judged_whatever_the_batch_sizes():
    target = flatter(tiny_model("llama"))
    settings = SpeculativeSettings((2,), (3, 2), max_new_tokens=4, timed_prompts=1, sampled=False)
    found = measure_speculation(target, draft_of(target), continue_prompts(target, PROMPTS, settings), settings)
    assert [costs.batch_size for costs in found.costs] == [1, 2, 3]
    assert found.one_text is found.costs[0]
    assert one_text(speed_summary(found)["costs"])["batch_size"] == 1


def test_a_large_draft_and_texts_that_differ_are_warned_of():
    found = advice.warnings(
        made_up(Interval(1.3, 1.2, 1.4), differences=[Difference(2, 4, 7, 1e-5)], parameters=(100, 100))
    )
    assert found[0] == "The draft has 100 parameters and the target 100: a draft that is not smaller cannot pay."
    assert "differs from the target's own on 1 of 4 prompts, by at most 1e-05" in found[1]
