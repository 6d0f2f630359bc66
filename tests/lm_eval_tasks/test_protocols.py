"""The groups of the papers' protocols: their tasks are lm-eval's, and shots, metrics and filters really apply."""

import re
from importlib.metadata import version
from importlib.resources import files

import pytest
import yaml
from datasets import Dataset, DatasetDict
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml


ROOT = files("lm_eval_tasks")
GROUPS = {
    name: yaml.safe_load((ROOT / name / f"{name}.yaml").read_text())
    for name in ("openllm_v1", "paser_zero_shot", "minitron")
}
# What each paper states: shots and metric of each task.
PROTOCOLS = {
    "openllm_v1": {
        "arc_challenge": (25, "acc_norm"),
        "hellaswag": (10, "acc_norm"),
        "truthfulqa_mc2": (0, "acc"),
        "mmlu": (5, "acc"),
        "winogrande": (5, "acc"),
        "gsm8k": (5, "exact_match"),
    },
    "paser_zero_shot": {
        "boolq": (0, "acc"),
        "piqa": (0, "acc_norm"),
        "hellaswag": (0, "acc_norm"),
        "winogrande": (0, "acc"),
        "arc_easy": (0, "acc_norm"),
        "arc_challenge": (0, "acc_norm"),
        "openbookqa": (0, "acc_norm"),
        "wikitext": (0, "word_perplexity"),
    },
    "minitron": {
        "mmlu": (5, "acc"),
        "winogrande": (5, "acc"),
        "arc_challenge": (25, "acc_norm"),
        "hellaswag": (10, "acc_norm"),
        "truthfulqa_mc2": (0, "acc"),
        "gsm8k": (5, "exact_match"),
        "minitron_humaneval": (0, "pass@1"),
        "mbpp": (0, "pass_at_1"),
    },
}
LETTERS = {"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]}
TRUTHS = {"choices": ["a", "b"], "labels": [1, 0]}
# A row of each dataset; its mark tells it from the others.
ROWS = {
    "allenai/ai2_arc": lambda mark: {"question": mark, "choices": LETTERS, "answerKey": "A"},
    "allenai/openbookqa": lambda mark: {"question_stem": mark, "choices": LETTERS, "answerKey": "A"},
    "allenai/winogrande": lambda mark: {"sentence": f"{mark} _ it", "option1": "a", "option2": "b", "answer": "1"},
    "aps/super_glue": lambda mark: {"passage": mark, "question": "is it", "label": 0},
    "baber/piqa": lambda mark: {"goal": mark, "sol1": "a", "sol2": "b", "label": 0},
    "cais/mmlu": lambda mark: {"question": mark, "choices": ["a", "b", "c", "d"], "answer": 0},
    "EleutherAI/wikitext_document_level": lambda mark: {"page": mark},
    "google-research-datasets/mbpp": lambda mark: {"text": mark, "code": "c", "test_list": ["a", "b", "c"]},
    "openai/gsm8k": lambda mark: {"question": mark, "answer": "#### 1"},
    "openai/openai_humaneval": lambda mark: dict.fromkeys(
        ("task_id", "prompt", "canonical_solution", "test", "entry_point"), mark
    ),
    "Rowan/hellaswag": lambda mark: {
        "ctx_a": mark,
        "ctx_b": "b",
        "activity_label": "x",
        "endings": ["a", "b", "c", "d"],
        "label": "0",
    },
    "truthfulqa/truthful_qa": lambda mark: {"question": mark, "mc1_targets": TRUTHS, "mc2_targets": TRUTHS},
}


class CodeEval:
    """Stands for the hub's `code_eval`, which lm-eval's MBPP loads on import."""

    @staticmethod
    def compute(**_):
        return [{"pass@1": 1.0}]


def fake_dataset(path, **_):
    return DatasetDict(
        {
            split: Dataset.from_list([ROWS[path](f"{split}{number}.") for number in range(30)])
            for split in ("train", "validation", "test", "dev")
        }
    )


@pytest.fixture(scope="module")
def lm_eval_tasks_by_group():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.load_dataset", fake_dataset)
        patch.setattr("evaluate.load", lambda _: CodeEval())
        manager = TaskManager(include_path=str(ROOT))
        yield {group: manager.load([group]) for group in GROUPS}, set(manager.all_tasks)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_states_the_papers_tasks_shots_and_metrics(group):
    stated = {}
    for member in GROUPS[group]["task"]:
        config = load_yaml(ROOT / group / f"{member}.yaml") if isinstance(member, str) else member
        name = config.get("task") or config["group"]
        stated[name] = (config["num_fewshot"], config["metadata"]["metric"])
    assert stated == PROTOCOLS[group]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_shots_are_in_the_prompts_and_the_metric_is_one_of_the_task(lm_eval_tasks_by_group, group):
    loaded, _ = lm_eval_tasks_by_group
    tasks = loaded[group]["tasks"]
    assert {name.replace("mmlu_", "mmlu ").split()[0] for name in tasks} == set(PROTOCOLS[group])
    for name, task in tasks.items():
        shots, metric = PROTOCOLS[group]["mmlu" if name.startswith("mmlu_") else name]
        task.set_fewshot_seed(1234)
        assert task.config.num_fewshot == shots
        assert metric in task.aggregation()
        context = task.fewshot_context(task.eval_docs[0], num_fewshot=task.config.num_fewshot)
        context = context[0] if isinstance(context, list) else context
        asked = set(re.findall(r"(?:train|validation|test|dev)\d+\.", context))
        # WikiText's whole text is the target.
        assert len(asked) == (0 if name == "wikitext" else shots + 1), name


@pytest.mark.slow
@pytest.mark.parametrize("group", ["openllm_v1", "minitron"])
def test_only_strict_answers_of_gsm8k_count(lm_eval_tasks_by_group, group):
    loaded, _ = lm_eval_tasks_by_group
    assert [ensemble.name for ensemble in loaded[group]["tasks"]["gsm8k"]._filters] == ["strict-match"]


@pytest.mark.slow
def test_minitron_samples_code_and_asks_before_running_it(lm_eval_tasks_by_group):
    loaded, _ = lm_eval_tasks_by_group
    humaneval, mbpp = (loaded["minitron"]["tasks"][name] for name in ("minitron_humaneval", "mbpp"))
    assert humaneval.config.repeats == 20
    assert humaneval.UNSAFE_CODE
    assert mbpp.UNSAFE_CODE
    for task in (humaneval, mbpp):
        settings = task.config.generation_kwargs
        assert (settings["do_sample"], settings["temperature"], settings["top_p"]) == (True, 0.2, 0.95)


@pytest.mark.slow
def test_every_mmlu_subject_and_the_versions_of_lm_eval_are_kept(lm_eval_tasks_by_group):
    loaded, _ = lm_eval_tasks_by_group
    tasks = loaded["openllm_v1"]["tasks"]
    assert len([name for name in tasks if name.startswith("mmlu_")]) == 57
    if version("lm_eval") == "0.4.13":
        for group in loaded.values():
            for task in group["tasks"].values():
                metadata = task.config.metadata
                assert metadata["version"] == load_yaml(metadata["config_source"])["metadata"]["version"]


@pytest.mark.slow
def test_no_name_of_ours_is_one_of_lm_evals(lm_eval_tasks_by_group):
    lm_eval_names = set(TaskManager().all_tasks)
    ours = set(TaskManager(include_path=str(ROOT), include_defaults=False).all_tasks)
    assert set(GROUPS) < ours
    assert not ours & lm_eval_names
