"""Scores of tiny models on small tasks, against lm-eval's own."""

import contextlib
from itertools import pairwise

import pytest
import torch

from tests.conftest import tiny_model, tiny_tokenizer
from tests.evaluation.harness.conftest import TYPES, model_of
from trl_prune.errors import InputError
from trl_prune.evaluation.harness import EvaluationSettings, evaluate_model, evaluate_tasks, load_tasks


ALL = [*TYPES, "tiny_sampled"]


def score(tasks_dir, tokenizer, task, **settings):
    tasks = load_tasks([task], [tasks_dir])
    return evaluate_tasks(tiny_model("llama"), tokenizer, tasks, EvaluationSettings(**settings))[task]


def run(tasks_dir, model, names, progress=None, **settings):
    return evaluate_model(model, load_tasks(names, [tasks_dir]), EvaluationSettings(**settings), progress)


def approximately(values):
    """Return what equals lm-eval's results of a task up to rounding."""
    return {
        name: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value for name, value in values.items()
    }


def test_multiple_choice_has_a_score_per_item_and_the_chance_of_its_choices(tasks_dir, tokenizer):
    found = score(tasks_dir, tokenizer, "tiny_choice")
    assert (found.metric, found.kind, found.repeats) == ("acc_norm", "choice", 1)
    assert found.chance == pytest.approx(1 / 3)
    assert len(found.items) == len(set(found.doc_hashes)) == 20
    assert set(found.items) <= {0.0, 1.0}


def test_metadata_overrides_the_metric_and_the_chance(tasks_dir, tokenizer):
    found = score(tasks_dir, tokenizer, "tiny_with_metadata")
    assert (found.metric, found.chance, found.capability) == ("acc", 0.125, "x")


def test_generation_has_no_chance(tasks_dir, tokenizer):
    found = score(tasks_dir, tokenizer, "tiny_generated", limit=3)
    assert (found.metric, found.chance, found.kind, len(found.items)) == ("exact_match", 0.0, "generation", 3)


def test_a_perplexity_is_weighted_by_words_and_lower_is_better(tasks_dir, tokenizer):
    found = score(tasks_dir, tokenizer, "tiny_rolling")
    assert (found.metric, found.kind, found.higher_is_better) == ("word_perplexity", "likelihood", False)
    assert set(found.weights) == {len(["Number", "0", "is,", "and", "that", "is", "that."])}


def test_a_right_continuation_is_no_likelihood_and_has_no_known_chance(tasks_dir, tokenizer):
    found = score(tasks_dir, tokenizer, "tiny_likelihood")
    assert (found.metric, found.kind, found.chance) == ("acc", "continuation", None)


def test_a_subgroup_of_tasks_with_several_metrics_is_scored_task_by_task(tasks_dir, tokenizer):
    tasks = load_tasks(["tiny_outer"], [tasks_dir])
    assert list(tasks.subtasks) == ["tiny_group", "tiny_generated"]
    found = evaluate_tasks(tiny_model("llama"), tokenizer, tasks, EvaluationSettings(limit=2))
    assert {name: one.metric for name, one in found.items()} == {
        "tiny_choice": "acc_norm",
        "tiny_with_metadata": "acc",
        "tiny_generated": "exact_match",
    }


@pytest.mark.parametrize("with_template", [False, True])
def test_scores_are_those_that_lm_eval_reports(tasks_dir, tokenizer, with_template):
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    tasks = load_tasks(TYPES, [tasks_dir])
    options = {"bootstrap_iters": 0, "apply_chat_template": with_template, "fewshot_as_multiturn": True}
    for task in tasks.tasks.values():
        task.set_fewshot_seed(1234)
    lm = HFLM(pretrained=tiny_model("llama"), tokenizer=tokenizer, batch_size=4, device="cpu")
    expected = lm_eval.evaluate(lm, {"tasks": tasks.tasks, "groups": {}}, **options)
    settings = EvaluationSettings(batch_size=4, apply_chat_template=with_template)
    found = evaluate_model(model_of(tiny_model("llama"), tokenizer), tasks, settings)
    for name, values in expected["results"].items():
        assert found["results"][name] == approximately(values)
    scores = evaluate_tasks(tiny_model("llama"), tokenizer, tasks, settings)
    for name, one in scores.items():
        assert one.mean == pytest.approx(expected["results"][name][f"{one.metric},none"], rel=1e-5)
    prompts = {name: [sample["prompt_hash"] for sample in rows] for name, rows in expected["samples"].items()}
    assert {name: [sample["prompt_hash"] for sample in rows] for name, rows in found["samples"].items()} == prompts


