"""A real HTTP server: its answers are those of the transformers engine, and its failures become one sentence."""

import copy
import logging
import sys
from dataclasses import replace

import pytest

from tests.data.generation.prompts import all_answers, conversations, likely_to_end, prompts_of, tiny_teacher
from tests.data.generation.served_model import serving
from trl_prune.data.generation import server_engine
from trl_prune.data.generation.missing import generate_missing, read_answers
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.generation.server_engine import ServerEngine
from trl_prune.data.generation.store import AnswerStore, answer_seed
from trl_prune.data.generation.transformers_engine import TransformersEngine
from trl_prune.data.sharing import SINGLE_PROCESS
from trl_prune.errors import InputError


QUESTIONS = [f"What is {number} plus {number + 1}?" for number in range(9)]
SAMPLING = Sampling(max_new_tokens=8, batch_size=4)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(server_engine, "REPEAT_SECONDS", 0.01)


@pytest.fixture
def served(tokenizer):
    with serving(likely_to_end(), tokenizer) as state:
        yield state


def engine_for(served, **changes):
    hangs = "hang" in [*served.faults.next, served.faults.always]
    # A busy machine may take a second for an answer, and every hang costs the test this time.
    options = {"concurrency": 3, "timeout_s": 1 if hangs else 30, "retries": 2}
    return ServerEngine(tiny_teacher(served.tokenizer), served.url, **options | changes)


def expected(served, prompts):
    return all_answers(TransformersEngine(tiny_teacher(served.tokenizer, served.model)), prompts, SAMPLING)[0]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("prefill", ["", "Sure. "])
def test_answers_are_those_of_the_transformers_engine(served, endpoint, prefill):
    prompts = conversations(served.tokenizer, QUESTIONS, prefill)
    answers, sizes = all_answers(engine_for(served, endpoint=endpoint), prompts, SAMPLING)
    assert answers == expected(served, prompts)
    assert sizes == [4, 4, 1]
    assert 1 < served.most_at_once <= 3


def test_prompts_that_no_text_becomes_are_sent_as_ids(served):
    prompts = prompts_of((3, 17, 9))
    answers, _ = all_answers(engine_for(served, endpoint="completions"), prompts, SAMPLING)
    assert answers == expected(served, prompts)
    assert list in {type(body["prompt"]) for body in served.requests}


def test_a_text_leaves_out_the_token_that_the_servers_tokenizer_adds(served):
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(served.tokenizer)
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    served.tokenizer = tokenizer
    prompts = conversations(tokenizer, QUESTIONS)
    assert tokenizer("x")["input_ids"][0] == prompts[0].ids[0] == tokenizer.bos_token_id
    answers, _ = all_answers(engine_for(served, endpoint="completions"), prompts, SAMPLING)
    assert answers == expected(served, prompts)
    assert all(body["prompt"].startswith("user\n") for body in served.requests)


def test_a_request_says_how_to_answer(served):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    prompt = replace(
        conversations(served.tokenizer, QUESTIONS[:1], "So")[0],
        tools=tools,
        chat_template_kwargs={"enable_thinking": False},
    )
    engine = engine_for(served, extra_body={"repetition_penalty": 1.0})
    sampling = replace(SAMPLING, temperature=0.7, seed=3)
    all_answers(engine, [prompt], sampling)
    assert served.requests == [
        {
            "model": "tiny",
            "messages": [*prompt.messages, {"role": "assistant", "content": "So"}],
            "max_tokens": 8,
            "temperature": 0.7,
            "top_p": 1.0,
            "seed": answer_seed(prompt, sampling, engine.fingerprint),
            "tools": tools,
            "tool_choice": "none",
            "continue_final_message": True,
            "add_generation_prompt": False,
            "chat_template_kwargs": {"enable_thinking": False},
            "repetition_penalty": 1.0,
        }
    ]


def test_a_greedy_request_has_no_seed(served):
    all_answers(engine_for(served), conversations(served.tokenizer, QUESTIONS[:1]), SAMPLING)
    assert served.requests[0].keys() == {"model", "messages", "max_tokens", "temperature"}


@pytest.mark.parametrize("fault", ["429", "500", "503", "hang", "garbage", "page", "drop"])
def test_a_passing_fault_changes_nothing(served, fault):
    served.faults.next = [fault, "ok", fault]
    prompts = conversations(served.tokenizer, QUESTIONS)
    assert all_answers(engine_for(served), prompts, SAMPLING)[0] == expected(served, prompts)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("500", "answered with status 500: .*fault 500"),
        ("hang", "did not answer within 1 s, 3 times in a row"),
        ("garbage", "sent replies that are no completions"),
        ("drop", "cannot be reached any more"),
        ("400", "answered with status 400: .*fault 400"),
        ("404", "answered with status 404"),
    ],
)
def test_a_lasting_fault_is_one_sentence(served, fault, says):
    served.faults.always = fault
    with pytest.raises(InputError, match=rf"the server {served.url} {says}.*0 of the 9 missing answers are stored"):
        all_answers(engine_for(served), conversations(served.tokenizer, QUESTIONS), SAMPLING)


