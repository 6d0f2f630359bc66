"""vLLM itself needs a GPU: these tests check what is asked of it, with a module of its interface in its place."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import pytest

from tests.conftest import save_tiny
from tests.data.generation.prompts import all_answers, prompts_of, tiny_teacher
from trl_prune.data.generation import vllm_engine
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import answer_seed
from trl_prune.data.generation.vllm_engine import VllmEngine
from trl_prune.errors import InputError


PROMPTS = prompts_of((3, 17, 9, 1, 30))


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int
    seed: int | None
    stop_token_ids: list[int]


class FakeLLM:
    """Answers with the prompt's length; those of one token end by themselves."""

    loaded, calls = [], []

    def __init__(self, model, *, generation_config, max_model_len, **options):
        self.loaded.append((model, generation_config, max_model_len, options))

    def generate(self, prompts, sampling_params, *, use_tqdm):
        assert use_tqdm is False
        self.calls.append(list(zip(prompts, sampling_params, strict=True)))
        lengths = [len(prompt["prompt_token_ids"]) for prompt in prompts]
        answers = [SimpleNamespace(text=str(n), finish_reason="stop" if n == 1 else "length") for n in lengths]
        return [SimpleNamespace(outputs=[answer]) for answer in answers]


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.LLM = type("LLM", (FakeLLM,), {"loaded": [], "calls": []})
    module.SamplingParams = SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module.LLM


@pytest.fixture
def teacher(tokenizer, dense):
    return tiny_teacher(tokenizer, folder=dense, max_model_len=256)


def test_answers_belong_to_their_prompts_and_come_in_chunks(vllm, teacher, monkeypatch):
    monkeypatch.setattr(vllm_engine, "CHUNK", 2)
    answers, sizes = all_answers(VllmEngine(teacher), PROMPTS, Sampling())
    assert answers == [Answer(str(n), n == 1) for n in (3, 17, 9, 1, 30)]
    assert sizes == [2, 2, 1]
    assert [len(call) for call in vllm.calls] == [2, 2, 1]


def test_the_model_is_loaded_once_from_its_folder_with_the_users_options(vllm, teacher, dense):
    engine = VllmEngine(teacher, max_model_len=100, gpu_memory_utilization=0.5)
    assert vllm.loaded == []
    all_answers(engine, PROMPTS, Sampling())
    all_answers(engine, PROMPTS, Sampling())
    assert vllm.loaded == [(str(dense), "vllm", 100, {"gpu_memory_utilization": 0.5})]
    engine.close()
    all_answers(VllmEngine(teacher), PROMPTS, Sampling())
    assert vllm.loaded[1:] == [(str(dense), "vllm", 256, {})]


def test_greedy_requests_have_no_seed_and_end_at_every_eos_token(vllm, tokenizer, tmp_path):
    folder = save_tiny(tmp_path / "model")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9], "repetition_penalty": 1.3}')
    teacher = tiny_teacher(tokenizer, folder=folder)
    all_answers(VllmEngine(teacher), PROMPTS[:1], Sampling(max_new_tokens=5))
    request = SamplingParams(0.0, 5, None, [7, 9, tokenizer.eos_token_id])
    assert vllm.calls == [[({"prompt_token_ids": PROMPTS[0].ids}, request)]]


def test_each_sample_has_its_own_seed(vllm, teacher):
    engine, sampling = VllmEngine(teacher), Sampling(temperature=0.7, seed=3)
    prompts = [PROMPTS[0], replace(PROMPTS[0], sample=1)]
    all_answers(engine, prompts, sampling)
    seeds = [request.seed for _, request in vllm.calls[0]]
    assert seeds == [answer_seed(prompt, sampling, engine.fingerprint) for prompt in prompts]
    assert len(set(seeds)) == 2


def test_the_fingerprint_changes_with_options_that_may_change_the_answers(teacher):
    plain = VllmEngine(teacher).fingerprint
    assert VllmEngine(teacher, gpu_memory_utilization=0.5, tensor_parallel_size=2).fingerprint == plain
    assert VllmEngine(teacher, quantization="fp8").fingerprint != plain


def test_a_missing_package_is_named(teacher, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="pip install vllm"):
        all_answers(VllmEngine(teacher), PROMPTS, Sampling())


def test_a_model_in_memory_is_refused(tokenizer):
    with pytest.raises(InputError, match="reads a checkpoint folder"):
        VllmEngine(tiny_teacher(tokenizer))