def test_a_limit_draws_items_at_random_and_asks_them_as_a_run_over_all_items_does(tasks_dir, tokenizer):
    model = model_of(tiny_model("llama"), tokenizer)
    full = run(tasks_dir, model, TYPES)["samples"]
    limited = run(tasks_dir, model, TYPES, limit=5, seed=1)["samples"]
    for name, rows in limited.items():
        by_id = {sample["doc_id"]: sample for sample in full[name]}
        assert len(rows) == 5
        assert [sample["doc_id"] for sample in rows] != list(range(5))
        for sample in rows:
            assert sample["prompt_hash"] == by_id[sample["doc_id"]]["prompt_hash"]
            assert sample["doc"] == by_id[sample["doc_id"]]["doc"]
            assert sample["resps"] == by_id[sample["doc_id"]]["resps"]
    shots = {sample["arguments"][0][0] for sample in limited["tiny_shots"]}
    assert all(prompt.count("Number") == 3 for prompt in shots)


@pytest.mark.slow
def test_stored_answers_give_the_results_that_asking_gives(tasks_dir, tokenizer, tmp_path, asked):
    model = tiny_model("llama")
    first = run(tasks_dir, model_of(model, tokenizer, tmp_path / "answers.jsonl"), ALL)
    assert asked.take()
    again = model_of(None, tokenizer, tmp_path / "answers.jsonl")
    assert run(tasks_dir, again, ALL) == first, "with no model at hand"
    assert asked.take() == []


def test_another_task_a_larger_limit_and_more_samples_ask_only_what_is_new(tasks_dir, tokenizer, tmp_path, asked):
    model, path = tiny_model("llama"), tmp_path / "answers.jsonl"
    run(tasks_dir, model_of(model, tokenizer, path), ["tiny_choice"], limit=5)
    assert len(asked.take()) == 5 * 3
    run(tasks_dir, model_of(model, tokenizer, path), ["tiny_choice"], limit=8)
    assert len(asked.take()) == 3 * 3
    run(tasks_dir, model_of(model, tokenizer, path), ["tiny_shots", "tiny_choice", "tiny_generated"], limit=8)
    assert sorted(kind for kind, *_ in asked.take()) == ["generate_until"] * 8 + ["loglikelihood"] * 8 * 3
    run(tasks_dir, model_of(model, tokenizer, path), ["tiny_with_metadata"], limit=8)
    assert asked.take() == [], "its prompts are those of tiny_choice"
    tasks = load_tasks(["tiny_sampled"], [tasks_dir])
    for repeats, new in ((3, 6), (5, 4), (5, 0)):
        tasks.tasks["tiny_sampled"].set_config("repeats", repeats)
        found = evaluate_model(model_of(model, tokenizer, path), tasks, EvaluationSettings(limit=2))
        assert len(asked.take()) == new
    samples = found["samples"]["tiny_sampled"]
    assert all(len(set(sample["resps"][0])) == 5 for sample in samples), "later samples repeat earlier ones"


def test_a_killed_evaluation_goes_on_where_it_was(tasks_dir, tokenizer, tmp_path, monkeypatch):
    names, model, path = ["tiny_choice", "tiny_rolling", "tiny_generated"], tiny_model("llama"), tmp_path / "answers"
    whole = model_of(model, tokenizer)
    expected = run(tasks_dir, whole, names, batch_size=4, limit=8)["results"]
    passes = die_in_every_pass_but(3, monkeypatch)
    answered, found = [0], None
    while found is None:
        passes.clear()
        stored = model_of(model, tokenizer, path)
        assert len(stored.answers) == answered[-1], "a killed evaluation has lost answers"
        with contextlib.suppress(KeyboardInterrupt):
            found = run(tasks_dir, stored, names, batch_size=4, limit=8)
        answered.append(len(stored.answers))
    steps = [later - earlier for earlier, later in pairwise(answered)]
    assert len(steps) > 3
    assert min(steps[:-1]) >= 3 * 4, "three batches were finished each time"
    assert answered[-1] == len(whole.answers)
    for name in names:
        assert found["results"][name] == approximately(expected[name])


def die_in_every_pass_but(count, monkeypatch):
    """Let forward passes and generations fail after some; return the list that counts them."""
    from lm_eval.models.huggingface import HFLM

    passes = []

    def dying(method):
        def call(self, *args, **options):
            passes.append(1)
            if len(passes) > count:
                raise KeyboardInterrupt
            return method(self, *args, **options)

        return call

    for method in ("_model_call", "_model_generate"):
        monkeypatch.setattr(HFLM, method, dying(getattr(HFLM, method)))
    return passes


def test_models_have_their_own_answers(tasks_dir, tokenizer, tmp_path):
    models = {"one": tiny_model("llama"), "other": tiny_model("llama", seed=1)}
    found = {
        name: run(tasks_dir, model_of(model, tokenizer, tmp_path / name), ["tiny_choice"])["samples"]
        for name, model in models.items()
    }
    likelihoods = {
        name: [sample["resps"][0][0][0] for sample in samples["tiny_choice"]] for name, samples in found.items()
    }
    assert not set(likelihoods["one"]) & set(likelihoods["other"])


