import gzip
import json
import lzma

import pytest
from datasets import Dataset, DatasetDict, Value, disable_progress_bars
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.test_normal_rows import JSON, ROW
from trl_prune.data.batches import calibration_batches
from trl_prune.data.normal_rows import RowFault
from trl_prune.data.reading import RowError, dataset_commit, normal_dataset, read_dataset
from trl_prune.data.rendering import TemplateAcceptance, row_text
from trl_prune.errors import InputError


ROW_OF_TEXT = {"prompt": "Hi", "completion": "Hello"}
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CONVERSATIONAL_ROW = {"prompt": [USER], "completion": [ANSWER]}
LINE = json.dumps(ROW_OF_TEXT).encode()


@pytest.fixture(autouse=True)
def _quiet():
    disable_progress_bars()


def write(folder, name, *rows):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    content = rows[0] if rows and isinstance(rows[0], bytes) else "\n".join(map(json.dumps, rows)).encode()
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_files_of_several_types_give_the_same_rows(tmp_path):
    rows = [CONVERSATIONAL_ROW | {"n": number} for number in range(3)]
    write(tmp_path, "rows.json", json.dumps(rows, indent=1).encode())
    write(tmp_path, "rows.jsonl.gz", gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list(rows[:1])).save_to_disk(tmp_path / "splits")
    (tmp_path / "rows.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n \n")
    for name in ("rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.parquet", "saved", "splits"):
        assert list(read_dataset(str(tmp_path / name))) == rows, name
    assert len(read_dataset(str(tmp_path / "splits"), split="test")) == 1
    with pytest.raises(InputError, match="has no split 'dev'; allowed: train, test"):
        read_dataset(str(tmp_path / "splits"), split="dev")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows", LINE),
        ("rows.ndjson", LINE),
        ("rows.txt", LINE),
        ("with [brackets] *.jsonl", LINE),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINE),
        ("windows.jsonl", LINE + b"\r\n"),
        ("array.json", b"[" + LINE + b"]"),
        ("object.json", json.dumps(ROW_OF_TEXT, indent=1).encode()),
        ("rows.csv", b"prompt,completion\nHi,Hello\n"),
        ("rows [1].csv", b"prompt,completion\nHi,Hello\n"),
        ("rows.tsv", b"prompt\tcompletion\nHi\tHello\n"),
        ("rows.csv.gz", gzip.compress(b"prompt,completion\nHi,Hello\n", mtime=0)),
    ],
)
def test_rows_under_any_name(tmp_path, name, content):
    assert list(read_dataset(write(tmp_path, name, content))) == [ROW_OF_TEXT]


def test_texts_are_a_row_each(tmp_path):
    for name, content in (("a.txt", b"one two\nthree"), ("a.json", b'["one two", "three"]')):
        assert list(read_dataset(write(tmp_path, name, content))) == [{"text": "one two"}, {"text": "three"}]


def test_cells_of_csv_are_the_texts_that_stand_there(tmp_path):
    path = write(tmp_path, "rows.csv", b"prompt,completion,n\n1+6,007,3\nwho,None,4\n")
    assert [row["completion"] for row in read_dataset(path)] == ["007", "None"]
    with pytest.raises(RowError, match="row 0: column completion is null"):
        read_dataset(write(tmp_path, "rows.csv", b"prompt,completion\n1+6,\n"))


def test_patterns_and_folders_are_read_file_by_file(tmp_path):
    write(tmp_path, "data/train-1.jsonl", ROW_OF_TEXT)
    write(tmp_path, "data/train-2.jsonl", {"text": "a"}, {"text": "b"})
    write(tmp_path, "data/test.jsonl", {"text": "c"})
    assert read_dataset(str(tmp_path / "data" / "train-*.jsonl"))["text"] == [None, "a", "b"]
    assert read_dataset(str(tmp_path / "data"))["text"] == [None, "a", "b"]
    assert read_dataset(str(tmp_path / "data"), split="test")["text"] == ["c"]
    with pytest.raises(InputError, match="has no split 'dev'; allowed: train, test"):
        read_dataset(str(tmp_path / "data"), split="dev")
    with pytest.raises(InputError, match="is a pattern that no local file has"):
        read_dataset(str(tmp_path / "data" / "*.parquet"))
    write(tmp_path, "data/train-2.jsonl", {"text": "a"}, {"text": None})
    with pytest.raises(RowError, match="file 'train-2.jsonl', line 2: column text is null"):
        read_dataset(str(tmp_path / "data" / "train-*.jsonl"))


