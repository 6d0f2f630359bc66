"""What lm-eval writes is read back: its own files have its own aggregates; broken ones are refused by a sentence."""

import json

import numpy as np
import pytest

from tests.evaluation.lm_eval_files import DATE, run_lm_eval, write_results, write_tasks
from trl_prune.errors import InputError
from trl_prune.evaluation.result_files import read_results, unique_keys


@pytest.fixture(scope="module")
def lm_evals(tmp_path_factory, tokenizer):
    """Return lm-eval's folder and its results in memory."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "tasks").mkdir()
    write_tasks(folder / "tasks")
    return folder / "out", run_lm_eval(folder / "tasks", folder / "out", tokenizer, num_fewshot=1)


def test_the_scores_are_lm_evals_own(lm_evals):
    folder, results = lm_evals
    read = read_results(folder)
    assert read.scores["tiny_generated"].mean == results["results"]["tiny_generated"]["exact_match,none"]
    assert read.scores["tiny_text"].mean == pytest.approx(results["results"]["tiny_text"]["word_perplexity,none"])
    parts = [results["results"][task]["acc_norm,none"] for task in ("tiny_choice", "tiny_again")]
    assert read.scores["tiny_inner"].mean == pytest.approx(np.mean(parts))


def test_a_group_is_replaced_by_its_members_and_a_subgroup_is_scored_as_one(lm_evals):
    read = read_results(lm_evals[0])
    assert list(read.scores) == ["tiny_inner", "tiny_generated", "tiny_text"]
    inner = read.scores["tiny_inner"]
    assert (inner.kind, inner.metric, len(inner.items)) == ("choice", "acc_norm", 24)
    assert inner.chance == pytest.approx(1 / 3)
    assert {key.split("/")[0] for key in inner.doc_hashes} == {"tiny_choice", "tiny_again"}
    text = read.scores["tiny_text"]
    assert (text.kind, text.higher_is_better, text.weights[0]) == ("likelihood", False, 3.0)
    generated = read.scores["tiny_generated"]
    assert (generated.kind, generated.chance, generated.capability) == ("generation", 0.0, "copying")
    assert generated.repeats == 1
    assert set(generated.loops) <= {0.0, 1.0}


def test_conditions_and_texts_are_those_of_the_evaluation(lm_evals):
    read = read_results(lm_evals[0], name="mine")
    assert read.name == "mine"
    conditions = read.conditions["tiny_generated"]
    assert (conditions.version, conditions.num_fewshot, conditions.dtype) == (2.0, 1, "float32")
    assert "max_gen_toks" in conditions.generation
    texts = list(read.texts["tiny_inner"].values())
    assert texts[0].question.endswith("Number 0 is")
    assert {text.answer for text in texts} <= {"odd", "even", "big"}
    assert len(texts[0].prompt_hash) == 64


def test_the_chosen_answer_is_the_one_that_scored(lm_evals):
    read = read_results(lm_evals[0])
    score, texts = read.scores["tiny_inner"], read.texts["tiny_inner"]
    for key, item in zip(score.doc_hashes, score.items, strict=True):
        assert item == (texts[key].answer == texts[key].target)


def test_results_in_memory_are_read_with_the_samples_inside(tmp_path, lm_evals):
    path = write_results(tmp_path, {"a": [1, 0, 1]})
    samples = [json.loads(line) for line in (tmp_path / f"samples_a_{DATE}.jsonl").read_text().splitlines()]
    inside = tmp_path / "inside.json"
    inside.write_text(json.dumps(json.loads(path.read_text()) | {"samples": {"a": samples}}))
    assert read_results(inside).scores == read_results(path).scores


@pytest.mark.parametrize(("template", "multiturn"), [(None, None), ("a" * 64, True)])
def test_turns_count_with_a_chat_template_only(tmp_path, template, multiturn):
    changes = {"chat_template_sha": template, "fewshot_as_multiturn": True}
    path = write_results(tmp_path, {"a": [1, 0]}, changes=changes)
    assert read_results(path).conditions["a"].fewshot_as_multiturn is multiturn


def test_a_renamed_file_finds_the_only_samples_beside_it(tmp_path):
    path = write_results(tmp_path, {"a": [1, 0], "a_b": [0, 0]})
    renamed = path.rename(tmp_path / "mine.json")
    assert read_results(renamed).scores["a"].items == [1.0, 0.0]


def test_the_wanted_metric_may_be_named(tmp_path):
    path = write_results(tmp_path, {"a": [1, 0]}, sample_changes={"f1": 0.25, "metrics": ["f1", "acc"]})
    assert read_results(path, metrics={"a": "f1"}).scores["a"].items == [0.25, 0.25]
    with pytest.raises(InputError, match="task 'a' has no metric 'bleu'; it has f1, acc"):
        read_results(path, metrics={"a": "bleu"})


def test_a_result_with_repeats_has_the_share_of_right_answers(tmp_path):
    changes = {"resps": [["yes", "no " * 20]], "exact_match": 0.5}
    kinds = {"a": "generate_until"}
    score = read_results(write_results(tmp_path, {"a": [1, 0]}, kinds=kinds, sample_changes=changes)).scores["a"]
    assert (score.repeats, score.items, score.loops) == (2, [0.5, 0.5], [0.5, 0.5])


def test_documents_that_come_twice_have_keys_of_their_own():
    assert unique_keys(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]


def broken(folder, text, name="samples_a_" + DATE + ".jsonl"):
    path = write_results(folder, {"a": [1, 0]})
    (folder / name).write_text(text)
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "none", "does not exist; name a results file of lm-eval"),
        (lambda folder: folder, "holds no results of lm-eval"),
        (
            lambda folder: broken(folder, "{", f"results_{DATE}.json"),
            "is not a results file of .*: it is not JSON",
        ),
        (
            lambda folder: broken(folder, "[]", f"results_{DATE}.json"),
            "is not a results file of .*: it holds a list",
        ),
        (lambda folder: write_results(folder, {}, changes={"configs": None}), "lm-eval: it has no 'configs'"),
        (lambda folder: broken(folder, ""), "task 'a' has no samples"),
        (lambda folder: broken(folder, "{}\n{"), "line 1 is not a sample of lm-eval"),
        (lambda folder: broken(folder, '{"doc_id": 1}\n{"doc'), "line 2 is broken: it is not JSON"),
        (lambda folder: write_results(folder, {"a": [1, float("nan")]}), "line 2: 'acc' of task 'a' is nan"),
        (
            lambda folder: write_results(folder, {"a": [1]}, sample_changes={"acc": [1]}),
            "line 1: task 'a' has no number",
        ),
        (
            lambda folder: write_results(folder, {"a": [1]}, sample_changes={"metrics": ["f1", "mcc"]}),
            "task 'a' has the metrics f1, mcc; wanted: one of",
        ),
    ],
)
def test_broken_results_are_refused(tmp_path, make, sentence):
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        read_results(make(tmp_path))


def test_results_without_samples_are_refused_with_the_option_that_writes_them(tmp_path):
    path = write_results(tmp_path, {"a": [1, 0]})
    (tmp_path / f"samples_a_{DATE}.jsonl").unlink()
    with pytest.raises(InputError, match=r"has no samples of task 'a' beside it .*: run lm_eval with --log_samples"):
        read_results(path)


def test_a_folder_with_several_results_is_refused(tmp_path):
    for name in ("one", "two"):
        write_results(tmp_path / name, {"a": [1]})
    with pytest.raises(InputError, match=f"holds 2 results of lm-eval, of which one is wanted: one/results_{DATE}"):
        read_results(tmp_path)
