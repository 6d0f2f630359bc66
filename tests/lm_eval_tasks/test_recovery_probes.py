"""The shipped lm-eval tasks: they load, their items are balanced, and no training row has the wording of one."""

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

import lm_eval_tasks
from trl_prune.data.starter import starter_rows


ROOT = Path(lm_eval_tasks.__file__).parent
PROBES = ROOT / "recovery_probes"
GROUP = yaml.safe_load((PROBES / "recovery_probes.yaml").read_text())
TABLE_PROBES = ["facts", "commonsense", "antonyms", "category", "plurals"]


def probe_docs(name: str) -> list[dict]:
    config = load_yaml(PROBES / f"{name.removeprefix('probe_')}.yaml")
    arguments = {**config["metadata"], **config.get("dataset_kwargs", {})}
    return config["custom_dataset"](**arguments)["test"].to_list()


def digest_of_all() -> str:
    items = {name: probe_docs(name) for name in GROUP["task"]}
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def shingles(text: str, length: int = 6) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + length]) for i in range(len(words) - length + 1)}


@pytest.fixture(scope="module")
def tasks():
    return TaskManager(include_path=str(ROOT), include_defaults=False).load(["recovery_probes"])["tasks"]


@pytest.fixture(scope="module")
def docs():
    return {name: probe_docs(name) for name in GROUP["task"]}


@pytest.fixture(scope="module")
def choice_docs(docs):
    return {name: items for name, items in docs.items() if "choices" in items[0]}


@pytest.fixture(scope="module")
def training():
    return [
        (row["prompt"][-1]["content"], row["completion"][-1]["content"], str(row["answer"])) for row in starter_rows()
    ]


def test_every_yaml_file_loads():
    files = sorted(ROOT.rglob("*.yaml"))
    assert len(files) > len(GROUP["task"])
    for file in files:
        assert load_yaml(file)


def test_the_group_names_every_probe_and_loads_without_the_default_tasks(tasks):
    files = {f"probe_{file.stem}" for file in PROBES.glob("[!_]*.yaml")} - {"probe_recovery_probes"}
    assert set(tasks) == set(GROUP["task"]) == files


def test_probes_state_capability_version_and_metric(tasks):
    for name, task in tasks.items():
        metadata = task.config.metadata
        assert name == f"probe_{metadata['capability']}"
        assert metadata["version"] == (2.0 if task.OUTPUT_TYPE == "generate_until" else 1.0)
        assert metadata["metric"] in {entry["metric"] for entry in task.config.metric_list}


def test_chance_is_one_over_the_choices_and_zero_for_generated_answers(tasks, docs):
    for name, task in tasks.items():
        expected = 1 / len(docs[name][0]["choices"]) if "choices" in docs[name][0] else 0.0
        assert task.config.metadata["chance"] == pytest.approx(expected, abs=1e-3)


def test_the_starter_rows_train_the_capabilities_that_the_readme_names_and_no_others(tasks):
    capabilities = {task.config.metadata["capability"] for task in tasks.values()}
    trained = capabilities & {row["capability"] for row in starter_rows()}
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| facts, ")]
    assert [set(cell.strip().split(", ")) for cell in line.strip("|").split("|")] == [trained, capabilities - trained]
    assert len(trained) >= 4
    assert len(capabilities - trained) >= 4


def test_both_multiple_choice_and_generative_probes_exist(tasks):
    output_types = Counter(task.OUTPUT_TYPE for task in tasks.values())
    assert output_types["multiple_choice"] >= 2
    assert output_types["generate_until"] >= 2


def test_generated_answers_end_at_the_line_end_and_within_twelve_thousand_tokens(tasks, docs):
    generative = {name: task for name, task in tasks.items() if task.OUTPUT_TYPE == "generate_until"}
    assert all(task.config.generation_kwargs["until"] == ["\n"] for task in generative.values())
    max_tokens = sum(
        task.config.generation_kwargs["max_gen_toks"] * len(docs[name]) for name, task in generative.items()
    )
    assert max_tokens <= 12_000


