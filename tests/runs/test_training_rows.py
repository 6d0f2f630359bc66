"""Which rows arms train on."""

import json
from types import SimpleNamespace

import pytest
from datasets import Dataset

from tests.conftest import ROWS
from tests.recipes import recipe_values
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.recipe import parse_recipe
from trl_prune.runs import training_rows as module
from trl_prune.runs.arms import training_args
from trl_prune.runs.artifacts import StageOutput, config_hash
from trl_prune.runs.context import Run
from trl_prune.runs.training_rows import check_prompts, check_rows, rows_hash, training_rows


MIX = [
    {"source": "references", "share": 0.5},
    {"source": "rewritten", "share": 0.25},
    {"source": "text", "share": 0.25},
]


@pytest.fixture
def folder(tmp_path):
    """Rows that differ, and a text that is not the recipe's dataset."""
    recipe_values(tmp_path)
    question = "Name number {}."
    rows = [
        {"messages": [{"role": "user", "content": question.format(n)}, {"role": "assistant", "content": f"It is {n}"}]}
        for n in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "wiki.jsonl").write_text("\n".join(json.dumps({"text": f"Text {n}. " * 30}) for n in range(8)))
    return tmp_path


def run_with(folder, monkeypatch=None, **arm):
    values = recipe_values(folder) | {"recover": {"arm": arm}}
    run = Run(parse_recipe(values, "test"))
    if monkeypatch is not None:
        rewritten = [
            {"messages": [row["messages"][0], {"role": "assistant", "content": "Rewritten."}]} for row in run.dataset
        ]
        monkeypatch.setattr(
            module,
            "source_rows",
            lambda run, arm, source: (
                Dataset.from_list(rewritten) if source.source == "rewritten" else module.planned_rows(run, source)
            ),
        )
    return run, run.recipe.recover["arm"]


def rows_of(folder, monkeypatch=None, **arm):
    run, arm = run_with(folder, monkeypatch, **arm)
    return training_rows(run, arm, training_args(run, arm, "float32"))


def texts(run, rows):
    return [run.tokenizer.decode(row["input_ids"]) for row in rows]


def test_an_arm_without_a_number_of_rows_gets_all_as_they_are(folder):
    result = rows_of(folder, data="references")
    assert result.rows.column_names == ["messages"]
    assert result.count == len(result.rows) == 60
    assert result.sources is None


def test_what_rows_train_is_read_from_their_own_column(folder):
    path = folder / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    named = [row | {"capability": ("counting", "facts", None)[number % 3]} for number, row in enumerate(rows)]
    (folder / "named.jsonl").write_text("\n".join(map(json.dumps, named)))
    named_rows = {"source": "references", "share": 0.5, "dataset": {"path": str(folder / "named.jsonl")}}
    mixed = rows_of(folder, rows=20, data=[named_rows, {"source": "references", "share": 0.5}])
    assert mixed.capabilities == ["counting", "facts"]
    assert rows_of(folder, data="references").capabilities is None


def test_fewer_rows_are_a_subset_of_more_and_the_same_for_every_source(folder, monkeypatch):
    asked = [
        [row["messages"][0]["content"] for row in rows_of(folder, monkeypatch, data=data, rows=count).rows]
        for data, count in (("references", 20), ("references", 40), ("rewritten", 20))
    ]
    assert [len(set(questions)) for questions in asked] == [20, 40, 20]
    assert set(asked[0]) < set(asked[1])
    assert asked[0] == asked[2]


def test_sources_of_one_dataset_share_no_row(folder, monkeypatch):
    run, arm = run_with(folder, monkeypatch, data=MIX)
    result = training_rows(run, arm, training_args(run, arm, "float32"))
    assert [source["rows"] for source in result.sources] == [30, 15, 15]
    questions = [text.partition("Name number ")[2].partition(".")[0] for text in texts(run, result.rows)]
    assert sorted(map(int, questions)) == list(range(60))
    assert sum("Rewritten." in text for text in texts(run, result.rows)) == 15
    everywhere = [row for row in result.rows if MASKED not in row["labels"]]
    assert len(everywhere) == 15
    assert not any("Rewritten." in text for text in texts(run, everywhere))


