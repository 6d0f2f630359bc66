import pytest
from datasets import Dataset

from trl_prune.data.batches import calibration_batches, pad, sample
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