def test_columns_that_only_later_rows_have_are_kept(tmp_path):
    dataset = read_dataset(write(tmp_path, "rows.jsonl", ROW_OF_TEXT, ROW_OF_TEXT | {"answer_type": "open"}))
    assert dataset["answer_type"] == [None, "open"]


def test_unicode_line_separators_do_not_split_rows(tmp_path):
    row = {"prompt": "a\u2028b", "completion": "c\u0085d"}
    assert list(read_dataset(write(tmp_path, "rows.jsonl", json.dumps(row, ensure_ascii=False).encode()))) == [row]


def test_values_of_mixed_types_and_tool_arguments_come_out_as_they_stood(tmp_path):
    calls = [{"word": "ice", "date": "2024-01-01"}, {"b": [1, 2.5], "a": "42", "note": None}]
    rows = [
        {
            "messages": [
                USER,
                {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": call}}]},
                {"role": "tool", "content": "42", "name": "f"},
                ANSWER,
            ],
            "answer": answer,
        }
        for call, answer in zip(calls, (3, "42"), strict=True)
    ]
    path = write(tmp_path, "rows.jsonl", *rows)
    assert repr(list(read_dataset(path))) == repr(rows)


def test_formats_may_be_mixed_and_each_row_has_its_own_columns_only(tmp_path):
    rows = [ROW_OF_TEXT, {"messages": [USER, ANSWER], "text": "as text"}, CONVERSATIONAL_ROW, {"text": "a"}]
    found = [
        {name: value for name, value in row.items() if value is not None}
        for row in read_dataset(write(tmp_path, "rows.jsonl", *rows))
    ]
    assert found == [ROW_OF_TEXT, {"messages": [USER, ANSWER]}, CONVERSATIONAL_ROW, {"text": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", "is empty"),
        ("rows.jsonl", "\n \n", "is empty"),
        ("rows.jsonl", "{broken", "line 1: the row is no JSON"),
        ("rows.jsonl", "[1, 2]", "row 0: the row is 1; wanted: an object"),
        ("rows.json", '[{"text": "a"},', "cannot be read: the row is no JSON"),
        ("rows.csv", "a,b\n1,2", "has the columns a, b; wanted"),
        ("rows.parquet", "not parquet", "cannot be read"),
        ("rows.jsonl", '{"question": "a"}', "has the columns question; wanted"),
        ("rows.jsonl", '{"text": "a", "n": 1e400}\n{"text": "a", "n": ' + "9" * 30 + "}", "row 1, column 'n', holds"),
        ("rows.jsonl", "[" * 100_000, "is no JSON"),
        ("rows.jsonl", '{"text": "caf\xe9"}', "line 1: the row is no UTF-8"),
        ("rows.json", '{"text":\n"caf\xe9"}', "line 1: the row is no JSON"),
    ],
)
def test_invalid_files_give_a_one_line_error(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message.replace(".", "\\.")) as error:
        read_dataset(write(tmp_path, name, content.encode("latin-1")))
    assert "\n" not in str(error.value)


CUT = {"plain": LINE, "empty": b"", "gz": gzip.compress(LINE * 9)[:30], "xz": lzma.compress(LINE * 9)[:40]}


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.bz2", "rows.jsonl.xz", "rows.jsonl.zip"])
@pytest.mark.parametrize("content", CUT)
def test_a_file_that_is_not_compressed_as_its_name_says_is_one_sentence(tmp_path, name, content):
    with pytest.raises(InputError) as error:
        read_dataset(write(tmp_path, name, CUT[content]))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_zstandard_is_read_by_a_package_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("fsspec.available_compressions", lambda: ["gzip"])
    with pytest.raises(InputError, match="rows.jsonl.zst' is compressed by Zstandard.*pip install zstandard"):
        read_dataset(write(tmp_path, "rows.jsonl.zst", b"\x28\xb5\x2f\xfd"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_columns_that_a_trainer_would_take_for_tokens_or_images_are_left_out_and_said(tmp_path, caplog, name):
    rows = [{"text": "a", "labels": 1, "input_ids": "x", "images": None, "n": 2}] * 2
    path = write(tmp_path, name, *rows)
    if name.endswith("parquet"):
        Dataset.from_list(rows).to_parquet(path)
    assert list(read_dataset(path)) == [{"text": "a", "n": 2}] * 2
    assert "input_ids, labels, images left out" in caplog.text


def test_rows_that_cannot_be_used_stop_with_their_line_or_are_skipped_and_counted(tmp_path, caplog):
    good = json.dumps({"text": "a"}).encode()
    path = write(tmp_path, "rows.jsonl", b"\n".join([good, b"", b"{broken", good, b'{"text": "\xe9"}']))
    with pytest.raises(RowError, match="line 3: the row is no JSON.*1 more of 4 rows cannot be used"):
        read_dataset(path)
    assert list(read_dataset(path, on_error="skip")) == [{"text": "a"}] * 2
    assert caplog.text.count("2 of 4 rows are skipped, the first of them") == 1
    with pytest.raises(RowError, match="has no row that can be used: .* line 1: column text is 1"):
        read_dataset(write(tmp_path, "rows.jsonl", {"text": 1}), on_error="skip")


def test_the_caller_may_change_or_refuse_a_normal_row(tmp_path):
    def accept(row):
        if row["text"] == "b":
            raise RowFault("text", "'b'", "another letter")
        return {"text": row["text"].upper()}

    rows = [{"text": letter} for letter in "abc"]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    for path in (write(tmp_path, "rows.jsonl", *rows), str(tmp_path / "rows.parquet")):
        assert read_dataset(path, on_error="skip", accept=accept)["text"] == ["A", "C"]
        with pytest.raises(RowError, match="column text is 'b'; wanted: another letter"):
            read_dataset(path, accept=accept)


def test_a_normal_dataset_stays_as_it_is_stored():
    rows = Dataset.from_list([CONVERSATIONAL_ROW | {"n": 1}, CONVERSATIONAL_ROW | {"n": None}])
    assert normal_dataset(rows) is rows


def test_a_table_keeps_what_is_normal_beside_what_changes():
    spelt = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    rows = Dataset.from_list([{"conversations": spelt, "n": 1, "text": "as text"}] * 2)
    found = normal_dataset(rows)
    assert list(found) == [{"messages": [USER, ANSWER], "n": 1}] * 2
    assert found.features["n"] == Value("int64")


ANY_ROWS = st.lists(ROW | JSON, min_size=1, max_size=4)
ON_ERROR = st.sampled_from(["stop", "skip"])


@settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ANY_ROWS, ON_ERROR)
def test_any_rows_end_in_rows_or_in_one_sentence(tmp_path, rows, on_error):
    _check_rows_or_sentence(tmp_path, rows, on_error)


@pytest.mark.slow
@settings(
    max_examples=1000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ANY_ROWS, ON_ERROR)
def test_any_of_many_rows_is_read_or_refused_and_then_read_by_a_model(tmp_path, tokenizer, rows, on_error):
    accept = TemplateAcceptance(lambda: tokenizer, {})
    found = _check_rows_or_sentence(tmp_path, rows, on_error, accept)
    if isinstance(found, Dataset) and max(len(row_text(row, tokenizer)) for row in found) > 1:
        assert calibration_batches(found, tokenizer, 2, 16)


def _check_rows_or_sentence(folder, rows, on_error, accept=None):
    path = write(folder, "rows.jsonl", "\n".join(map(json.dumps, rows)).encode())
    found = _rows_or_sentence(path, on_error, accept)
    if isinstance(found, str):
        assert "\n" not in found
        assert any(word in found for word in (" line ", " row ", " is empty"))
    else:
        assert len(found) > 0  # more than lines, where the first is an array of texts
        assert list(normal_dataset(found)) == list(found)
    return found


def _rows_or_sentence(path, on_error, accept):
    try:
        return read_dataset(path, on_error=on_error, accept=accept)
    except InputError as error:
        return str(error)


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
