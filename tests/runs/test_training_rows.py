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
from trl_prune.runs.context import Run
from trl_prune.runs.training_rows import check_rows, rows_hash, training_rows


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
    with pytest.raises(InputError, match="chat_template_kwargs in the dataset is 'thinking'; wanted: an object"):
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
    run.__dict__["tokenizer"] = SimpleNamespace(chat_template=None)
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