def test_text_of_several_rows_is_trained_on_as_one_text_and_counted_as_such(folder):
    data = [{"source": "references", "share": 0.5}, {"source": "text", "share": 0.5, "rows_per_text": 8}]
    run, arm = run_with(folder, data=data)
    result = training_rows(run, arm, training_args(run, arm, "float32"))
    assert [source["rows"] for source in result.sources] == [30, 30 // 8]
    together = [text for text in texts(run, result.rows) if "\n\n" in text]
    assert [text.count("Name number") for text in together] == [8] * 3
    assert all(MASKED not in row["labels"] for row in result.rows if len(row["input_ids"]) > 100)
    check_rows(run, "arm", arm.model_copy(update={"validation": 32}))
    with pytest.raises(InputError, match="validation is 33, and the arm has 33 rows"):
        check_rows(run, "arm", arm.model_copy(update={"validation": 33}))


@pytest.mark.parametrize("spelling", ["rows.jsonl", "./rows.jsonl", "link.jsonl"])
@pytest.mark.parametrize("extra", [{}, {"split": "test"}, {"rows": 60}])
def test_a_file_is_one_dataset_however_it_is_named(folder, monkeypatch, spelling, extra):
    (folder / "link.jsonl").symlink_to(folder / "rows.jsonl")
    monkeypatch.chdir(folder)
    other = {"source": "text", "share": 0.5, "dataset": {"path": spelling} | extra}
    run, arm = run_with(folder, data=[{"source": "references", "share": 0.5}, other])
    check_rows(run, "arm", arm)
    result = training_rows(run, arm, training_args(run, arm, "float32"))
    questions = [text.partition("Name number ")[2].partition(".")[0] for text in texts(run, result.rows)]
    assert sorted(map(int, questions)) == list(range(60))


def test_parts_of_one_file_are_refused_because_they_may_share_rows(folder, monkeypatch):
    monkeypatch.chdir(folder)
    part = {"source": "text", "share": 0.5, "dataset": {"path": "rows.jsonl", "rows": 40}}
    run, arm = run_with(folder, data=[{"source": "references", "share": 0.5}, part])
    with pytest.raises(InputError) as error:
        check_rows(run, "arm", arm)
    assert str(error.value) == (
        "recover.arm.data has references with 60 rows and text of rows.jsonl with 40 rows of the same dataset, so "
        "that a row could be drawn twice; set `rows` of these datasets to one number"
    )
    same = [part, part | {"source": "references"}]
    check_rows(*named(*run_with(folder, data=same)))


def test_variables_of_the_template_are_read_before_anything_starts(folder):
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    rows[7]["chat_template_kwargs"] = "thinking"
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="line 8: column chat_template_kwargs is 'thinking'; wanted: an object"):
        check_rows(*named(*run_with(folder, data="references")))


def test_the_scarcest_source_sets_the_number_of_rows_and_tokens_are_counted_as_trained(folder, monkeypatch):
    wiki = {"source": "text", "share": 0.2, "dataset": {"path": str(folder / "wiki.jsonl")}}
    mix = [{"source": "rewritten", "share": 0.8}, wiki]
    args = {"max_length": 50}
    result = rows_of(folder, monkeypatch, data=mix, args=args)
    assert [source["rows"] for source in result.sources] == [32, 8]
    assert result.sources[1]["source"] == f"text of {folder / 'wiki.jsonl'}"
    assert result.sources[1]["tokens"] == 8 * 50, "each text is longer"
    assert sum(source["tokens"] for source in result.sources) == sum(map(len, result.rows["input_ids"]))
    kinds = [len(row["input_ids"]) == 50 for row in result.rows]
    assert kinds != sorted(kinds) != sorted(kinds, reverse=True), "the sources are interleaved"
    assert rows_of(folder, monkeypatch, data=mix, args=args | {"packing": True}).sources == result.sources


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"data": "references", "rows": 61}, "recover.arm.rows is 61, and references has 60"),
        (
            {"data": MIX, "rows": 61},
            "recover.arm.rows is 61, and references with rewritten with text, with 60 rows for a share of 1, allows",
        ),
        ({"data": MIX, "rows": 1}, "recover.arm.rows is 1, of which rewritten with a share of 0.25 gets none"),
    ],
)
def test_too_few_rows_are_found_before_anything_starts(folder, arm, message):
    with pytest.raises(InputError) as error:
        check_rows(*named(*run_with(folder, **arm)))
    assert message in str(error.value)


