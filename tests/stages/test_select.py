"""The select stage: its files, what later stages take from it, and what is measured again after a change."""

import json

import pytest
from datasets import load_dataset

from tests.recipes import recipe_values
from tests.trainers.test_launching import config_file
from trl_prune.errors import InputError
from trl_prune.pipeline import run_recipe
from trl_prune.recipe import parse_recipe
from trl_prune.runs.context import Run
from trl_prune.runs.selected_rows import selected_rows
from trl_prune.stages import select


QUESTIONS = ("Add {0} and {1}.", "Name a colour for the number {0}.", "Is {0} odd or even?")


def values(folder, **section):
    """Return a recipe over rows of three kinds, with a `select` section."""
    found = recipe_values(folder)
    rows = [
        {"prompt": QUESTIONS[index % 3].format(index, index + 1), "completion": f"It is {index * 7 % 10}."}
        for index in range(36)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    select_section = {"budget": 9, "embedder": "hidden_states", "clusters": 3, "near_duplicates": None} | section
    return found | {"select": select_section}


def parse(folder, **section):
    return parse_recipe(values(folder, **section), "test")


def test_the_stage_writes_rows_figures_and_a_dataset(tmp_path, capsys):
    run = run_recipe(parse(tmp_path), ["select"])
    chosen = {name: selected_rows(run, name) for name in ("paser", "random")}
    assert all(len(set(rows)) == 9 and rows == sorted(rows) for rows in chosen.values())
    dataset = load_dataset(str(run.folder.output("select", "dataset").parent), split="train")
    assert dataset.to_list() == [run.dataset[index] for index in chosen["paser"]]
    summary = json.loads(run.folder.output("select", "summary").read_text())
    assert sum(cluster["rows"] for cluster in summary["clusters"]) == summary["pool"]["candidates"] == 36
    assert sum(cluster["selected"] for cluster in summary["clusters"]) == 9
    assert [(one["name"], one["rows"]) for one in summary["selections"]] == [("paser", 9), ("random", 9)]
    assert all(0 < cluster["degradation"] < 0.7 for cluster in summary["clusters"])
    select.STAGE.show(run)
    shown = capsys.readouterr().out
    assert "Selected of 36 candidates" in shown
    assert f"{summary['clusters'][0]['degradation']:.4f}" in shown


@pytest.mark.slow
def test_arms_train_on_their_selections(tmp_path):
    recipe = values(tmp_path)
    arm = recipe["recover"]["sft"]
    recipe["recover"] = {"own": arm, "other": arm | {"selection": "random"}, "all": arm | {"selection": "full"}}
    recipe["rewrite"] = None
    run = run_recipe(parse_recipe(recipe, "test"), ["recover"])
    rows = {name: run.folder.require("recover", name).metrics["rows"] for name in ("own", "other", "all")}
    assert rows == {"own": 9, "other": 9, "all": 36}


def test_only_the_rows_of_arms_are_rewritten(tmp_path):
    recipe = values(tmp_path)
    arm = recipe["recover"]["selfd"]
    recipe["recover"] = {"own": arm, "other": arm | {"selection": "random"}}
    run = run_recipe(parse_recipe(recipe, "test"), ["recover"])
    rewritten = [json.loads(line) for line in run.folder.output("rewrite", "rows").read_text().splitlines()]
    wanted = sorted({*selected_rows(run, "paser"), *selected_rows(run, "random")})
    assert [row["prompt"] for row in rewritten] == [run.dataset[index]["prompt"] for index in wanted]
    assert {run.folder.require("recover", name).metrics["rows"] for name in ("own", "other")} == {9}


def test_another_selection_measures_nothing_again(tmp_path, monkeypatch):
    first = run_recipe(parse(tmp_path), ["select"])
    monkeypatch.setattr(Run, "load", lambda run, name: pytest.fail("a model was loaded"))
    second = run_recipe(parse(tmp_path, selections={"free": {"consistency": "off"}}, budget=6), ["select"])
    assert len(selected_rows(second, "free")) == len(selected_rows(second, "paser")) == 6
    assert first.folder.path == second.folder.path


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"budget": 37}, "select.budget is 37 rows, and there are 36 to choose from, in dataset"),
        ({"instruction": "question"}, "select.instruction is 'question', and dataset .* has the columns"),
    ],
)
def test_mistakes_are_found_before_anything_is_measured(tmp_path, section, sentence):
    with pytest.raises(InputError, match=sentence):
        select.check(Run(parse(tmp_path, **section)))


