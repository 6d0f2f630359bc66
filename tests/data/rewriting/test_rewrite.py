"""Rewriting with an engine that says what the test wants, and with a tiny real model."""

import threading
from collections import Counter

import pytest
from datasets import Dataset

from tests.conftest import tiny_model
from trl_prune.data.generation import generator as generator_module
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.transformers_engine import TransformersEngine
from trl_prune.data.rewriting.acceptance import Accepting
from trl_prune.data.rewriting.requests import Asking
from trl_prune.data.rewriting.rewrite import RewriteSettings, RewrittenDataset, rewrite_rows
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


SAMPLING = Sampling(max_new_tokens=8, batch_size=4)
GENERAL = Asking("general")
QUESTION, ANSWER = {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "It is 5."}


@pytest.fixture
def open_rows(rows):
    """The rows without the columns that choose how answers are checked."""
    return [{name: row[name] for name in ("prompt", "completion")} for row in rows]


def answer(text):
    return [{"role": "assistant", "content": text}]


class Scripted:
    """An engine whose answers a function of the prompt gives."""

    fingerprint = "scripted"

    def __init__(self, answer):
        self.answer, self.prompts, self.closed = answer, [], False

    def generate(self, prompts, sampling):  # noqa: ARG002
        for index, prompt in enumerate(prompts):
            self.prompts.append(prompt)
            yield {index: Answer(self.answer(prompt), True)}

    def close(self):
        self.closed = True


def rewrite(rows, engine, tokenizer, folder, **settings):
    settings = {"sampling": SAMPLING, "asking": GENERAL} | settings
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list(rows)
    return rewrite_rows(dataset, AnswerGenerator(engine, tokenizer, folder), RewriteSettings(**settings))


def tiny_engine(tokenizer, loads=None):
    model = tiny_model("llama")  # seeds the global generator, so not in a thread

    def load():
        if loads is not None:
            loads.append(1)
        return model

    return TransformersEngine(LazyTeacher(load, tokenizer, "tiny"))


def test_columns_and_format_stay_and_every_answer_has_a_record(open_rows, tokenizer, tmp_path):
    dataset = Dataset.from_list([row | {"id": index} for index, row in enumerate(open_rows)])
    result = rewrite(dataset, Scripted(lambda _: " My own words. "), tokenizer, tmp_path)
    assert result.rows.features == dataset.features
    assert result.rows["prompt"] == dataset["prompt"]
    assert result.rows["id"] == dataset["id"]
    assert [row["completion"][0]["content"] for row in result.rows] == ["My own words."] * len(open_rows)
    assert [(record.row, record.provenance, record.reason) for record in result.records] == [
        (index, "rewritten", "accepted") for index in range(len(open_rows))
    ]
    assert [record.reference for record in result.records] == [row["completion"][0]["content"] for row in open_rows]


def test_a_rejected_answer_leaves_its_row_as_it_was(open_rows, tokenizer, tmp_path):
    dataset = Dataset.from_list(open_rows)
    result = rewrite(dataset, Scripted(lambda _: "As the reference answer says"), tokenizer, tmp_path)
    assert list(result.rows) == list(dataset)
    assert Counter(record.reason for record in result.records) == {"banned_phrase": len(open_rows)}
    assert result.records[0].rewrite == "As the reference answer says"


def test_the_training_prompt_never_shows_the_reference(open_rows, tokenizer, tmp_path):
    engine = Scripted(lambda _: "Mine.")
    result = rewrite(open_rows, engine, tokenizer, tmp_path)
    for prompt, row, new in zip(engine.prompts, open_rows, result.rows, strict=False):
        assert "### Reference Answer:" in prompt.messages[-1]["content"]
        assert new["prompt"] == row["prompt"]
    assert engine.closed


def test_each_answer_of_a_conversation_is_rewritten_after_the_chosen_ones(tokenizer, tmp_path):
    rows = [
        {"messages": [QUESTION, ANSWER, {"role": "user", "content": "And 1 more?"}, ANSWER]},
        {"messages": [QUESTION, ANSWER]},
    ]
    engine = Scripted(lambda prompt: f"Answer {len(prompt.messages)}.")
    result = rewrite(rows, engine, tokenizer, tmp_path)
    assert [message["content"] for message in result.rows[0]["messages"]] == [
        "2 + 3?", "Answer 2.", "And 1 more?", "Answer 4.",
    ]  # fmt: skip
    second = next(prompt for prompt in engine.prompts if len(prompt.messages) == 4)
    assert second.messages[2]["content"] == "Answer 2."
    assert [(record.row, record.turn) for record in result.records] == [(0, 1), (0, 3), (1, 1)]