def test_progress_counts_each_item_once_and_tells_stored_ones(tasks_dir, tokenizer):
    model = model_of(tiny_model("llama"), tokenizer)
    for limit, expected in ((5, {False: 10}), (7, {True: 10, False: 4}), (7, {True: 14})):
        counts = {}

        def progress(task, items, were_stored, counts=counts):
            assert task in ("tiny_choice", "tiny_generated")
            counts[were_stored] = counts.get(were_stored, 0) + items

        run(tasks_dir, model, ["tiny_choice", "tiny_generated"], progress, limit=limit)
        assert counts == expected


def test_lm_eval_draws_no_bars(tasks_dir, tokenizer, capfd):
    run(tasks_dir, model_of(tiny_model("llama"), tokenizer), ALL, limit=2)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("task", [*TYPES, "tiny_sampled"])
def test_a_model_that_gives_nan_is_refused_at_once(tasks_dir, tokenizer, task, tmp_path):
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    path = tmp_path / "answers.jsonl"
    with pytest.raises(InputError, match=f"model 'broken' gives NaN on task '{task}': its weights are broken, or too"):
        run(tasks_dir, model_of(model, tokenizer, path, name="broken"), [task])
    assert not path.exists(), "no answer is kept"


def test_code_of_a_model_runs_only_with_the_users_word(tasks_dir, tokenizer):
    model = model_of(tiny_model("llama"), tokenizer)
    with pytest.raises(InputError, match="task 'tiny_unsafe' runs code that the model writes on this machine; set"):
        run(tasks_dir, model, ["tiny_unsafe"])
    assert run(tasks_dir, model, ["tiny_unsafe"], confirm_run_unsafe_code=True, limit=1)["samples"]["tiny_unsafe"]


def test_variables_of_the_chat_template_reach_the_prompts(tasks_dir):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += "{{ mood }}"
    prompts = {}
    for mood in ("calm", "wild"):
        settings = {"limit": 2, "apply_chat_template": True, "chat_template_kwargs": {"mood": mood}}
        samples = run(tasks_dir, model_of(tiny_model("llama"), tokenizer), ["tiny_generated"], **settings)["samples"]
        prompts[mood] = [sample["arguments"][0][0] for sample in samples["tiny_generated"]]
    assert all(prompt.endswith("assistant\ncalm") for prompt in prompts["calm"])
    assert [prompt.replace("calm", "wild") for prompt in prompts["calm"]] == prompts["wild"]


@pytest.mark.parametrize("has_id", [True, False])
def test_thoughts_are_cut_from_generated_answers(tasks_dir, monkeypatch, has_id):
    from lm_eval.models.huggingface import HFLM

    tokenizer = tiny_tokenizer()
    if has_id:
        tokenizer.add_special_tokens({"extra_special_tokens": ["</think>"]})
    written = tokenizer("a thought</think>\n\nyes\nno")["input_ids"]

    def generate(self, context, **_):
        return torch.cat([context, torch.tensor([written] * len(context))], 1)

    monkeypatch.setattr(HFLM, "_model_generate", generate)
    end = tokenizer.convert_tokens_to_ids("</think>") if has_id else "</think>"
    for token, answer in ((end, "yes"), (None, "a thought" if has_id else "a thought</think>")):
        model = model_of(tiny_model("llama"), tokenizer)
        samples = run(tasks_dir, model, ["tiny_generated"], limit=2, think_end_token=token)["samples"]
        assert [sample["resps"] for sample in samples["tiny_generated"]] == [[[answer]]] * 2


def test_a_checkpoints_own_generation_settings_stay_out(tasks_dir, tokenizer):
    plain, own = tiny_model("llama"), tiny_model("llama")
    settings = {"num_beams": 3, "num_return_sequences": 2, "repetition_penalty": 1.8, "min_new_tokens": 3}
    own.generation_config.update(**settings)
    answers = [
        [sample["resps"] for sample in run(tasks_dir, model_of(model, tokenizer), ["tiny_generated"])["samples"][name]]
        for model in (plain, own)
        for name in ("tiny_generated",)
    ]
    assert answers[0] == answers[1]
    assert own.generation_config.num_beams == 3


def test_prompts_that_are_cut_at_the_window_are_counted(tasks_dir, tokenizer, caplog):
    names = ["tiny_generated", "tiny_likelihood"]
    run(tasks_dir, model_of(tiny_model("llama"), tokenizer), names)
    assert "longer than its context" not in caplog.text
    # "Number 9 is" and four more tokens are 15; with " odd", whose last is not read, 14, and from 10 on one more.
    run(tasks_dir, model_of(tiny_model("llama", max_position_embeddings=14), tokenizer), names)
    for count in (20, 10):
        assert f"model tiny: {count} of 20 prompts are longer than its context of 14 tokens; their" in caplog.text
