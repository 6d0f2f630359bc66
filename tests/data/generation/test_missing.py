"""A run that is interrupted, repeated or shared generates each answer once."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.generation.prompts import prompts_of
from trl_prune.data.generation.missing import generate_missing, plan_batches, read_answers
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import AnswerStore
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare


SAMPLING = Sampling(batch_size=2)
PROMPTS = prompts_of(range(1, 8))


class CountingEngine:
    """Answers with the prompt's ids; stops after some groups."""

    fingerprint = "counting"

    def __init__(self, groups=100):
        self.groups, self.seen = groups, []

    def generate(self, prompts, sampling):
        for start in range(0, len(prompts), sampling.batch_size):
            if self.groups == 0:
                raise KeyboardInterrupt
            self.groups -= 1
            batch = prompts[start : start + sampling.batch_size]
            self.seen.append([prompt.ids for prompt in batch])
            yield {start + row: Answer(str(prompt.ids), True) for row, prompt in enumerate(batch)}

    def close(self):
        pass


def run(prompts, folder, engine=None, sampling=SAMPLING, share=SINGLE_PROCESS):
    engine = engine or CountingEngine()
    generate_missing(prompts, engine, sampling, AnswerStore(folder), share)
    return engine.seen


def texts(prompts, folder, sampling=SAMPLING):
    answers = read_answers(prompts, sampling, "counting", AnswerStore(folder))
    return [answer and answer.text for answer in answers]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=20), st.integers(1, 5))
def test_batches_hold_every_prompt_once_longest_first(lengths, batch_size):
    prompts = [replace(prompts_of([length])[0], expected_new_tokens=expected) for length, expected in lengths]
    batches = plan_batches(prompts, batch_size)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(prompts)))
    totals = [len(prompts[index].ids) + prompts[index].expected_new_tokens for index in order]
    assert totals == sorted(totals, reverse=True)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_every_answer_is_stored_under_its_prompt(tmp_path):
    run(PROMPTS, tmp_path)
    assert texts(PROMPTS, tmp_path) == [str(prompt.ids) for prompt in PROMPTS]


@pytest.mark.parametrize("groups", range(5))
def test_an_interrupted_run_goes_on_with_the_same_batches(tmp_path, groups):
    unbroken = run(PROMPTS, tmp_path / "unbroken")
    first = CountingEngine(groups)
    if groups < 4:
        with pytest.raises(KeyboardInterrupt):
            run(PROMPTS, tmp_path / "broken", first)
    else:
        run(PROMPTS, tmp_path / "broken", first)
    assert first.seen + run(PROMPTS, tmp_path / "broken") == unbroken
    assert texts(PROMPTS, tmp_path / "broken") == texts(PROMPTS, tmp_path / "unbroken")


def test_a_repeated_run_generates_nothing(tmp_path):
    run(PROMPTS, tmp_path)
    assert run(PROMPTS, tmp_path) == []


def test_one_changed_prompt_is_one_new_answer(tmp_path):
    run(PROMPTS, tmp_path)
    changed = [*PROMPTS[:3], replace(PROMPTS[3], ids=[9, 9]), *PROMPTS[4:]]
    assert run(changed, tmp_path) == [[[9, 9]]]
    assert texts(changed, tmp_path)[3] == "[9, 9]"


def test_equal_prompts_are_generated_once(tmp_path):
    repeated = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[1], PROMPTS[0]]
    assert run(repeated, tmp_path) == [[PROMPTS[1].ids, PROMPTS[0].ids]]
    assert texts(repeated, tmp_path) == [str(prompt.ids) for prompt in repeated]


def test_samples_of_one_prompt_are_generated_each_above_temperature_0(tmp_path):
    samples = [replace(PROMPTS[0], sample=sample) for sample in range(3)]
    assert len(run(samples, tmp_path)) == 1
    assert sum(map(len, run(samples, tmp_path, sampling=replace(SAMPLING, temperature=1.0)))) == 3


def test_the_shares_of_several_processes_are_those_of_one(tmp_path):
    shares = [run(PROMPTS, tmp_path, share=ProcessShare(index, 3)) for index in range(3)]
    batches = [batch for share in shares for batch in share]
    assert sorted(batches) == sorted(run(PROMPTS, tmp_path / "one"))
    assert run(PROMPTS, tmp_path) == []


def test_answers_that_are_not_generated_yet_are_none(tmp_path):
    run(PROMPTS, tmp_path, share=ProcessShare(0, 2))
    assert texts(PROMPTS, tmp_path).count(None) == 3


def test_progress_counts_groups_and_ends(tmp_path):
    events = []

    def progress(items):
        for _ in items:
            yield events.append("group")
        events.append("end")

    run(PROMPTS, tmp_path, share=ProcessShare(progress=progress))
    assert events == ["group"] * 4 + ["end"]
    run(PROMPTS, tmp_path, share=ProcessShare(progress=progress))
    assert len(events) == 5