def test_of_several_samples_the_first_accepted_one_is_used(tokenizer, tmp_path):
    rows = [{"prompt": "2 + 3?", "completion": "5"}, {"prompt": "2 + 2?", "completion": "4"}]
    said = {0: "It is 5.", 1: "No, it is 4.", 2: "It is 7."}
    engine = Scripted(lambda prompt: said[prompt.sample])
    sampling = Sampling(8, 4, temperature=1.0)
    result = rewrite(rows, engine, tokenizer, tmp_path, sampling=sampling, samples=3, asking=Asking("number"))
    assert [record.sample for record in result.records] == [0, 1]
    assert len(engine.prompts) == 3  # the first row is not asked again


def test_text_with_a_response_template_is_rewritten(tokenizer, tmp_path):
    rows = [{"text": "Q: 2 + 3?\nA: It is 5.\n"}, {"text": "no template"}]
    result = rewrite(
        rows, Scripted(lambda _: "Five."), tokenizer, tmp_path, asking=Asking("general", response_template="A:")
    )
    assert result.rows["text"] == ["Q: 2 + 3?\nA: Five.\n", "no template"]
    assert [record.reason for record in result.records] == ["accepted", "no_answer_to_rewrite"]


def test_rows_without_an_answer_are_kept_or_refused(tokenizer, tmp_path):
    rows = [{"prompt": "2 + 3?", "completion": "5"}, {"prompt": "Say nothing", "completion": ""}]
    engine = Scripted(lambda _: "Five.")
    assert rewrite(rows, engine, tokenizer, tmp_path).rows["completion"] == ["Five.", ""]
    with pytest.raises(InputError, match="required, but 1 of 2 rows.*row 1"):
        rewrite(rows, engine, tokenizer, tmp_path, require=True)


def test_a_prompt_beyond_the_context_keeps_its_reference(tokenizer, tmp_path):
    rows = [{"prompt": "Hi", "completion": "Hello"}, {"prompt": "Hi " * 200, "completion": "Hello"}]
    result = rewrite(rows, Scripted(lambda _: "Hey."), tokenizer, tmp_path, max_model_len=500)
    assert [record.reason for record in result.records] == ["accepted", "too_long"]


def test_answers_of_type_none_are_kept(tokenizer, tmp_path):
    rows = [{"prompt": "Hi", "completion": "Hello", "answer_type": "none"}]
    result = rewrite(rows, Scripted(lambda _: "Hey."), tokenizer, tmp_path)
    assert (result.rows[0]["completion"], result.records[0].reason) == ("Hello", "kept")


def test_training_prompts_become_the_types_own(tokenizer, tmp_path):
    rows = [{"prompt": [QUESTION], "completion": [{"role": "assistant", "content": "5"}]}]
    result = rewrite(
        rows, Scripted(lambda _: "It is 5."), tokenizer, tmp_path, asking=Asking("math"), train_prompts=True
    )
    assert [message["role"] for message in result.rows[0]["prompt"]] == ["system", "user"]
    assert result.rows[0]["prompt"][0]["content"].startswith("You are an expert in math. Below is a math question.")


def test_a_second_pass_loads_no_model_and_a_changed_row_is_the_only_one_redone(open_rows, tokenizer, tmp_path):
    loads = []
    first = rewrite(open_rows, tiny_engine(tokenizer, loads), tokenizer, tmp_path)
    second = rewrite(open_rows, tiny_engine(tokenizer, loads), tokenizer, tmp_path)
    assert list(first.rows) == list(second.rows)
    assert first.records == second.records
    assert len(loads) == 1
    engine = Scripted(lambda _: "New.")
    engine.fingerprint = "tiny"
    changed = [open_rows[0] | {"completion": [{"role": "assistant", "content": "Something else"}]}, *open_rows[1:]]
    third = rewrite(changed, engine, tokenizer, tmp_path)
    assert len(engine.prompts) == 1
    assert third.records[1:] == first.records[1:]


