"""The dense model's answers, written by the package and read by real lm-eval: the dense model agrees with itself."""

import json
from importlib.resources import files

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tests.conftest import tiny_model, tiny_tokenizer
from trl_prune.errors import InputError
from trl_prune.evaluation.fidelity import write_fidelity


PROMPTS = [f"<|im_start|>user\nWhat is {n} plus 1?<|im_end|>\n<|im_start|>assistant\n" for n in range(5)] + ["2 + 3 ="]
SETTINGS = {"max_new_tokens": 12, "seed": 3, "batch_size": 2}


LETTERS = "abcdefgh "


class Biased(torch.nn.Module):
    """A head whose model says nothing but some tokens."""

    def __init__(self, head, allowed):
        super().__init__()
        self.head = head
        self.register_buffer("bias", torch.full((head.out_features,), -1e4).index_fill(0, torch.tensor(allowed), 0.0))

    def forward(self, states):
        return self.head(states) + self.bias


def writer(seed=0, **changes):
    """Return a tiny model of letters and the end; texts of arbitrary bytes would not read back as the same tokens."""
    model, tokenizer = tiny_model("llama", seed, **changes), tiny_tokenizer()
    model.lm_head = Biased(model.lm_head, [*tokenizer.encode(LETTERS), tokenizer.eos_token_id])
    return model


def written(path, model=None, prompts=PROMPTS, **changes):
    model = model or writer()
    write_fidelity(model, tiny_tokenizer(), prompts, path, **(SETTINGS | changes))
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluated(model, path, **changes):
    tasks = TaskManager(
        include_path=str(files("lm_eval_tasks")), include_defaults=False, metadata={"fidelity_file": str(path)}
    )
    lm = HFLM(pretrained=model, tokenizer=tiny_tokenizer(), batch_size=3, device="cpu")
    return lm_eval.simple_evaluate(
        model=lm, tasks=["fidelity"], task_manager=tasks, bootstrap_iters=0, log_samples=True, **changes
    )


def exact_log_prob(model, tokenizer, context, answer):
    """The sum over the answer's tokens, one text at a time in float64."""
    ids = torch.tensor([tokenizer.encode(context + answer)])
    start = len(tokenizer.encode(context))
    log_probs = model(ids).logits[0, :-1].double().log_softmax(-1)
    return log_probs.gather(1, ids[0, 1:, None])[start - 1 :].sum().item(), ids.shape[1] - start


