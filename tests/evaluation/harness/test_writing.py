"""The files of a model's results."""

import json

import pytest

from tests.conftest import tiny_model
from tests.evaluation.harness.conftest import TYPES, model_of
from trl_prune.evaluation.harness import EvaluationSettings, evaluate_model, load_tasks, write_results
from trl_prune.evaluation.result_files import read_results, samples_file, task_scores


NAMES = ["tiny_group", *TYPES[1:], "tiny_sampled"]


@pytest.fixture(scope="module")
def evaluated(tasks_dir, tokenizer):
    tasks, model = load_tasks(NAMES, [tasks_dir]), model_of(tiny_model("llama"), tokenizer)
    settings = EvaluationSettings(limit=6, apply_chat_template=True)
    return tasks, model, settings, evaluate_model(model, tasks, settings)


def test_what_is_written_is_read_again_as_the_same_scores(evaluated, tmp_path):
    tasks, model, settings, results = evaluated
    files = write_results(tmp_path, results, model, settings, "float32")
    assert files == [samples_file(name) for name in tasks.tasks]
    expected = task_scores(results)
    found = read_results(tmp_path)
    assert set(found.scores) == set(expected)
    for name, score in expected.items():
        read = found.scores[name]
        for value in (
            "metric",
            "items",
            "chance",
            "kind",
            "higher_is_better",
            "weights",
            "repeats",
            "doc_hashes",
            "loops",
        ):
            assert getattr(read, value) == getattr(score, value), (name, value)
        assert read.mean == pytest.approx(results["results"][name][f"{score.metric},none"])
    conditions = found.conditions["tiny_shots"]
    assert (conditions.num_fewshot, conditions.dtype, conditions.limit) == (2, "float32", 6)
    assert len(conditions.chat_template) == 64


# What lm-eval notes of the machine and the time, and the template itself beside its hash.
MACHINE = {
    "chat_template", "date", "end_time", "git_hash", "model_name_sanitized", "model_source", "pretty_env_info",
    "start_time", "system_instruction_sha", "total_evaluation_time_seconds", "upper_git_hash",
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs(evaluated, tokenizer, tmp_path_factory):
    """The results file that lm-eval itself writes."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("theirs")
    tracker = EvaluationTracker(output_path=str(folder))
    lm = HFLM(pretrained=tiny_model("llama"), tokenizer=tokenizer, device="cpu")
    options = {"apply_chat_template": True, "bootstrap_iters": 0, "evaluation_tracker": tracker, "limit": 2}
    options["task_manager"] = TaskManager(include_defaults=False)
    results = simple_evaluate(lm, tasks=list(evaluated[0].tasks.values()), **options)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results, samples)
    for name, rows in samples.items():
        tracker.save_results_samples(name, rows)
    (path,) = folder.rglob("results_*.json")
    return path


def first_sample(folder, name):
    (path,) = folder.glob(f"samples_{name}*.jsonl")
    return json.loads(path.read_text().splitlines()[0])


@pytest.mark.slow  # lm-eval describes the machine by `pip list` and others
def test_the_files_have_the_keys_of_lm_evals_own(evaluated, theirs, tmp_path):
    tasks, model, settings, results = evaluated
    write_results(tmp_path, results, model, settings, "float32")
    ours, other = json.loads((tmp_path / "results.json").read_text()), json.loads(theirs.read_text())
    assert set(other) - MACHINE <= set(ours)
    assert ours["chat_template_sha"] == other["chat_template_sha"]
    for name in tasks.tasks:
        one, two = first_sample(tmp_path, name), first_sample(theirs.parent, name)
        assert one.keys() == two.keys()
        assert one["arguments"].keys() == two["arguments"].keys()
        assert type(one["resps"][0][0]) is type(two["resps"][0][0])


def test_equal_results_are_equal_files(evaluated, tmp_path):
    _, model, settings, results = evaluated
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, results, model, settings, "float32")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