@pytest.mark.parametrize("fault", ["400", "404"])
def test_a_rejected_request_is_not_sent_again(served, fault):
    served.faults.next = [fault]
    with pytest.raises(InputError, match=f"status {fault}"):
        all_answers(engine_for(served), conversations(served.tokenizer, QUESTIONS[:1]), SAMPLING)
    assert served.requests == []


def test_after_the_servers_death_the_rest_is_generated_by_another_one(served, tokenizer, tmp_path):
    prompts, store = conversations(tokenizer, QUESTIONS), AnswerStore(tmp_path)
    served.faults.dies_after = 6
    engine = engine_for(served, timeout_s=10)
    with pytest.raises(InputError, match="6 of the 9 missing answers are stored, and the same command"):
        generate_missing(prompts, engine, SAMPLING, store, SINGLE_PROCESS)
    with serving(served.model, tokenizer) as other:
        elsewhere = engine_for(other)
        generate_missing(prompts, elsewhere, SAMPLING, store, SINGLE_PROCESS)
        assert len(other.requests) == 3
    assert read_answers(prompts, SAMPLING, elsewhere.fingerprint, store) == expected(served, prompts)


def test_no_server_is_an_error_before_anything_else(tokenizer):
    engine = ServerEngine(tiny_teacher(tokenizer), "http://127.0.0.1:9", retries=9)
    with pytest.raises(InputError, match=r"no server answers at http://127\.0\.0\.1:9 .*refused"):
        all_answers(engine, prompts_of([1]), SAMPLING)


def test_stored_answers_need_no_server(served, tokenizer, tmp_path):
    prompts, store = conversations(tokenizer, QUESTIONS), AnswerStore(tmp_path)
    generate_missing(prompts, engine_for(served), SAMPLING, store, SINGLE_PROCESS)
    gone = replace(engine_for(served), url="http://127.0.0.1:9")
    generate_missing(prompts, gone, SAMPLING, store, SINGLE_PROCESS)
    assert read_answers(prompts, SAMPLING, gone.fingerprint, store) == expected(served, prompts)


def test_the_model_is_the_only_one_that_the_server_lists(served):
    assert engine_for(served).model_name == "tiny"
    served.models = ["a", "b"]
    with pytest.raises(InputError, match="name one with `model`, because the server .* serves 2 models: a, b"):
        engine_for(served).model_name  # noqa: B018
    served.models = None
    with pytest.raises(InputError, match="name one with `model`, because the server .* lists no models"):
        engine_for(served).model_name  # noqa: B018
    prompts = conversations(served.tokenizer, QUESTIONS)
    assert all_answers(engine_for(served, model="b"), prompts, SAMPLING)[0] == expected(served, prompts)


def test_the_fingerprint_is_of_the_model_not_of_its_place(served, tokenizer):
    fingerprint = engine_for(served).fingerprint
    assert engine_for(served, concurrency=9, timeout_s=5).fingerprint == fingerprint
    assert replace(engine_for(served), url="http://elsewhere").fingerprint == fingerprint
    assert engine_for(served, model="other").fingerprint != fingerprint
    assert engine_for(served, extra_body={"top_k": 1}).fingerprint != fingerprint


def test_the_api_key_is_sent_and_never_shown(served, monkeypatch, caplog):
    served.api_key = "secret"
    prompts = conversations(served.tokenizer, QUESTIONS[:2])
    monkeypatch.setenv("TINY_KEY", "secret")
    with caplog.at_level(logging.DEBUG):
        all_answers(engine_for(served, api_key_env="TINY_KEY"), prompts, SAMPLING)
        monkeypatch.setenv("TINY_KEY", "wrongkey")
        with pytest.raises(InputError, match="status 401: .*wrong key Bearer \\$TINY_KEY") as raised:
            all_answers(engine_for(served, api_key_env="TINY_KEY"), prompts, SAMPLING)
    shown = caplog.text + str(raised.value) + engine_for(served, model="m").fingerprint
    assert "secret" not in shown
    assert "wrongkey" not in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": "responses"}, "endpoint 'responses' is unknown; allowed: chat, completions"),
        ({"url": "localhost:8000"}, "'localhost:8000' must start with http"),
        ({"concurrency": 0}, "concurrency is 0"),
    ],
)
def test_wrong_arguments_are_named(tokenizer, changes, message):
    with pytest.raises(InputError, match=message):
        ServerEngine(tiny_teacher(tokenizer), **{"url": "http://localhost"} | changes)


def test_a_missing_package_is_named(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'trl-prune\[server\]'"):
        ServerEngine(tiny_teacher(tokenizer), "http://localhost").model_name  # noqa: B018
