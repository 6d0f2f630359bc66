import copy

import pytest

from trl_prune.data.generation.prompts import prompt_ids
from trl_prune.data.rendering import accepted_messages
from trl_prune.errors import InputError


SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
REFUSE_SYSTEM = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{%- endif %}"


@pytest.fixture
def strict(tokenizer):
    """A tokenizer whose template rejects a system turn."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = REFUSE_SYSTEM + tokenizer.chat_template
    return changed


def test_prompts_end_with_generation_prompt_and_prefill(tokenizer):
    text = tokenizer.decode(prompt_ids(tokenizer, [USER], "So"))
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nSo"


def test_templates_without_a_system_role_get_the_system_prompt_in_the_user_message(strict):
    text = strict.decode(prompt_ids(strict, [SYSTEM, USER]))
    assert text == "<|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_error_that_folding_does_not_cure_is_shown(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ raise_exception('turns must alternate') }}"
    with pytest.raises(InputError, match="rejects a conversation of the roles user: turns must alternate"):
        prompt_ids(changed, [SYSTEM, USER])


def test_the_template_gets_tools_and_further_arguments(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = "{{ tools[0].name }} {{ enable_thinking }}"
    ids = prompt_ids(changed, [USER], tools=[{"name": "add"}], chat_template_kwargs={"enable_thinking": False})
    assert changed.decode(ids) == "add False"


def test_without_a_template_contents_are_joined(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    assert bare.decode(prompt_ids(bare, [SYSTEM, USER], "So")) == "Be brief.\n\nHi\nSo"
    assert accepted_messages(bare, [SYSTEM, USER]) == [SYSTEM, USER]
