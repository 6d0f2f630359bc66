"""A model's stored answers."""

import json

from hypothesis import given
from hypothesis import strategies as st

from trl_prune.evaluation.harness.answers import Answers, request_key


ANSWERS = st.one_of(
    st.tuples(st.floats(allow_nan=False), st.booleans()).map(list), st.floats(allow_nan=False), st.text()
)


@given(st.dictionaries(st.text(), ANSWERS))
def test_answers_are_read_as_they_were_written(tmp_path_factory, answers):
    path = tmp_path_factory.mktemp("answers") / "folder" / "answers.jsonl"
    written = Answers(path)
    for key, answer in answers.items():
        written.add(key, answer)
    written.close()
    read = Answers(path)
    assert {key: read[key] for key in answers} == answers
    assert len(read) == len(answers)


def test_each_answer_is_on_disk_at_once_and_a_torn_one_is_forgotten(tmp_path):
    path = tmp_path / "answers.jsonl"
    answers = Answers(path)
    answers.add("a", 1.0)
    answers.add("b", "two")
    assert len(Answers(path)) == 2, "nothing waits for the file to be closed"
    text = path.read_text()
    for end in range(text.index("\n") + 2, len(text) - 1):
        path.write_text(text[:end])
        torn = Answers(path)
        assert "a" in torn
        assert "b" not in torn
        torn.add("c", [0.5, True])
        torn.close()
        again = Answers(path)
        assert (again["a"], again["c"], len(again)) == (1.0, [0.5, True], 2)


def test_answers_without_a_file_stay_in_memory(tmp_path):
    answers = Answers()
    answers.add("a", 1.0)
    answers.close()
    assert answers["a"] == 1.0
    assert not list(tmp_path.iterdir())


def test_keys_tell_kinds_arguments_and_draws_apart_whatever_the_order_of_settings():
    asked = [
        ("loglikelihood", ("a", "b"), None),
        ("loglikelihood", ("ab", ""), None),
        ("generate_until", ("a", {"until": ["b"]}), None),
        ("generate_until", ("a", {"until": ["b"]}), ("task", 0, 0)),
        ("generate_until", ("a", {"until": ["b"]}), ("task", 0, 1)),
        ("generate_until", ("a", {"until": ["b"]}), ("task", 1, 0)),
    ]
    assert len({request_key(*one) for one in asked}) == len(asked)
    one, other = {"until": ["b"], "do_sample": False}, {"do_sample": False, "until": ["b"]}
    assert request_key("generate_until", ("a", one)) == request_key("generate_until", ("a", other))
    assert json.dumps(one) != json.dumps(other)