def named(run, arm):
    return run, "arm", arm


def test_plain_text_has_no_answers_to_train_on(folder):
    wiki = {"source": "references", "share": 1.0, "dataset": {"path": str(folder / "wiki.jsonl")}}
    with pytest.raises(InputError, match="plain text without answers; write `source: text`"):
        check_rows(*named(*run_with(folder, data=[wiki])))
    check_rows(*named(*run_with(folder, data=[wiki | {"source": "text"}])))


def test_messages_need_a_chat_template(folder):
    run, arm = run_with(folder, data="references")
    run.__dict__["tokenizer"] = SimpleNamespace(chat_template=None, get_vocab=dict)
    with pytest.raises(InputError, match="has messages, and the model has no chat template"):
        check_rows(run, "arm", arm)


def test_the_hash_follows_every_source(folder):
    wiki = {"source": "text", "share": 0.5, "dataset": {"path": str(folder / "wiki.jsonl")}}
    mix = {"data": [{"source": "references", "share": 0.5}, wiki]}
    before = rows_hash(*run_with(folder, **mix))
    assert before == rows_hash(*run_with(folder, **mix))
    (folder / "wiki.jsonl").write_text(json.dumps({"text": "another"}))
    assert rows_hash(*run_with(folder, **mix)) != before
    run, arm = run_with(folder, data="references")
    assert rows_hash(run, arm) == run.dataset_fingerprint


def test_rows_have_the_formats_of_their_datasets(folder):
    """A mix of conversations, prompts with completions, and text."""
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    sources = [
        {"source": "references", "share": 0.5},
        {"source": "references", "share": 0.25, "dataset": {"path": str(folder / "pairs.jsonl")}},
        {"source": "text", "share": 0.25, "dataset": {"path": str(folder / "wiki.jsonl")}},
    ]
    result = rows_of(folder, data=sources)
    assert [source["rows"] for source in result.sources] == [16, 8, 8]
    assert result.rows.column_names == ["input_ids", "labels"]


CHOSEN = {"paser": list(range(0, 60, 5)), "random": [3, 5, 7], "full": list(range(58))}


def selecting_run(folder, rewritten=None, **arm):
    """Return a run with the selections `CHOSEN` of 60 rows, and an arm that trains on one of them.

    Args:
        folder: of the rows.
        rewritten: the names of the selections whose rows are rewritten.
        arm: keys of the arm.
    """
    arms = {"arm": arm} | {name: {"selection": name} for name in rewritten or ()}
    run = Run(parse_recipe(recipe_values(folder) | {"select": {"budget": 12}, "recover": arms}, "test"))
    finish(run, "select", {}, "selections", json.dumps(CHOSEN))
    if rewritten:
        write_rewritten(run, sorted({index for name in rewritten for index in CHOSEN[name]}))
    return run, run.recipe.recover["arm"]


def write_rewritten(run, indices, answer="Rewritten."):
    rows = [
        {"messages": [run.dataset[index]["messages"][0], {"role": "assistant", "content": answer}]}
        for index in indices
    ]
    finish(run, "rewrite", {"rows": config_hash(indices)}, "rows", "\n".join(map(json.dumps, rows)))


def finish(run, stage, inputs, name, content):
    folder = run.folder.begin(stage, "", inputs, {})
    (folder / f"{name}.jsonl").write_text(content)
    run.folder.finish(stage, "", StageOutput({name: f"{name}.jsonl"}))


def numbers(rows):
    return [int(row["messages"][0]["content"].removeprefix("Name number ")[:-1]) for row in rows]