def test_two_processes_give_the_same_rows_as_one(open_rows, tokenizer, tmp_path):
    single = rewrite(open_rows, tiny_engine(tokenizer), tokenizer, tmp_path / "one")
    engines, results = [tiny_engine(tokenizer), tiny_engine(tokenizer)], {}

    def process(index):
        generator = AnswerGenerator(engines[index], tokenizer, tmp_path / "two", ProcessShare(index, 2))
        results[index] = rewrite_rows(
            Dataset.from_list(open_rows), generator, RewriteSettings(SAMPLING, asking=GENERAL)
        )

    threads = [threading.Thread(target=process, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(results[0].rows) == list(results[1].rows) == list(single.rows)
    assert results[0].records == results[1].records == single.records


def test_a_type_that_finds_no_answer_in_most_references_is_refused_at_once(tokenizer, tmp_path):
    rows = [{"prompt": "Why?", "completion": f"Because of {word}."} for word in ("rain", "sun", "wind 3")]
    engine = Scripted(lambda _: "x")
    with pytest.raises(InputError, match="'math' finds no answer in 2 of 3 references.*'Because of rain.'"):
        rewrite(rows, engine, tokenizer, tmp_path, asking=Asking("math"))
    assert not engine.prompts


def test_a_row_that_the_chat_template_refuses_is_named(tokenizer, tmp_path, monkeypatch):
    refusal = "{% if 'x' in message.content %}{{ raise_exception('no x') }}{% endif %}"
    template = "{% for message in messages %}" + refusal + "{% endfor %}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "six", "completion": "b"}]
    with pytest.raises(InputError, match=r"row 1 of the dataset: .*no x"):
        rewrite(rows, Scripted(lambda _: "y"), tokenizer, tmp_path)


def test_kept_and_rewritten_rows_get_the_same_training_prompt(tokenizer, tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"{n} + 1?"}], "completion": answer(f"#### {n + 1}")} for n in (1, 2)
    ]
    engine = Scripted(
        lambda prompt: "One more is 2, as one can see." if "1 + 1" in str(prompt.messages) else "It is 9."
    )
    result = rewrite(rows, engine, tokenizer, tmp_path, asking=Asking(), train_prompts=True)
    assert [record.provenance for record in result.records] == ["rewritten", "reference"]
    systems = {row["prompt"][0]["content"] for row in result.rows}
    assert len(systems) == 1
    assert systems.pop().startswith("You are an expert in math")


def test_the_records_alone_give_the_rows_again(open_rows, tokenizer, tmp_path):
    dataset = Dataset.from_list(open_rows)
    settings = RewriteSettings(SAMPLING, asking=GENERAL)
    result = rewrite(dataset, Scripted(lambda _: "Mine."), tokenizer, tmp_path)
    assert list(RewrittenDataset.of(dataset, result.records, settings).rows) == list(result.rows)


def test_a_thought_that_the_template_opened_is_no_answer(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", tokenizer.chat_template + "<think>\n")
    rows = [{"prompt": "2 + 3?", "completion": "5"}, {"prompt": "2 + 2?", "completion": "4"}]
    said = {"2 + 3?": "2 + 3 = 5.</think>It is 5.", "2 + 2?": "It is 4."}
    engine = Scripted(lambda prompt: next(text for question, text in said.items() if question in str(prompt.messages)))
    result = rewrite(rows, engine, tokenizer, tmp_path, asking=Asking("phrase"))
    assert [(record.reason, record.rewrite) for record in result.records] == [
        ("accepted", "It is 5."),
        ("truncated", ""),
    ]


def test_tests_that_no_row_has_are_named(open_rows, tokenizer, tmp_path):
    with pytest.raises(InputError, match="`run_tests` is set, but no row has tests"):
        rewrite(open_rows, Scripted(lambda _: "x"), tokenizer, tmp_path, accepting=Accepting(run_tests=True))


def test_tools_that_are_no_json_name_their_row(tokenizer, tmp_path):
    rows = [
        {"prompt": "Hi", "completion": "Hello", "tools": "[]"},
        {"prompt": "Hi", "completion": "Hello", "tools": "{"},
    ]
    with pytest.raises(InputError, match="row 1 of the dataset: its tools '{' are no JSON"):
        rewrite(rows, Scripted(lambda _: "x"), tokenizer, tmp_path)


def test_answers_that_another_process_does_not_give_are_generated_here(open_rows, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(generator_module, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(generator_module, "POLL_SECONDS", 0.01)
    generator = AnswerGenerator(Scripted(lambda _: "Mine."), tokenizer, tmp_path, ProcessShare(0, 2))
    result = rewrite_rows(Dataset.from_list(open_rows), generator, RewriteSettings(SAMPLING, asking=GENERAL))
    assert {record.rewrite for record in result.records} == {"Mine."}
