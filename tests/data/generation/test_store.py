from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import AnswerStore, answer_key, answer_seed


PROMPT = Prompt([1, 2], [{"role": "user", "content": "Hi"}])
GREEDY, SAMPLED = Sampling(), Sampling(temperature=0.7)


@pytest.mark.parametrize(
    ("prompt", "sampling", "fingerprint"),
    [
        (replace(PROMPT, ids=[1, 3]), SAMPLED, "m"),
        (replace(PROMPT, tools=[{"name": "add"}]), SAMPLED, "m"),
        (replace(PROMPT, chat_template_kwargs={"enable_thinking": True}), SAMPLED, "m"),
        (replace(PROMPT, sample=1), SAMPLED, "m"),
        (PROMPT, replace(SAMPLED, max_new_tokens=13), "m"),
        (PROMPT, replace(SAMPLED, temperature=0.8), "m"),
        (PROMPT, replace(SAMPLED, seed=1), "m"),
        (PROMPT, SAMPLED, "n"),
    ],
)
def test_the_key_changes_with_whatever_determines_the_answer(prompt, sampling, fingerprint):
    assert answer_key(prompt, sampling, fingerprint) != answer_key(PROMPT, SAMPLED, "m")
    assert answer_seed(prompt, sampling, fingerprint) != answer_seed(PROMPT, SAMPLED, "m")


def test_the_key_is_the_same_whatever_does_not_determine_the_answer():
    other = replace(PROMPT, expected_new_tokens=9, sample=3, tools=[], chat_template_kwargs={})
    assert answer_key(other, replace(GREEDY, batch_size=2, seed=5), "m") == answer_key(PROMPT, GREEDY, "m")


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.dictionaries(st.text("abc", min_size=1), st.builds(Answer, TEXTS, st.booleans()), min_size=1))
def test_stored_answers_are_read_as_they_were(tmp_path_factory, answers):
    folder = tmp_path_factory.mktemp("answers")
    AnswerStore(folder).write(answers)
    assert AnswerStore(folder).read(answers) == answers


def test_files_of_other_stores_are_seen_when_they_appear(tmp_path):
    reader, writer = AnswerStore(tmp_path / "new"), AnswerStore(tmp_path / "new")
    assert reader.read(["a"]) == {}
    writer.write({"a": Answer("A", True)})
    assert reader.read(["a", "b"]) == {"a": Answer("A", True)}
    writer.write({"b": Answer("B", False)})
    assert reader.read(["a", "b"]) == {"a": Answer("A", True), "b": Answer("B", False)}


@pytest.mark.parametrize(
    "content",
    [
        b'{"key": "b", "text": "torn',
        b"\xff\xfe\x00",
        b"[1, 2]\n3\nnull\n",
        b'{"key": "b"}\n',
        b'{"key": ["b"], "text": "x", "finished": true}\n',
        b"",
    ],
)
def test_torn_and_foreign_files_are_skipped(tmp_path, content):
    AnswerStore(tmp_path).write({"a": Answer("A", True)})
    (tmp_path / "zzz.jsonl").write_bytes(content)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / ".a.jsonl.123.part").write_bytes(b'{"key": "b", "text": "unfinished", "finished": true}\n')
    assert AnswerStore(tmp_path).read(["a", "b"]) == {"a": Answer("A", True)}


def test_a_torn_line_does_not_hide_the_lines_before_it(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"key": "a", "text": "A", "finished": true}\n{"key": "b", "te')
    assert AnswerStore(tmp_path).read(["a", "b"]) == {"a": Answer("A", True)}
