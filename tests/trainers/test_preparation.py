import pytest
from datasets import Dataset
from trl import SFTConfig

from tests.conftest import ROWS, tiny_tokenizer
from trl_prune import KDConfig, KDTrainer
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.arms.training import build_trainer
from trl_prune.trainers.preparation import messages_to_prompt_completion, preparation_args, prepare_rows


MESSAGES = [{"messages": [*row["prompt"], *row["completion"]]} for row in ROWS]
TEXT = [{"text": row["completion"][0]["content"]} for row in ROWS]
ARGS = {"use_cpu": True, "bf16": False, "max_length": 48, "seed": 3, "gradient_checkpointing": False}


@pytest.mark.parametrize("rows", [ROWS, MESSAGES, TEXT])
@pytest.mark.parametrize(
    "args",
    [
        {},
        {"completion_only_loss": False, "max_length": 20},
        {"packing": True},
        {"packing": True, "packing_strategy": "wrapped", "shuffle_dataset": True},
        {"padding_free": True, "max_length": None},
    ],
)
def test_rows_equal_those_that_an_arms_trainer_prepares(dense, tmp_path, rows, args):
    args = ARGS | args
    trainer = build_trainer(ArmSettings(dense, tmp_path / "arm", args), Dataset.from_list(rows))
    prepared = prepare_rows(Dataset.from_list(rows), args, tiny_tokenizer(), answers_only=True)
    check_equal(prepared, trainer.train_dataset)


def check_equal(prepared, expected):
    assert ("seq_lengths" in prepared.column_names) == ("seq_lengths" in expected.column_names)
    for name in prepared.column_names:
        assert prepared[name] == expected[name]


def test_outside_recipes_the_loss_of_messages_is_on_full_conversations_as_in_sft(dense, tmp_path):
    config = KDConfig(str(tmp_path), report_to="none", **ARGS)
    data = Dataset.from_list(MESSAGES)
    trainer = KDTrainer(str(dense), config, train_dataset=data, teacher_model=str(dense))
    check_equal(prepare_rows(data, ARGS, tiny_tokenizer()), trainer.train_dataset)


def test_messages_are_unchanged_where_the_user_sets_the_loss_or_a_row_has_no_answer(tmp_path, caplog):
    data = Dataset.from_list(MESSAGES)
    config = SFTConfig(str(tmp_path), use_cpu=True, bf16=False)
    assert set(messages_to_prompt_completion(data, config).column_names) == {"prompt", "completion"}
    everywhere = SFTConfig(str(tmp_path), use_cpu=True, bf16=False, completion_only_loss=False)
    assert messages_to_prompt_completion(data, everywhere) is data
    unanswered = Dataset.from_list([*MESSAGES, {"messages": MESSAGES[0]["messages"][:-1]}])
    assert messages_to_prompt_completion(unanswered, config) is unanswered
    assert "the loss covers the full conversations" in caplog.text


def test_preparation_args_are_those_that_determine_rows():
    assert preparation_args({"max_length": 8, "learning_rate": 1.0, "packing": True}) == {
        "max_length": 8,
        "packing": True,
    }
