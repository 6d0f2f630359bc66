"""Rows that a model writes, with an engine that says what the test says."""

from dataclasses import replace

import pytest

from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.prompts import prompt_ids
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.synthesis import (
    DRAWS_PER_ROW,
    SynthesisSettings,
    check_user_end,
    synthesize_rows,
    user_prefix,
)
from trl_prune.errors import InputError


SETTINGS = SynthesisSettings(Sampling(batch_size=4, temperature=1.0), Sampling(batch_size=4))


class ScriptedEngine:
    """Draws users' turns by their number, and answers each with its own words reversed."""

    fingerprint = "scripted"

    def __init__(self, tokenizer, drawn, answer=lambda text: " ".join(reversed(text.split())), calls=1000):
        self.tokenizer, self.drawn, self.answer, self.calls = tokenizer, drawn, answer, calls
        self.prefix = user_prefix(tokenizer, {})

    def generate(self, prompts, sampling):  # noqa: ARG002
        for index, prompt in enumerate(prompts):
            if self.calls == 0:
                raise KeyboardInterrupt
            self.calls -= 1
            if prompt.ids == self.prefix:
                yield {index: self.drawn(prompt.sample)}
            else:
                assert prompt.ids == prompt_ids(self.tokenizer, prompt.messages)
                yield {index: Answer(self.answer(prompt.messages[0]["content"]), True)}

    def close(self):
        pass


def question(sample):
    return Answer(f"  What is number {sample} of them? ", True)


def written(folder, tokenizer, count, engine):
    return synthesize_rows(count, AnswerGenerator(engine, tokenizer, folder), SETTINGS)


def test_the_prefix_is_what_stands_before_a_users_words(tokenizer):
    prefix = user_prefix(tokenizer, {})
    one, other = (prompt_ids(tokenizer, [{"role": "user", "content": text}]) for text in ("Why?", "How so?"))
    assert one[: len(prefix)] == other[: len(prefix)] == prefix
    assert tokenizer.decode(one[len(prefix) : len(prefix) + 4]) == "Why?"


def test_each_row_is_a_users_turn_and_the_models_answer(tmp_path, tokenizer):
    result = written(tmp_path, tokenizer, 6, ScriptedEngine(tokenizer, question))
    assert result.rows == [
        {
            "prompt": [{"role": "user", "content": f"What is number {index} of them?"}],
            "completion": [{"role": "assistant", "content": f"them? of {index} number is What"}],
        }
        for index in range(6)
    ]
    assert (result.drawn, result.rejected) == (8, {})  # whole batches are drawn


def test_faulty_and_repeated_turns_are_replaced_by_others_and_counted(tmp_path, tokenizer):
    def drawn(sample):
        texts = {1: "what is NUMBER 0  of them?", 2: "...", 3: "word " * 60}
        return replace(question(sample), text=texts.get(sample, question(sample).text), finished=sample != 4)

    def answer(text):
        return "I'm sorry, but I can't help with that." if " 5 " in text else "It is so."

    result = written(tmp_path, tokenizer, 6, ScriptedEngine(tokenizer, drawn, answer))
    numbers = [row["prompt"][0]["content"].split()[3] for row in result.rows]
    assert numbers == ["0", "6", "7", "8", "9", "10"]
    assert result.rejected == {
        "prompt: duplicate": 1,
        "prompt: empty": 1,
        "prompt: repetition": 1,
        "prompt: truncated": 1,
        "answer: refusal": 1,
    }


def test_an_interrupted_run_ends_with_the_same_rows_and_draws_nothing_twice(tmp_path, tokenizer):
    whole = written(tmp_path / "whole", tokenizer, 6, ScriptedEngine(tokenizer, question))
    calls = 0
    for _ in range(20):
        engine = ScriptedEngine(tokenizer, question, calls=3)
        try:
            result = written(tmp_path / "broken", tokenizer, 6, engine)
            break
        except KeyboardInterrupt:
            calls += 3
    assert result == whole
    assert calls + 3 - engine.calls == 16  # eight turns, eight answers


def test_thoughts_are_no_part_of_the_answer(tmp_path, tokenizer):
    engine = ScriptedEngine(tokenizer, question, lambda text: f"<think>\n{text}\n</think>\n\nYes, it is.")
    rows = written(tmp_path, tokenizer, 2, engine).rows
    assert [row["completion"][0]["content"] for row in rows] == ["Yes, it is."] * 2


def test_a_model_that_repeats_itself_ends_with_the_rows_there_are(tmp_path, tokenizer):
    result = written(tmp_path, tokenizer, 4, ScriptedEngine(tokenizer, lambda sample: question(sample % 2)))
    assert (len(result.rows), result.drawn) == (2, 4 * DRAWS_PER_ROW)


def test_a_model_without_a_usable_turn_is_said(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"of 16 users' turns .* none gave a row: {'prompt: truncated': 16}"):
        written(tmp_path, tokenizer, 4, ScriptedEngine(tokenizer, lambda sample: Answer(f"{sample} is", False)))


def test_without_a_chat_template_there_are_no_users_turns(tokenizer):
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(InputError, match="no chat template"):
        user_prefix(bare, {})


def test_a_users_turn_ends_as_an_answer_does(tokenizer):
    check_user_end(tokenizer, {tokenizer.eos_token_id}, {})
    with pytest.raises(InputError, match=r"ends a user's turn with '<\|im_end\|>'"):
        check_user_end(tokenizer, {tokenizer.pad_token_id}, {})
