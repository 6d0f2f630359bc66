"""Engines are checked before anything expensive starts."""

import pytest

from trl_prune.data.generation import engines
from trl_prune.data.generation.engines import ENGINES, build_engine, check_engine
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


def fail():
    pytest.fail("the model was loaded")


@pytest.mark.parametrize(
    ("name", "kwargs", "sentence"),
    [
        ("vlm", {}, "engine 'vlm' is unknown; allowed: transformers, vllm, server"),
        ("transformers", {"continous": True}, "'continous' is unknown; .*did you mean 'continuous'"),
        ("server", {}, "rewrite.engine_kwargs of the engine 'server': url must be given"),
        ("server", {"url": "http://localhost", "concurency": 2}, "did you mean 'concurrency'"),
    ],
)
def test_wrong_arguments_are_named(name, kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        check_engine(name, kwargs, "rewrite.engine_kwargs")


@pytest.mark.parametrize(("name", "command"), [("vllm", "pip install vllm"), ("server", "trl-prune\\[server\\]")])
def test_a_missing_package_is_named_with_its_installation(name, command, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=f"not installed: .*{command}"):
        check_engine(name, {"url": "http://localhost"} if name == "server" else {}, "kwargs")


@pytest.mark.parametrize("name", list(ENGINES))
def test_building_an_engine_loads_and_connects_nothing(name, tokenizer, tmp_path):
    teacher = LazyTeacher(fail, tokenizer, "tiny", folder=tmp_path)
    engine = build_engine(name, teacher, {"url": "http://localhost:1/v1"} if name == "server" else {})
    assert "tiny" in engine.fingerprint
