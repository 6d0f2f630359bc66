from datetime import date

import pytest
from datasets import Dataset, concatenate_datasets
from trl import SFTConfig, SFTTrainer

from tests.conftest import ROWS, tiny_tokenizer
from trl_prune import KDConfig, KDTrainer, SelfDistillSFTConfig, SelfDistillSFTTrainer
from trl_prune.data.columns import dataset_from_rows
from trl_prune.data.rewriting.requests import Asking, rewriting_request
from trl_prune.data.rewriting.turns import turns
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED
from trl_prune.trainers.arms.settings import ArmSettings
from trl_prune.trainers.arms.training import build_trainer
from trl_prune.trainers.preparation import (
    messages_to_prompt_completion,
    preparation_args,
    prepare_rows,
    prepare_source,
    with_chat_template_kwargs,
    without_masks,
)


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


def sft_config(folder, **args):
    return SFTConfig(str(folder), report_to="none", **ARGS | args)


def test_messages_are_unchanged_where_the_user_sets_the_loss(tmp_path):
    data, everywhere = Dataset.from_list(MESSAGES), sft_config(tmp_path, completion_only_loss=False)
    assert set(messages_to_prompt_completion(data, sft_config(tmp_path)).column_names) == {"prompt", "completion"}
    assert messages_to_prompt_completion(data, everywhere) is data


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}
FIRST = MESSAGES[0]["messages"]


@pytest.mark.parametrize(
    ("messages", "prompt", "completion"),
    [
        (FIRST, FIRST[:1], FIRST[1:]),
        ([*FIRST, FIRST[0]], FIRST[:1], FIRST[1:]),
        ([*FIRST, FIRST[0], {"role": "assistant", "content": " "}], FIRST[:1], FIRST[1:]),
        ([FIRST[0], CALL], FIRST[:1], [CALL]),
        ([*FIRST, *FIRST], [*FIRST, FIRST[0]], FIRST[1:]),
    ],
)
def test_the_loss_is_on_each_rows_own_last_answer_whatever_other_rows_are(
    tmp_path, caplog, messages, prompt, completion
):
    odd = [[{"role": "system", "content": "Be brief."}], FIRST[:1]]
    data = dataset_from_rows([{"messages": messages}, *({"messages": row} for row in odd), MESSAGES[1]])
    found = list(messages_to_prompt_completion(data, sft_config(tmp_path)))
    other = MESSAGES[1]["messages"]
    assert found == [{"prompt": prompt, "completion": completion}, {"prompt": other[:1], "completion": other[1:]}]
    assert "2 of 4 rows are left out: no message of an assistant's is there to learn" in caplog.text
    with pytest.raises(InputError, match="none of the 2 rows has an answer of an assistant's to learn"):
        messages_to_prompt_completion(dataset_from_rows([{"messages": row} for row in odd]), sft_config(tmp_path))


PLAIN = [{"prompt": "1 + 1 = ", "completion": "2"}, {"prompt": "1 + 2 = ", "completion": "3"}]
ANSWER_FIRST = {"messages": FIRST[1:]}


@pytest.mark.parametrize(
    "args",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"max_length": 30},
        {"packing": True},
        pytest.param({"completion_only_loss": False}, marks=pytest.mark.slow),
    ],
)
def test_rows_of_several_formats_are_each_prepared_as_trl_prepares_them_alone(dense, tmp_path, args):
    rows = [PLAIN[0], ROWS[0], TEXT[0], MESSAGES[2], ANSWER_FIRST]
    trainer = build_trainer(ArmSettings(dense, tmp_path / "arm", ARGS | args), dataset_from_rows(rows))
    alone = []
    for row in rows:
        split = messages_to_prompt_completion(Dataset.from_list([row]), sft_config(tmp_path, **args))
        unpacked = sft_config(tmp_path, **args | {"packing": False})
        trained = SFTTrainer(
            str(dense), unpacked, train_dataset=split, processing_class=tiny_tokenizer()
        ).train_dataset
        alone += list(trained.select_columns(["input_ids", "labels"]))
    assert sequences(trainer.train_dataset) == sequences(alone)
    if not args.get("packing"):
        assert trainer.train_dataset["labels"][:] == [row["labels"] for row in alone]


