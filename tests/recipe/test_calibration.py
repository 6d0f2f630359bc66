"""What a recipe may say of calibration texts and of the search for blocks."""

import pytest

from trl_prune.errors import InputError
from trl_prune.recipe import Recipe, parse_recipe


def values(**sections):
    return {"model": "m", "dataset": {"path": "p"}, "output": "o", "prune": {"target": {"layers": 2}}} | sections


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"score": {"dataset": "generate"}}, "score.dataset is 'generate'; wanted: 'generated', or a section with a"),
        ({"score": {"dataset": {"pth": "x"}}}, "unknown key 'score.dataset.pth'; did you mean 'score.dataset.path'?"),
        ({"score": {"max_new_tokens": 8}}, "score has `max_new_tokens`, which is for `dataset: generated`"),
        (
            {"score": {"dataset": "generated", "max_length": 128}},
            "score has answers of up to 128 tokens (`max_new_tokens`), which leaves no room for a prompt",
        ),
        (
            {"prune": {"target": {"layers": 2}, "strategy": "beam"}},
            "prune has `strategy: beam`, which is for blocks chosen by a measured effect (perplexity, kl, agre",
        ),
        (
            {"prune": {"target": {"layers": 2}, "by": "kl", "beam_width": 2}},
            "prune has `beam_width`, which is for `strategy: beam`, and `greedy`",
        ),
        (
            {"prune": {"target": {"layers": 2}, "by": "kl", "strategy": "swap", "generations": 2}},
            "prune has `generations`, which is for `strategy: evolutionary`, and `swap`",
        ),
        (
            {"prune": {"target": {"layers": 2}, "by": "task:arc_easy", "texts": 8}},
            "prune has `texts`, which is for effects on texts (perplexity, kl, agreement), and `by: task:arc_easy`",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(sections, message):
    with pytest.raises(InputError) as error:
        parse_recipe(values(**sections), "test")
    assert message in str(error.value)


def test_a_recipe_of_own_answers_survives_json_and_leaves_out_what_is_not_set():
    recipe = parse_recipe(values(score={"dataset": "generated"}), "test")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe.score.answer_tokens == 128
    assert recipe.score.read_dataset is None
    assert [section.path for section in recipe.datasets] == ["p"]
    assert "max_new_tokens" not in recipe.score.determining
    assert not {"beam_width", "generations", "texts"} & recipe.prune.model_dump().keys()
