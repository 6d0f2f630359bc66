"""How recipes evaluate: what reaches lm-eval, and what a stage's hash contains."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROWS
from tests.recipes import recipe_values
from trl_prune.errors import InputError
from trl_prune.evaluation.recovery import TaskScore
from trl_prune.recipe import parse_recipe
from trl_prune.runs import evaluation
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import (
    check_code,
    check_held_out,
    check_thinking,
    evaluation_settings,
    evaluation_values,
    mean_score,
)
from trl_prune.stages import evaluate, recover


def run_with(folder, thinks=False, **changes):
    values = recipe_values(folder)
    values["evaluate"] |= changes.pop("evaluate", {})
    run = Run(parse_recipe(values | changes, "test"))
    if thinks:
        run.tokenizer.chat_template += "{# </think> #}"
    return run


def test_settings_of_the_template_apply_where_it_does(tmp_path):
    kwargs = {"enable_thinking": False}
    settings = evaluation_settings(run_with(tmp_path, thinks=True, chat_template_kwargs=kwargs))
    assert (settings.chat_template_kwargs, settings.think_end_token) == (kwargs, "</think>")
    without = run_with(tmp_path, thinks=True, chat_template_kwargs=kwargs, evaluate={"apply_chat_template": False})
    settings = evaluation_settings(without)
    assert (settings.chat_template_kwargs, settings.think_end_token) == ({}, None)


def test_hashes_of_recipes_without_the_key_are_those_of_older_versions(tmp_path):
    run = run_with(tmp_path)
    assert list(evaluation_values(run)) == ["batch_size", "apply_chat_template", "limit", "seed"]
    assert list(evaluate.settings(run, "dense")) == ["evaluate", "apply_chat_template", "seed", "dtype"]
    assert list(recover.settings(run, "sft")) == ["arm", "seed", "dtype"]


def test_the_key_changes_the_stages_that_render_conversations(tmp_path):
    plain, changed = run_with(tmp_path), run_with(tmp_path, chat_template_kwargs={"enable_thinking": False})
    for stage, part in ((recover, "sft"), (evaluate, "dense")):
        assert stage.settings(changed, part) == stage.settings(plain, part) | changed.recipe.template_settings
    thinks = run_with(tmp_path, thinks=True)
    assert evaluate.settings(thinks, "dense")["think_end_token"] == "</think>"


@pytest.mark.parametrize(
    ("kwargs", "applied", "refused"),
    [
        ({"enable_thinking": True}, True, True),
        ({"enable_thinking": True}, False, False),
        ({"enable_thinking": False}, True, False),
        ({}, True, False),
    ],
)
def test_answers_without_thoughts_are_not_scored_for_a_model_that_thinks_first(tmp_path, kwargs, applied, refused):
    run = run_with(tmp_path, chat_template_kwargs=kwargs, evaluate={"apply_chat_template": applied})
    if not refused:
        check_thinking(run)
        return
    with pytest.raises(InputError, match="enable_thinking is true, and the task 'tiny_choice' scores given answers"):
        check_thinking(run)


def held_out_run(folder, path, section=None, rows=None):
    if rows is not None:
        (folder / "held_out.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return run_with(folder, evaluate={"held_out": {"path": str(path)} | (section or {})})


@pytest.mark.parametrize("changes", [{}, {"rows": 2}, {"split": "test"}])
def test_texts_that_arms_train_on_are_refused_however_the_file_is_named(tmp_path, monkeypatch, changes):
    path = Path(recipe_values(tmp_path)["dataset"]["path"])
    monkeypatch.chdir(path.parent)
    for spelling in (path, f"../{path.parent.name}/{path.name}"):
        with pytest.raises(InputError, match=r"evaluate.held_out is .*, which arms train on; name texts that"):
            check_held_out(held_out_run(tmp_path, spelling, changes))


NEW = {"role": "user", "content": "A question that no training row asks?"}
ROW = ROWS[0]


@pytest.mark.parametrize(
    "row",
    [ROW, {"messages": [*ROW["prompt"], *ROW["completion"]]}, ROW | {"id": 3, "chat_template_kwargs": {"x": 1}}],
)
def test_a_held_out_row_that_is_a_training_row_is_refused_in_any_format(tmp_path, row):
    fresh = {"messages": [NEW, *ROW["completion"]]}
    same_answer = [fresh] if "messages" in row else [{"prompt": [NEW], "completion": ROW["completion"]}]
    check_held_out(held_out_run(tmp_path, tmp_path / "held_out.jsonl", rows=same_answer))
    with pytest.raises(InputError) as error:
        check_held_out(held_out_run(tmp_path, tmp_path / "held_out.jsonl", rows=[*same_answer, row]))
    assert "held_out.jsonl', and 1 of its 2 texts are rows of " in str(error.value)
    assert str(error.value).endswith("; name texts that they do not")


def test_a_mean_of_scores_of_which_one_is_better_lower_is_refused(tmp_path, monkeypatch):
    scores = {
        "right": TaskScore("right", "acc", [1.0, 0.0]),
        "text": TaskScore("text", "word_perplexity", [0.0, 0.0], higher_is_better=False),
    }
    monkeypatch.setattr(evaluation, "evaluate_tasks", lambda *_: scores)
    with pytest.raises(InputError, match=r"better on 'right' \(acc\) and worse on 'text' \(word_perplexity\); name"):
        mean_score(run_with(tmp_path), None, None)
    del scores["right"]
    assert mean_score(run_with(tmp_path), None, None) == -1.0


def test_a_wrong_task_is_named_with_its_key_once(tmp_path):
    with pytest.raises(InputError) as error:
        check_code(run_with(tmp_path, evaluate={"tasks": ["tiny_choice", "absent"], "include_path": ["/nowhere"]}))
    assert str(error.value) == "evaluate.tasks: include_path names '/nowhere', which is not a folder"


def test_a_chat_template_that_is_not_there_is_found_before_anything_starts(tmp_path):
    run = run_with(tmp_path, evaluate={"apply_chat_template": True})
    run.tokenizer.chat_template = None
    with pytest.raises(InputError, match="evaluate.apply_chat_template is true, and the tokenizer of .* has no chat"):
        evaluate.check(run)


def test_models_without_padding_and_end_are_refused_before_anything_starts(tmp_path):
    run = run_with(tmp_path)
    run.tokenizer.pad_token = run.tokenizer.eos_token = None
    for stage in (evaluate, recover):
        with pytest.raises(InputError, match="needs a padding or an end-of-sequence token"):
            stage.check(run)