@pytest.mark.parametrize("trainer_class", [KDTrainer, SelfDistillSFTTrainer])
def test_trainers_of_their_own_take_any_rows_and_evaluate_on_any(dense, tmp_path, trainer_class):
    config_class = KDConfig if trainer_class is KDTrainer else SelfDistillSFTConfig
    extra = {} if trainer_class is KDTrainer else {"rewrite": False}
    parts = [{"type": "text", "text": "Hi"}]
    rows = dataset_from_rows([{"messages": [{"role": "user", "content": parts}, FIRST[1]]}, PLAIN[0], TEXT[0]])
    config = config_class(str(tmp_path), report_to="none", eval_strategy="epoch", **ARGS | extra)
    trainer = trainer_class(
        str(dense),
        config,
        train_dataset=rows,
        eval_dataset={"plain": Dataset.from_list(PLAIN)},
        teacher_model=str(dense),
    )
    assert len(trainer.train_dataset) == 3
    assert "Hi" in tiny_tokenizer().decode(trainer.train_dataset[0]["input_ids"])
    learned = [label for label in trainer.eval_dataset["plain"][0]["labels"] if label != MASKED]
    assert tiny_tokenizer().decode(learned) == "2<|im_end|>"
    broken = Dataset.from_list([PLAIN[0], PLAIN[1] | {"completion": None}])
    with pytest.raises(InputError, match=r"row 1: column completion is null; wanted: text"):
        trainer_class(str(dense), config, train_dataset=broken, teacher_model=str(dense))


def test_rows_whose_prompts_fill_the_length_are_counted_and_all_of_them_are_an_error(dense, tmp_path, caplog):
    rows = Dataset.from_list([*PLAIN, {"prompt": "x" * 60, "completion": "y"}])
    trainer = build_trainer(ArmSettings(dense, tmp_path / "arm", ARGS), rows)
    assert len(trainer.train_dataset) == 2
    assert "1 of 3 rows are left out: their prompts fill max_length 48" in caplog.text
    with pytest.raises(InputError, match="max_length is 4, and the prompts of all 3 rows fill it"):
        build_trainer(ArmSettings(dense, tmp_path / "arm", ARGS | {"max_length": 4}), rows)


def test_preparation_args_are_those_that_determine_rows():
    assert preparation_args({"max_length": 8, "learning_rate": 1.0, "packing": True}) == {
        "max_length": 8,
        "packing": True,
    }


@pytest.mark.parametrize("rows", [ROWS, MESSAGES])
def test_a_source_has_its_loss_on_answers_or_on_every_token(rows):
    answers, everywhere = (
        prepare_source(Dataset.from_list(rows), ARGS | {"max_length": None}, tiny_tokenizer(), every_token)
        for every_token in (False, True)
    )
    assert answers["input_ids"] == everywhere["input_ids"] == everywhere["labels"]
    for row, prepared in zip(ROWS, answers, strict=True):
        learned = [label for label in prepared["labels"] if label != MASKED]
        assert tiny_tokenizer().decode(learned) == row["completion"][0]["content"] + "<|im_end|>\n"


def sequences(rows):
    """Return the sequences of prepared rows with their labels, in an order of their own."""
    found = []
    for row in rows:
        start = 0
        for length in row.get("seq_lengths") or [len(row["input_ids"])]:
            ends = slice(start, start + length)
            found.append((row["input_ids"][ends], row["labels"][ends]))
            start += length
    return sorted(found)


@pytest.mark.parametrize("method", ["sft", "kd"])
@pytest.mark.parametrize(
    "args",
    [
        {},
        {"assistant_only_loss": True},
        {"truncation_mode": "keep_end"},
        {"packing": True},
        {"packing": True, "max_length": 512},
        {"packing": True, "packing_strategy": "bfd_split", "max_length": 512},
        {"padding_free": True, "max_length": None},
    ],
)
def test_sources_of_other_formats_and_masks_are_trained_on_together(dense, tmp_path, args, method):
    """The trainer neither masks, truncates nor drops a token of prepared rows, and packs all sources together."""
    args = ARGS | args
    rows = (ROWS, MESSAGES) if "assistant_only_loss" not in args else (MESSAGES, MESSAGES)
    sources = [(rows[0], False), (rows[1], True), (TEXT, True)]
    prepared = [prepare_source(Dataset.from_list(rows), args, tiny_tokenizer(), every) for rows, every in sources]
    mix = concatenate_datasets(prepared)
    settings = ArmSettings(dense, tmp_path / "arm", without_masks(args), method=method, teacher=dense)
    trainer = build_trainer(settings, mix)
    assert sequences(trainer.train_dataset) == sequences(mix)
    assert (len(trainer.train_dataset) < len(mix)) == ("packing" in args and args["max_length"] == 512)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    assert (batch["labels"] != MASKED).any()
    longest = max(map(len, mix["input_ids"]))
    assert longest == 48 if args["max_length"] == 48 else longest > 48


def test_wrapped_packing_keeps_every_token_of_a_mix(dense, tmp_path):
    args = ARGS | {"packing": True, "packing_strategy": "wrapped", "max_length": 32}
    mix = prepare_source(Dataset.from_list(ROWS), args, tiny_tokenizer(), every_token=False)
    trainer = build_trainer(ArmSettings(dense, tmp_path / "arm", args), mix)
    flat = [[token for row in rows["input_ids"] for token in row] for rows in (mix, trainer.train_dataset)]
    assert flat[0] == flat[1]