def test_the_examples_of_generative_probes_are_turns_of_a_chat_and_lines_of_a_text(tasks):
    task = tasks["probe_plurals"]
    doc = {"prompt": "lake:", "answer": "lakes"}
    text = task.fewshot_context(doc, num_fewshot=task.config.num_fewshot)
    assert text == "bag: bags\nhobby: hobbies\nglass: glasses\nlake:"
    turns = []
    task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        chat_template=lambda messages, **_: turns.extend(messages),
    )
    assert [turn["content"] for turn in turns] == ["bag:", "bags", "hobby:", "hobbies", "glass:", "glasses", "lake:"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3 + ["user"]


def test_probes_have_150_to_200_items_in_a_fixed_form(docs):
    for items in docs.values():
        assert 150 <= len(items) <= 200
        assert {tuple(sorted(item)) for item in items} <= {("choices", "label", "prompt"), ("answer", "prompt")}


def test_items_are_reproducible():
    assert digest_of_all() == digest_of_all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1"])
def test_items_do_not_depend_on_the_hash_seed(seed):
    code = "import test_recovery_probes as t; print(t.digest_of_all())"
    environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{Path(__file__).parent}:{ROOT.parent}", "PATH": ""}
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert completed.stdout.split()[-1] == digest_of_all()


def test_positions_of_right_answers_are_balanced(choice_docs):
    for items in choice_docs.values():
        counts = Counter(item["label"] for item in items)
        assert set(counts) == set(range(len(items[0]["choices"])))
        assert max(counts.values()) - min(counts.values()) <= 1


def test_choices_of_an_item_are_distinct_and_equally_many_in_all_items(choice_docs):
    for items in choice_docs.values():
        assert {len(item["choices"]) for item in items} == {len(set(item["choices"])) for item in items}
        assert len({len(item["choices"]) for item in items}) == 1


def test_the_shortest_or_longest_choice_is_not_the_answer_more_often_than_chance(choice_docs):
    for name, items in choice_docs.items():
        chance = 1 / len(items[0]["choices"])
        for pick in (min, max):
            hits = sum(pick(item["choices"], key=len) == item["choices"][item["label"]] for item in items)
            assert hits / len(items) < chance + 0.15, name


def test_the_choices_that_are_most_often_right_do_not_predict_the_answer(choice_docs):
    for name, items in choice_docs.items():
        right, shown = Counter(), Counter()
        for item in items:
            right[item["choices"][item["label"]]] += 1
            shown.update(item["choices"])
        # In each item, pick the word that is most often right where it is shown.
        picks = (max(item["choices"], key=lambda word: (right[word] / shown[word], word)) for item in items)
        hits = sum(pick == item["choices"][item["label"]] for pick, item in zip(picks, items, strict=True))
        assert hits / len(items) < 1 / len(items[0]["choices"]) + 0.25, name


def test_no_item_appears_twice_within_or_across_tasks(docs):
    for items in docs.values():
        assert len({item["prompt"] for item in items}) == len(items)
    for first, second in combinations(docs.values(), 2):
        assert not {item["prompt"] for item in first} & {item["prompt"] for item in second}


def test_the_tasks_import_only_the_standard_library_datasets_and_lm_eval():
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in sys.stdlib_module_names | {"datasets", "lm_eval"}


def test_probes_share_no_wording_with_the_training_rows(docs, training):
    trained = set().union(*(shingles(prompt) for prompt, _completion, _answer in training))
    for name, items in docs.items():
        for item in items:
            assert not shingles(item["prompt"]) & trained, (name, item["prompt"])


@pytest.mark.parametrize("capability", TABLE_PROBES)
def test_no_probe_has_the_subject_and_answer_of_a_training_row(capability, training):
    builder = load_yaml(PROBES / "facts.yaml")["custom_dataset"]
    pairs = [pair for section in builder.__globals__["_table"](capability).values() for pair in section.items()]
    rows = [(f" {' '.join(words_of(prompt))} ", " ".join(words_of(answer))) for prompt, _, answer in training]
    for subject, answer in pairs:
        words = [word for word in words_of(subject) if word not in {"a", "an", "the", "someone", "is"}]
        forward, backward = (" ".join(words), answer.lower()), (answer.lower(), " ".join(words))
        for question, expected in (forward, backward):
            assert not [prompt for prompt, reply in rows if f" {question} " in prompt and reply == expected]
