import copy
import signal

import pytest

from trl_prune.data.normal_rows import RowFault
from trl_prune.data.rendering import TemplateAcceptance, accepted_messages, fold_system_into_user, rendered, row_text
from trl_prune.errors import InputError


SYSTEM = {"role": "system", "content": "Be brief."}
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
FOLDED = {"role": "user", "content": "Be brief.\n\nHi"}
REFUSE_SYSTEM = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{%- endif %}"
ALTERNATE = (
    "{%- for message in messages %}{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{%- endif %}{%- endfor %}"
)


def with_template(tokenizer, start, rest=None):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = start + (tokenizer.chat_template if rest is None else rest)
    return changed


@pytest.fixture
def strict(tokenizer):
    """A tokenizer whose template rejects a system turn and roles that do not alternate."""
    return with_template(tokenizer, REFUSE_SYSTEM + ALTERNATE)


@pytest.mark.parametrize("row", [{"prompt": [USER], "completion": [ANSWER]}, {"messages": [USER, ANSWER]}])
def test_messages_go_through_the_chat_template(row, tokenizer):
    assert row_text(row, tokenizer) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"


def test_text_stays_text(tokenizer):
    assert row_text({"prompt": "Hi", "completion": "Hello", "text": None}, tokenizer) == "HiHello"
    assert row_text({"text": "plain", "messages": None}, tokenizer) == "plain"


def test_calibration_folds_a_system_turn_as_rewriting_does(strict, tokenizer):
    assert row_text({"messages": [SYSTEM, USER, ANSWER]}, strict) == row_text(
        {"messages": [FOLDED, ANSWER]}, tokenizer
    )


def test_the_system_prompt_goes_to_the_first_user_turn():
    assert fold_system_into_user([SYSTEM, ANSWER, USER]) == [ANSWER, FOLDED]


def test_a_server_gets_the_messages_that_the_template_accepts(tokenizer, strict):
    assert accepted_messages(tokenizer, [SYSTEM, USER]) == [SYSTEM, USER]
    assert accepted_messages(strict, [SYSTEM, USER]) == [FOLDED]


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content + none }}",
        "{{ messages[9].role.x }}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{% for",
        # What the sandbox of transformers refuses: Python's own objects, changes to the messages, endless ranges.
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ range(10 ** 9) | length }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 'x' * 10 ** 18 }}",
    ],
)
def test_whatever_a_template_raises_is_one_sentence(tokenizer, template):
    with pytest.raises(InputError, match="chat template rejects a conversation of the roles user: ") as error:
        rendered(with_template(tokenizer, template, ""), [USER])
    assert "\n" not in str(error.value)


def test_a_template_that_does_not_end_is_stopped(tokenizer, monkeypatch):
    monkeypatch.setattr("trl_prune.data.rendering.TEMPLATE_SECONDS", 0.05)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(InputError, match="roles user: it takes more than 0.05 seconds"):
        rendered(with_template(tokenizer, loops, ""), [USER])
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "a"}, {"text": "a"}),
        ({"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b"}),
        ({"messages": [USER, ANSWER], "n": 1}, {"messages": [USER, ANSWER], "n": 1}),
        ({"messages": [SYSTEM, USER, ANSWER]}, {"messages": [FOLDED, ANSWER]}),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, {"prompt": [FOLDED], "completion": [ANSWER]}),
    ],
)
def test_rows_are_what_the_template_accepts(strict, row, expected):
    accept = TemplateAcceptance(lambda: strict, {})
    assert accept(row) == accept(row) == expected


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"messages": [USER, USER, ANSWER]},
            "column messages is a conversation of the roles user, user, assistant; wanted: one that the tokenizer's "
            r"chat template accepts \(roles must alternate\)",
        ),
        ({"prompt": [USER, USER], "completion": [ANSWER]}, "column prompt is a conversation"),
        ({"messages": [USER], "chat_template_kwargs": "x"}, "column chat_template_kwargs is 'x'; wanted: an object"),
        ({"messages": [USER], "tools": "x"}, "column tools is 'x'; wanted: a list of tools, its JSON"),
    ],
)
def test_a_row_that_the_template_rejects_is_at_fault(strict, row, sentence):
    accept = TemplateAcceptance(lambda: strict, {})
    for _ in range(2):
        with pytest.raises(RowFault, match=sentence):
            accept(row)


def test_only_one_row_of_each_sequence_of_roles_is_rendered(strict, monkeypatch):
    calls = []
    original = type(strict).apply_chat_template
    monkeypatch.setattr(
        type(strict), "apply_chat_template", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)
    )
    accept = TemplateAcceptance(lambda: strict, {})
    for number in range(5):
        accept({"messages": [{"role": "user", "content": str(number)}, ANSWER]})
    assert len(calls) == 1


def test_without_a_template_every_row_is_accepted(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    row = {"messages": [USER, USER]}
    assert TemplateAcceptance(lambda: bare, {})(row) is row
    assert row_text(row, bare) == "Hi\nHi"