def thinking_tokenizer():
    """Return a tokenizer whose template asks for thoughts unless told otherwise, as Qwen3's."""
    tokenizer = tiny_tokenizer()
    thoughts = (
        "{%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
    )
    tokenizer.chat_template = tokenizer.chat_template.replace("{% generation %}", thoughts + "{% generation %}")
    end = "assistant\n' }}{%- endif %}"
    tokenizer.chat_template = tokenizer.chat_template.replace(end, f"assistant\n' }}}}{thoughts}{{%- endif %}}")
    return tokenizer


@pytest.mark.parametrize("rows", [ROWS, MESSAGES])
@pytest.mark.parametrize("every_token", [False, True])
def test_variables_of_the_chat_template_reach_the_tokens(rows, every_token):
    tokenizer, kwargs = thinking_tokenizer(), {"enable_thinking": False}
    plain = Dataset.from_list(rows)
    for data, options in ((plain, {}), (with_chat_template_kwargs(plain, kwargs), kwargs)):
        prepared = prepare_source(data, ARGS | {"max_length": None}, tokenizer, every_token)
        for row, (ids, labels) in zip(ROWS, sequences_in_order(prepared), strict=True):
            text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False, **options)
            assert tokenizer.decode(ids) == text
            assert ("</think>" in text) == bool(options)
            learned = tokenizer.decode([label for label in labels if label != MASKED])
            assert learned == (text if every_token else row["completion"][0]["content"] + "<|im_end|>\n")


def sequences_in_order(rows):
    return [(row["input_ids"], row["labels"]) for row in rows]


def with_column(rows, values):
    return Dataset.from_list([row | {"chat_template_kwargs": value} for row, value in zip(rows, values, strict=True)])


def variables_of_each(values, count):
    """Return as many variables as rows: those given, then none."""
    return [*values, *[None] * (count - len(values))]


@pytest.mark.parametrize(
    "values",
    [
        [{"x": 1}, {"enable_thinking": True}, None],
        ['{"x": 1}', '{"enable_thinking": true, "x": null}', ""],
    ],
)
@pytest.mark.parametrize("rows", [ROWS, MESSAGES])
def test_each_row_is_trained_on_with_the_variables_that_it_was_rewritten_with(rows, values):
    """Arrow gives each row the keys of all; the recipe's value stands where the row has none of its own."""
    recipe = {"enable_thinking": False}
    data = with_column(rows, variables_of_each(values, len(rows)))
    merged = with_chat_template_kwargs(data, recipe)
    expected = [
        request_variables(row, recipe)
        for row in data.map(lambda row: row)  # what the dense model is asked with
    ]
    assert expected[:3] == [{"enable_thinking": False, "x": 1}, {"enable_thinking": True}, recipe]
    assert list(merged["chat_template_kwargs"]) == expected
    assert list(with_chat_template_kwargs(merged, {})["chat_template_kwargs"]) == expected
    tokenizer = thinking_tokenizer()
    prepared = prepare_source(merged, ARGS | {"max_length": None}, tokenizer, every_token=False)
    for row, options, ids in zip(ROWS, expected, prepared["input_ids"], strict=True):
        text = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False, **options)
        assert tokenizer.decode(ids) == text
        assert ("</think>" in text) == (not options["enable_thinking"])


def request_variables(row, recipe):
    (turn,) = turns(row)
    return rewriting_request(row, turn, Asking(chat_template_kwargs=recipe)).chat_template_kwargs


@pytest.mark.parametrize("rows", [ROWS, MESSAGES, TEXT])
def test_a_trainer_without_a_recipe_takes_a_column_with_nulls(dense, tmp_path, rows):
    """SelfDistillSFTTrainer converts rows so; a null alone makes TRL fail."""
    args = SFTConfig(str(tmp_path), report_to="none", **ARGS)
    plain = messages_to_prompt_completion(Dataset.from_list(rows), args)
    data = with_column(rows, variables_of_each([{"x": 1}, {"enable_thinking": True}], len(rows)))
    converted = messages_to_prompt_completion(data, args)
    trainers = [SFTTrainer(str(dense), args, train_dataset=data) for data in (plain, converted)]
    assert trainers[0].train_dataset["input_ids"][:] == trainers[1].train_dataset["input_ids"][:]


def test_variables_that_json_has_no_type_for_are_their_text():
    """YAML reads a date."""
    merged = with_chat_template_kwargs(Dataset.from_list(MESSAGES), {"date_string": date(2024, 7, 26)})
    assert merged[0]["chat_template_kwargs"] == {"date_string": "2024-07-26"}


def test_text_has_no_variables_and_without_any_rows_stay_as_they_are():
    kwargs = {"enable_thinking": False}
    text, plain = Dataset.from_list(TEXT), Dataset.from_list(MESSAGES)
    assert with_chat_template_kwargs(text, kwargs) is text
    assert with_chat_template_kwargs(plain, {}) is plain
    selected = with_chat_template_kwargs(plain.select([2, 1]), kwargs)
    assert selected["chat_template_kwargs"] == [kwargs, kwargs]
    assert selected["messages"] == [MESSAGES[2]["messages"], MESSAGES[1]["messages"]]
