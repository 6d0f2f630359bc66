"""The real lm-eval on tiny models and a task of our own."""

import json

import pytest

from tests.conftest import tiny_model
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import EvaluationSettings, evaluate_task, find_tasks, shipped_tasks


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
TYPED = (
    CHOICE.replace("tiny_choice", "tiny_typed")
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
GROUP = "group: tiny_group\ntask: [tiny_choice, tiny_typed]\n"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "rows.json"
    choices = ["odd", "even", "big"]
    rows = [json.dumps({"question": f"Number {n} is", "choices": choices, "answer": n % 2}) for n in range(20)]
    data.write_text("\n".join(rows))
    for name, text in {"choice": CHOICE, "typed": TYPED, "generated": GENERATED, "group": GROUP}.items():
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    return str(folder)


def evaluate(tasks, tokenizer, names, unit, **settings):
    return evaluate_task(
        tiny_model("llama"), tokenizer, find_tasks(names, [tasks]), unit, EvaluationSettings(**settings)
    )


def test_choices_have_a_score_per_item_and_their_chance(tasks, tokenizer):
    score, items = evaluate(tasks, tokenizer, ["tiny_choice"], "tiny_choice")
    assert score.metric == "acc_norm"
    assert score.chance == pytest.approx(1 / 3)
    assert len(score.items) == len(items) == 20
    assert set(score.items) <= {0.0, 1.0}


def test_metadata_decides_where_it_speaks(tasks, tokenizer):
    score, _ = evaluate(tasks, tokenizer, ["tiny_typed"], "tiny_typed")
    assert (score.metric, score.chance, score.capability, score.trained) == ("acc", 0.125, "x", True)


def test_generation_keeps_answers_and_has_no_chance(tasks, tokenizer):
    score, items = evaluate(tasks, tokenizer, ["tiny_generated"], "tiny_generated", items=3)
    assert (score.metric, score.chance) == ("exact_match", 0.0)
    assert all(isinstance(item["answer"], str) for item in items)


def test_drawn_items_are_the_same_items_scored_alike(tasks, tokenizer):
    whole, items = evaluate(tasks, tokenizer, ["tiny_choice"], "tiny_choice")
    drawn, some = evaluate(tasks, tokenizer, ["tiny_choice"], "tiny_choice", items=5, seed=1)
    by_id = {item["doc_id"]: score for item, score in zip(items, whole.items, strict=True)}
    assert [by_id[item["doc_id"]] for item in some] == drawn.items
    assert [item["doc_id"] for item in some] != list(range(5))


def test_groups_are_opened_one_level(tasks):
    harness = find_tasks(["tiny_group", "tiny_generated"], [tasks])
    assert harness.units == ["tiny_choice", "tiny_typed", "tiny_generated"]


def test_a_score_is_lm_evals_own(tasks, tokenizer):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    harness = find_tasks(["tiny_choice"], [tasks])
    lm = HFLM(pretrained=tiny_model("llama"), tokenizer=tokenizer, batch_size=4, device="cpu")
    told = lm_eval.simple_evaluate(model=lm, tasks=["tiny_choice"], task_manager=harness.manager, bootstrap_iters=0)
    score, _ = evaluate(tasks, tokenizer, ["tiny_choice"], "tiny_choice")
    assert score.mean == pytest.approx(told["results"]["tiny_choice"]["acc_norm,none"])


def test_shipped_tasks_are_found_without_lm_evals_index():
    assert (shipped_tasks() / "recovery_probes").is_dir()
    assert len(find_tasks(["recovery_probes"], []).units) >= 6


@pytest.mark.slow  # reading lm-eval's own index takes 25 s
def test_unknown_tasks_are_named_with_the_nearest():
    with pytest.raises(InputError, match="'recovery_probs'.*did you mean 'recovery_probes'"):
        find_tasks(["recovery_probs"], [])
