import json

import pytest
from datasets import Dataset

from trl_prune.data.reading import dataset_commit, read_dataset
from trl_prune.errors import InputError


ROW = {"prompt": "Hi", "completion": "Hello"}
CONVERSATIONAL_ROW = {
    "prompt": [{"role": "user", "content": "Hi"}],
    "completion": [{"role": "assistant", "content": "Hello"}],
}


def test_jsonl_json_and_parquet_give_the_same_rows(tmp_path):
    rows = [CONVERSATIONAL_ROW | {"n": number} for number in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.json", "rows.parquet"):
        assert list(read_dataset(str(tmp_path / name))) == rows


def test_columns_that_only_later_rows_have_are_kept(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"answer_type": "open"}))
    dataset = read_dataset(str(tmp_path / "rows.jsonl"))
    assert dataset["answer_type"] == [None, "open"]


def test_unicode_line_separators_do_not_split_rows(tmp_path):
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
def test_invalid_files_give_a_one_line_error(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message.replace(".", "\\.")) as error:
        read_dataset(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_missing_file_and_hub_id_without_network(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a local file"):
        read_dataset(str(tmp_path / "none.jsonl"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'someone/data' is not a local file and cannot be loaded from the Hub"):
        read_dataset("someone/data")


def test_a_hub_that_cannot_be_reached_tells_no_commit(monkeypatch):
    # Nothing listens there; the client's own error is none of Python's.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert dataset_commit("someone/rows") is None