@pytest.mark.parametrize("data", ["references", "rewritten"])
@pytest.mark.parametrize("selection", [None, "random"])
def test_an_arm_gets_the_rows_of_its_selection_and_a_part_of_them_on_demand(folder, data, selection):
    chosen = CHOSEN[selection or "paser"]
    run, arm = selecting_run(folder, ["paser", "random"], data=data, selection=selection)
    rows = training_rows(run, arm, {}).rows
    assert numbers(rows) == chosen
    assert all((row["messages"][1]["content"] == "Rewritten.") == (data == "rewritten") for row in rows)
    run, arm = selecting_run(folder, ["paser", "random"], data=data, selection=selection, rows=2)
    assert len(set(numbers(training_rows(run, arm, {}).rows)) & set(chosen)) == 2


def test_a_mix_of_selected_rows_and_another_dataset(folder):
    wiki = {"source": "text", "share": 0.4, "dataset": {"path": str(folder / "wiki.jsonl")}}
    run, arm = selecting_run(folder, data=[{"source": "references", "share": 0.6}, wiki])
    check_rows(run, "arm", arm)
    result = training_rows(run, arm, training_args(run, arm, "float32"))
    assert [source["rows"] for source in result.sources] == [12, 8]
    found = texts(run, result.rows)
    questions = [text.partition("Name number ")[2].partition(".")[0] for text in found if "Name" in text]
    assert sorted(map(int, questions)) == CHOSEN["paser"]
    assert {text[:7] for text in found if "Name" not in text} == {f"Text {n}." for n in range(8)}


def test_a_dataset_beside_its_selected_rows_is_refused(folder):
    other = {"source": "text", "share": 0.5, "dataset": {"path": str(folder / "rows.jsonl"), "rows": 12}}
    run, arm = selecting_run(folder, data=[{"source": "references", "share": 0.5}, other])
    with pytest.raises(InputError, match="recover.arm.data has text of .* beside selected rows of the same dataset"):
        check_rows(run, "arm", arm)
    del other["dataset"]
    check_rows(*named(*selecting_run(folder, data=[{"source": "references", "share": 0.5}, other])))


def test_too_few_selected_rows_are_found_before_the_selection_or_named_after_it(folder):
    run, arm = selecting_run(folder, data="references", rows=13)
    with pytest.raises(InputError) as error:
        check_rows(run, "arm", arm)
    assert str(error.value) == "recover.arm.rows is 13, and references of the selection 'paser' has 12"
    run, arm = selecting_run(folder, data="references", rows=59, selection="full")
    check_rows(run, "arm", arm)
    with pytest.raises(InputError) as error:
        training_rows(run, arm, {})
    assert str(error.value) == "recover.arm.rows is 59, and references of the selection 'full' has 58"


def test_the_hash_of_rewritten_rows_is_that_of_the_arms_own(folder):
    run, arm = selecting_run(folder, ["paser"])
    before = rows_hash(run, arm)
    run, arm = selecting_run(folder, ["paser", "random"])
    assert rows_hash(run, arm) == before
    assert rows_hash(run, run.recipe.recover["random"]) != before
    write_rewritten(run, sorted({*CHOSEN["paser"], *CHOSEN["random"]}), "Rewritten again.")
    assert rows_hash(run, arm) != before


def test_without_a_selection_the_hash_is_that_of_the_rewrite_stage(folder):
    run, arm = run_with(folder, data="rewritten")
    finish(run, "rewrite", {}, "rows", "")
    assert rows_hash(run, arm) == run.folder.result_hash("rewrite")


def test_prompts_that_all_fill_the_length_are_found_before_anything_starts(folder):
    run, arm = run_with(folder, data="references")
    check_prompts(run, "recover.arm", arm, {"max_length": 64})
    check_prompts(run, "recover.arm", arm, {"max_length": 8, "completion_only_loss": False})
    with pytest.raises(
        InputError, match="recover.arm.args.max_length is 8, and the prompts of all 60 rows of .* fill it"
    ):
        check_prompts(run, "recover.arm", arm, {"max_length": 8})