@pytest.fixture(autouse=True)
def _without_environment_info(monkeypatch):
    """lm-eval's description of the machine takes two seconds."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)


@pytest.fixture(scope="module")
def dense():
    return writer()


@pytest.fixture(scope="module")
def answers(dense, tmp_path_factory):
    path = tmp_path_factory.mktemp("fidelity") / "fidelity.jsonl"
    return path, written(path, dense)


@torch.no_grad()
def test_log_probabilities_and_token_counts_are_those_of_the_text_scored_alone(dense, answers):
    _, rows = answers
    assert [row["context"] for row in rows] == PROMPTS
    for row in rows:
        for kind in ("sampled", "greedy"):
            log_prob, tokens = exact_log_prob(dense, tiny_tokenizer(), row["context"], row[kind])
            assert row[f"{kind}_log_prob"] == pytest.approx(log_prob, abs=1e-3)
            assert row[f"{kind}_tokens"] == tokens


@pytest.mark.parametrize("apply_chat_template", [False, True])
def test_the_dense_model_has_no_divergence_from_itself_and_agrees_with_itself(dense, answers, apply_chat_template):
    path, rows = answers
    results = evaluated(dense, path, apply_chat_template=apply_chat_template)
    assert all(abs(sample["sampled_kl"]) < 1e-4 for sample in results["samples"]["fidelity_sampled"])
    assert results["results"]["fidelity_greedy"]["agreement,none"] == 1.0
    assert len(results["samples"]["fidelity_greedy"]) == sum(row["greedy_is_own"] for row in rows)


@torch.no_grad()
def test_another_model_has_the_divergence_of_the_formula(answers):
    path, rows = answers
    other = writer(seed=1)
    samples = evaluated(other, path)["samples"]["fidelity_sampled"]
    for row, sample in zip(rows, samples, strict=True):
        log_prob, tokens = exact_log_prob(other, tiny_tokenizer(), row["context"], row["sampled"])
        assert sample["sampled_kl_answer"] == pytest.approx(row["sampled_log_prob"] - log_prob, abs=1e-3)
        assert sample["sampled_kl"] == pytest.approx((row["sampled_log_prob"] - log_prob) / tokens, abs=1e-3)


@torch.no_grad()
def test_the_mean_over_many_samples_is_the_exact_divergence_of_one_token(dense, tmp_path):
    other, tokenizer = writer(seed=1), tiny_tokenizer()
    ids = torch.tensor([tokenizer.encode("Name:")])
    p, q = (model(ids).logits[0, -1].double().log_softmax(-1) for model in (dense, other))
    exact = (p.exp() * (p - q)).sum().item()
    path = tmp_path / "many.jsonl"
    written(path, dense, ["Name:"] * 400, max_new_tokens=1, batch_size=100)
    samples = [sample["sampled_kl"] for sample in evaluated(other, path)["samples"]["fidelity_sampled"]]
    standard_error = torch.tensor(samples).std().item() / len(samples) ** 0.5
    assert exact > 4 * standard_error
    assert sum(samples) / len(samples) == pytest.approx(exact, abs=4 * standard_error)


def test_a_file_that_was_cut_off_is_continued_to_the_same_bytes(dense, answers, tmp_path):
    whole = answers[0].read_bytes()
    path = tmp_path / "cut.jsonl"
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    written(path, dense)
    assert path.read_bytes() == whole


def test_a_finished_file_is_left_alone(answers, monkeypatch):
    path, rows = answers
    monkeypatch.setattr("trl_prune.evaluation.fidelity._answers", None)
    assert written(path) == rows


def test_samples_follow_the_seed_and_leave_the_callers_random_state(dense, answers, tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    other = written(tmp_path / "other.jsonl", dense, seed=4)
    assert torch.rand(1) == expected
    assert [row["sampled"] for row in other] != [row["sampled"] for row in answers[1]]
    assert [row["greedy"] for row in other] == [row["greedy"] for row in answers[1]]


def test_sampling_settings_of_the_checkpoint_are_not_applied_and_are_put_back(dense, answers, tmp_path):
    own = dense.generation_config
    own.top_k, own.repetition_penalty = 1, 5.0
    try:
        assert written(tmp_path / "plain.jsonl", dense) == answers[1]
        assert dense.generation_config is own
    finally:
        own.top_k, own.repetition_penalty = None, None


def test_right_answers_are_scored_behind_the_dense_models_words(dense, answers, tmp_path):
    words = [row["greedy"].removesuffix("<|im_end|>").strip() for row in answers[1]]
    halves = [word[len(word) // 2 :] for word in words]
    path = tmp_path / "references.jsonl"
    rows = written(path, dense, references=[*words[:3], *halves[3:5], None])
    assert [row["right_answer"] and row["right_answer"].strip() for row in rows] == [*words[:3], None, None, None]
    samples = evaluated(dense, path)["samples"]["fidelity_greedy"]
    assert [sample.get("answer_flips") for sample in samples] == [0.0] * 3 + [None] * 3
    assert list(samples[0]["arguments"]) == [
        (rows[0]["context"], rows[0]["greedy"]),
        (rows[0]["context"] + rows[0]["before_reference"], rows[0]["right_answer"]),
    ]


def test_a_right_answer_that_another_model_does_not_give_is_a_flip(answers, tmp_path):
    row = answers[1][0] | {"before_reference": "a b", "right_answer": " never"}
    path = tmp_path / "references.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert evaluated(writer(seed=1), path)["results"]["fidelity_greedy"]["answer_flips,none"] == 1.0


@pytest.mark.parametrize(
    ("prompts", "message"), [(["x", " \n"], "prompt 1 .* is empty"), (["x" * 400], "has 400 tokens")]
)
def test_prompts_without_room_for_an_answer_are_one_sentence(tmp_path, prompts, message):
    with pytest.raises(InputError, match=message):
        written(tmp_path / "fidelity.jsonl", writer(max_position_embeddings=256), prompts)


def test_a_file_of_other_prompts_is_not_overwritten(answers):
    with pytest.raises(InputError, match="holds answers to other prompts"):
        written(answers[0], prompts=PROMPTS[::-1])


def test_a_missing_file_is_one_sentence():
    with pytest.raises(FileNotFoundError, match="the fidelity tasks need a file .* but /no/such/file is given"):
        evaluated(writer(), "/no/such/file")
