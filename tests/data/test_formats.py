import json

import pytest
from datasets import Dataset

from trl_prune.data.batches import calibration_batches, pad, sample
from trl_prune.data.formats import conversation, format_of, row_text, with_answer
from trl_prune.data.reading import read_dataset
from trl_prune.errors import InputError


CONVERSATION = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
TEXT_ROW = {"prompt": "Hi", "completion": "Hello"}
TALK_ROW = {"prompt": CONVERSATION[:1], "completion": CONVERSATION[1:]}
MESSAGES_ROW = {"messages": CONVERSATION}


@pytest.mark.parametrize("row", [TEXT_ROW, TALK_ROW, MESSAGES_ROW])
def test_conversation_is_the_turns_and_the_answer(row):
    assert conversation(row) == (CONVERSATION[:1], "Hello")


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Hi Hello"},
        {"messages": CONVERSATION[:1]},
        {"prompt": CONVERSATION[:1], "completion": CONVERSATION[1:] * 2},
        {"messages": [CONVERSATION[0], {"role": "assistant", "content": None, "tool_calls": [{}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, CONVERSATION[1]]},
    ],
)
def test_rows_without_a_plain_answer_have_none(row):
    assert conversation(row) is None


@pytest.mark.parametrize("row", [TEXT_ROW, TALK_ROW, MESSAGES_ROW])
def test_with_answer_changes_the_answer_and_nothing_else(row):
    row = row | {"capability": "greeting"}
    changed = with_answer(row, "Good day")
    assert conversation(changed) == (CONVERSATION[:1], "Good day")
    assert with_answer(changed, "Hello") == row


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [(["prompt", "completion", "x"], "prompt + completion"), (["messages"], "messages"), (["text"], "text")],
)
def test_formats(columns, wanted):
    assert format_of(columns) == wanted


def test_unusable_columns_are_named_with_the_usable_ones():
    with pytest.raises(InputError, match="question, answer; wanted: prompt \\+ completion or messages or text"):
        format_of(["question", "answer"])


def test_reads_jsonl_json_and_parquet_alike(tmp_path):
    rows = [TALK_ROW | {"n": number} for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.json", "rows.parquet"):
        assert list(read_dataset(str(tmp_path / name))) == rows


def test_columns_that_only_later_rows_have_are_kept(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(TEXT_ROW) + "\n" + json.dumps(TEXT_ROW | {"answer_type": "open"}))
    told = read_dataset(str(tmp_path / "rows.jsonl"))
    assert told["answer_type"] == [None, "open"]


def test_unicode_line_separators_are_text(tmp_path):
    row = {"prompt": "a\u2028b", "completion": "c\u0085d"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(read_dataset(str(tmp_path / "rows.jsonl"))) == [row]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", "is empty"),
        ("rows.jsonl", "\n \n", "is empty"),
        ("rows.jsonl", "{broken", "cannot be read"),
        ("rows.jsonl", "[1, 2]", "cannot be read"),
        ("rows.csv", "a,b", "suffix '.csv'; allowed: .jsonl, .json, .parquet"),
        ("rows.parquet", "not parquet", "cannot be read"),
        ("rows.jsonl", '{"question": "a"}', "has the columns question; wanted"),
    ],
)
def test_bad_files_are_told_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message.replace(".", "\\.")) as error:
        read_dataset(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_missing_file_and_hub_id_without_network(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a file here"):
        read_dataset(str(tmp_path / "none.jsonl"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'someone/data' is no file here and cannot be had from the hub"):
        read_dataset("someone/data")


@pytest.mark.parametrize("row", [TALK_ROW, MESSAGES_ROW])
def test_text_goes_through_the_chat_template(row, tokenizer):
    wanted = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    assert row_text(row, tokenizer) == wanted
    assert row_text(TEXT_ROW, tokenizer) == "HiHello"
    assert row_text({"text": "plain"}, tokenizer) == "plain"


def test_padding_sides(tokenizer):
    for side, mask in (("right", [1, 0]), ("left", [0, 1])):
        batch = pad([[5, 6], [7]], tokenizer, side)
        assert batch["attention_mask"][1].tolist() == mask
        assert batch["input_ids"][1][batch["attention_mask"][1].bool()].tolist() == [7]


def test_calibration_batches_hold_every_token_once(tokenizer):
    rows = Dataset.from_list([{"text": "ab" * length} for length in (5, 1, 3, 9)])
    batches = calibration_batches(rows, tokenizer, batch_size=3, max_length=10)
    lengths = [length for batch in batches for length in batch["attention_mask"].sum(1).tolist()]
    assert sorted(lengths, reverse=True) == lengths == [10, 10, 6, 2]
    with pytest.raises(InputError, match="two tokens"):
        calibration_batches(Dataset.from_list([{"text": "a"}]), tokenizer, 3, 10)


def test_sample_is_a_seeded_subset_in_order():
    rows = Dataset.from_list([{"text": str(number)} for number in range(50)])
    drawn = sample(rows, 10, seed=1)["text"]
    assert drawn == sample(rows, 10, seed=1)["text"] != sample(rows, 10, seed=2)["text"]
    assert sorted(drawn, key=int) == list(drawn)
    assert sample(rows, 99, seed=1) is rows
