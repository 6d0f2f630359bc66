"""lm-eval on tiny models and three small tasks."""

import json

import pytest
import torch

from tests.conftest import tiny_model, tiny_tokenizer
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import (
    EvaluationSettings,
    evaluate_task,
    load_tasks,
    shipped_tasks_dir,
    tasks_by_likelihood,
    think_end_token,
)


CHOICE = """\
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WITH_METADATA = (
    CHOICE.replace("tiny_choice", "tiny_with_metadata")
    + "metadata: {{metric: acc, chance: 0.125, capability: x, trained: true}}\n"
)
GENERATED = """\
task: tiny_generated
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{question}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
metric_list: [{{metric: exact_match}}]
"""
GROUP = "group: tiny_group\ntask: [tiny_choice, tiny_with_metadata]\n"


@pytest.fixture(scope="module")
def tasks_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "rows.json"
    choices = ["odd", "even", "big"]
    rows = [json.dumps({"question": f"Number {n} is", "choices": choices, "answer": n % 2}) for n in range(20)]
    data.write_text("\n".join(rows))
    files = {"choice": CHOICE, "with_metadata": WITH_METADATA, "generated": GENERATED, "group": GROUP}
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    return str(folder)


def evaluate(tasks_dir, tokenizer, task, **settings):
    tasks = load_tasks([task], [tasks_dir])
    return evaluate_task(tiny_model("llama"), tokenizer, tasks, task, EvaluationSettings(**settings))


def test_multiple_choice_has_a_score_per_item_and_the_chance_of_its_choices(tasks_dir, tokenizer):
    score, items = evaluate(tasks_dir, tokenizer, "tiny_choice")
    assert score.metric == "acc_norm"
    assert score.chance == pytest.approx(1 / 3)
    assert len(score.items) == len(items) == 20
    assert set(score.items) <= {0.0, 1.0}


def test_metadata_overrides_the_metric_and_the_chance(tasks_dir, tokenizer):
    score, _ = evaluate(tasks_dir, tokenizer, "tiny_with_metadata")
    assert (score.metric, score.chance, score.capability, score.trained) == ("acc", 0.125, "x", True)


def test_generation_keeps_answers_and_has_no_chance(tasks_dir, tokenizer):
    score, items = evaluate(tasks_dir, tokenizer, "tiny_generated", limit=3)
    assert (score.metric, score.chance) == ("exact_match", 0.0)
    assert all(isinstance(item["answer"], str) for item in items)


def test_a_limit_draws_items_at_random_and_scores_them_as_without_it(tasks_dir, tokenizer):
    full, items = evaluate(tasks_dir, tokenizer, "tiny_choice")
    limited, drawn_items = evaluate(tasks_dir, tokenizer, "tiny_choice", limit=5, seed=1)
    scores = {item["doc_id"]: score for item, score in zip(items, full.items, strict=True)}
    drawn = [item["doc_id"] for item in drawn_items]
    assert [scores[doc_id] for doc_id in drawn] == limited.items
    assert drawn != list(range(5))


def test_a_group_is_replaced_by_its_members(tasks_dir):
    tasks = load_tasks(["tiny_group", "tiny_generated"], [tasks_dir])
    assert tasks.names == ["tiny_choice", "tiny_with_metadata", "tiny_generated"]


def test_the_score_is_the_one_that_lm_eval_reports(tasks_dir, tokenizer):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    tasks = load_tasks(["tiny_choice"], [tasks_dir])
    lm = HFLM(pretrained=tiny_model("llama"), tokenizer=tokenizer, batch_size=4, device="cpu")
    results = lm_eval.simple_evaluate(
        model=lm, tasks=["tiny_choice"], task_manager=tasks.task_manager, bootstrap_iters=0
    )
    score, _ = evaluate(tasks_dir, tokenizer, "tiny_choice")
    assert score.mean == pytest.approx(results["results"]["tiny_choice"]["acc_norm,none"])


def test_shipped_tasks_are_loaded_without_lm_evals_index():
    assert (shipped_tasks_dir() / "recovery_probes").is_dir()
    assert len(load_tasks(["recovery_probes"], []).names) >= 6


@pytest.mark.slow  # reading lm-eval's own index takes 25 s
def test_unknown_tasks_are_named_with_the_closest_match():
    with pytest.raises(InputError, match="'recovery_probs'.*did you mean 'recovery_probes'"):
        load_tasks(["recovery_probs"], [])


def test_variables_of_the_chat_template_reach_the_prompts(tasks_dir):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += "{{ mood }}"
    settings = {"limit": 2, "apply_chat_template": True}
    prompts = {}
    for mood in ("calm", "wild"):
        _, items = evaluate(tasks_dir, tokenizer, "tiny_generated", chat_template_kwargs={"mood": mood}, **settings)
        prompts[mood] = [item["question"] for item in items]
    assert all(prompt.endswith("assistant\ncalm") for prompt in prompts["calm"])
    assert [prompt.replace("calm", "wild") for prompt in prompts["calm"]] == prompts["wild"]


@pytest.mark.parametrize("has_id", [True, False])
def test_thoughts_are_cut_from_generated_answers(tasks_dir, monkeypatch, has_id):
    from lm_eval.models.huggingface import HFLM

    tokenizer = tiny_tokenizer()
    if has_id:
        tokenizer.add_special_tokens({"extra_special_tokens": ["</think>"]})
    written = tokenizer("a thought</think>\n\nyes\nno")["input_ids"]

    def generate(self, context, **_):
        return torch.cat([context, torch.tensor([written] * len(context))], 1)

    monkeypatch.setattr(HFLM, "_model_generate", generate)
    assert think_end_token(tokenizer) is None, "the template does not know the tag"
    tokenizer.chat_template += "{# </think> #}"
    end = think_end_token(tokenizer)
    assert end == (tokenizer.convert_tokens_to_ids("</think>") if has_id else "</think>")
    for token, answer in ((end, "yes"), (None, "a thought" if has_id else "a thought</think>")):
        _, items = evaluate(tasks_dir, tokenizer, "tiny_generated", limit=2, think_end_token=token)
        assert [item["answer"] for item in items] == [answer] * 2


def test_tasks_that_generate_are_told_from_those_that_score_given_answers(tasks_dir):
    tasks = load_tasks(["tiny_group", "tiny_generated"], [tasks_dir])
    assert tasks_by_likelihood(tasks) == ["tiny_choice", "tiny_with_metadata"]
