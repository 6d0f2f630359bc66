import pytest
from datasets import Dataset

from trl_prune.data.batches import calibration_batches, num_texts, pad, rows_in_one_text, sample
from trl_prune.errors import InputError


def test_padding_sides(tokenizer):
    for side, mask in (("right", [1, 0]), ("left", [0, 1])):
        batch = pad([[5, 6], [7]], tokenizer, side)
        assert batch["attention_mask"][1].tolist() == mask
        assert batch["input_ids"][1][batch["attention_mask"][1].bool()].tolist() == [7]


def test_calibration_batches_hold_every_row_once(tokenizer):
    rows = Dataset.from_list([{"text": "ab" * length} for length in (5, 1, 3, 9)])
    batches = calibration_batches(rows, tokenizer, batch_size=3, max_length=10)
    lengths = [length for batch in batches for length in batch["attention_mask"].sum(1).tolist()]
    assert sorted(lengths, reverse=True) == lengths == [10, 10, 6, 2]
    with pytest.raises(InputError, match="two tokens"):
        calibration_batches(Dataset.from_list([{"text": "a"}]), tokenizer, 3, 10)


def test_sample_is_a_seeded_subset_in_order():
    rows = Dataset.from_list([{"text": str(number)} for number in range(50)])
    sampled = sample(rows, 10, seed=1)["text"]
    assert sampled == sample(rows, 10, seed=1)["text"] != sample(rows, 10, seed=2)["text"]
    assert sorted(sampled, key=int) == list(sampled)
    assert sample(rows, 99, seed=1) is rows


def test_rows_of_one_text_are_examples_without_a_chat_template():
    rows = [
        {
            "prompt": [{"role": "user", "content": f"{n} + 1?"}],
            "completion": [{"role": "assistant", "content": str(n + 1)}],
        }
        for n in range(5)
    ]
    texts = rows_in_one_text(Dataset.from_list(rows), 2)["text"]
    assert texts == ["0 + 1?\n1\n\n1 + 1?\n2", "2 + 1?\n3\n\n3 + 1?\n4"]
    assert rows_in_one_text(Dataset.from_list(rows[:1]), 2)["text"] == ["0 + 1?\n1"]
    plain = Dataset.from_list([{"prompt": "2 + 2 =", "completion": " 4\n"}, {"prompt": "1 + 2 =", "completion": " 3"}])
    assert rows_in_one_text(plain, 2)["text"] == ["2 + 2 = 4\n\n1 + 2 = 3"]
    assert rows_in_one_text(plain, 1) is plain


def test_rows_of_one_text_are_sorted_by_the_capability_that_they_name():
    names = ["b", "a", None, "a", "b", None, "a"]
    rows = [{"text": f"{number}{name}", "capability": name} for number, name in enumerate(names)]
    texts = rows_in_one_text(Dataset.from_list(rows), 2)["text"]
    assert texts == ["2None\n\n5None", "1a\n\n3a", "6a\n\n0b"]


@pytest.mark.parametrize(("rows", "count", "texts"), [(0, 2, 0), (1, 2, 1), (2, 2, 1), (5, 2, 2), (5, 1, 5)])
def test_texts_that_rows_make_are_counted_as_they_are_made(rows, count, texts):
    made = rows_in_one_text(Dataset.from_dict({"text": ["one"] * rows}), count)
    assert len(made) == num_texts(rows, count) == texts
