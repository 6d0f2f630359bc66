"""Texts of prompts with a model's answers: what they hold, and which positions count."""

from datasets import Dataset

from trl_prune.data.answered_prompts import answered, answered_batches, row_prompts
from trl_prune.data.generation.sampling import Answer
from trl_prune.losses.positions import COUNTED


def test_prompts_are_what_stands_before_the_last_answer(rows, tokenizer):
    conversation = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
    ]
    (prompt,) = row_prompts(Dataset.from_list([{"messages": conversation}]), tokenizer, {}, 500)
    expected = tokenizer.apply_chat_template(conversation[:3], add_generation_prompt=True, return_dict=False)
    assert prompt.ids == expected
    assert prompt.messages == conversation[:3]
    assert len(row_prompts(Dataset.from_list(rows), tokenizer, {}, 500)) == len(rows)


def test_rows_without_an_answer_and_long_prompts_are_left_out(rows, tokenizer):
    assert row_prompts(Dataset.from_list([{"text": "plain"}]), tokenizer, {}, 500) == []
    lengths = [len(prompt.ids) for prompt in row_prompts(Dataset.from_list(rows), tokenizer, {}, 500)]
    kept = row_prompts(Dataset.from_list(rows), tokenizer, {}, min(lengths))
    assert len(kept) == lengths.count(min(lengths))


def test_the_answer_and_its_end_count_where_they_are_predicted(rows, tokenizer):
    prompts = row_prompts(Dataset.from_list(rows[:4]), tokenizer, {}, 500)
    answers = [Answer("12", True), Answer(" \n", True), Answer("abcd", False), Answer("", True)]
    texts = answered(prompts, answers, tokenizer)
    assert len(texts) == 2
    batches = answered_batches(texts, tokenizer, 1)
    by_length = sorted(zip(texts, [0, 2], strict=True), key=lambda pair: len(pair[0].ids), reverse=True)
    for batch, (text, index) in zip(batches, by_length, strict=True):
        assert batch["input_ids"][0].tolist() == text.ids
        next_ids = [text.ids[position + 1 : position + 2] for position in batch[COUNTED][0].nonzero().flatten()]
        predicted = [token for ids in next_ids for token in ids]
        end = [tokenizer.eos_token_id] * answers[index].finished
        assert predicted == tokenizer(answers[index].text)["input_ids"] + end
    padded = answered_batches(texts, tokenizer, 2)[0]
    assert not (padded[COUNTED] & ~padded["attention_mask"].bool()).any()
    assert padded[COUNTED].sum() == sum(batch[COUNTED].sum() for batch in batches)