def test_rows_that_cannot_be_selected_are_counted_in_the_error(tmp_path):
    recipe = values(tmp_path, budget=36)
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    rows[1] = rows[0]
    rows[2] = json.dumps(json.loads(rows[2]) | {"completion": ""})
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    sentence = "budget of 'paser' is 36 rows, and 34 of 36 rows can be selected: 1 have no answer .* 1 are duplicates"
    with pytest.raises(InputError, match=sentence):
        run_recipe(parse_recipe(recipe, "test"), ["select"])
    assert not (tmp_path / "run" / "select" / select.MEASURED).exists()


def test_a_conversation_that_ends_on_a_question_has_its_last_answer_and_changes_no_other_row(tmp_path):
    recipe = values(tmp_path, clusters=1, budget=4)
    rows = [
        [{"role": "user", "content": f"Add {index} and 1."}, {"role": "assistant", "content": f"It is {index + 1}."}]
        for index in range(12)
    ]
    answer_tokens = []
    for messages in (rows, [*rows[:-1], [*rows[-1], {"role": "user", "content": "Really?"}]]):
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"messages": row}) for row in messages))
        run = run_recipe(parse_recipe(recipe, "test"), ["select"])
        pool = load_dataset("parquet", data_files=str(run.folder.output("select", "pool")), split="train")
        answer_tokens.append(dict(zip(pool["row"], pool["answer_tokens"], strict=True)))
    assert len(answer_tokens[0]) == 12
    assert answer_tokens[1] == answer_tokens[0]


def test_a_column_that_many_rows_share_makes_no_duplicates(tmp_path):
    recipe = values(tmp_path, instruction="task", near_duplicates="auto", clusters="auto", budget=20)
    rows = [json.dumps({"prompt": f"Is {n} odd?", "completion": "no", "task": "parity"}) for n in range(24)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    run = run_recipe(parse_recipe(recipe, "test"), ["select"])
    assert json.loads(run.folder.output("select", "summary").read_text())["pool"]["candidates"] == 24


def test_a_finished_selection_needs_no_embedder(tmp_path, monkeypatch):
    run = run_recipe(parse(tmp_path), ["select"])
    monkeypatch.setattr(select.selection, "check_embedder", lambda section: pytest.fail("the embedder was loaded"))
    select.check(Run(run.recipe))


def test_messages_without_a_chat_template_are_refused(tmp_path):
    recipe = values(tmp_path)
    (tmp_path / "dense" / "chat_template.jinja").unlink()
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps({"messages": messages})] * 12))
    with pytest.raises(InputError, match="has messages, and the model has no chat template"):
        select.check(Run(parse_recipe(recipe, "test")))


@pytest.mark.slow  # starts processes
def test_two_processes_select_what_one_selects(tmp_path, monkeypatch):
    recipe = values(tmp_path)
    one = run_recipe(parse_recipe(recipe, "test"), ["select"])
    two = run_recipe(
        parse_recipe(recipe | {"output": str(tmp_path / "two")}, "test"), ["select"], str(config_file(tmp_path))
    )
    assert two.folder.result("select").metrics == one.folder.result("select").metrics
    assert selected_rows(two, "paser") == selected_rows(one, "paser")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"method": "random", "near_duplicates": 0.98}, True),
        ({"clusters": 1, "near_duplicates": "auto"}, True),
        ({"method": "random"}, False),
        ({"clusters": 1}, False),
        ({}, True),
    ],
)
def test_whatever_reads_embeddings_has_them_measured_first(tmp_path, section, expected):
    settings = select.selection_settings(Run(parse(tmp_path, **section)))
    assert settings.needs_embeddings is expected
