"""Conversations rendered as prompts."""

from dataclasses import dataclass

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from trl_prune.data.formats import Message
from trl_prune.errors import InputError, first_line


@dataclass(frozen=True)
class Prompt:
    """A conversation to continue.

    Attributes:
        ids: the token ids of the rendered conversation with its prefill (`prompt_ids`).
        messages: the conversation, for servers that render it themselves.
        prefill: the start of the answer, which is not part of the generated text.
        tools: descriptions of the tools that the template shows the model.
        chat_template_kwargs: further arguments of the chat template.
        expected_new_tokens: the length of the reference answer in tokens; batches are planned by it.
        sample: which of several samples of one prompt; it matters only at a temperature above 0.
    """

    ids: list[int]
    messages: list[Message]
    prefill: str = ""
    tools: list | None = None
    chat_template_kwargs: dict | None = None
    expected_new_tokens: int = 0
    sample: int = 0


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    prefill: str = "",
    tools: list | None = None,
    chat_template_kwargs: dict | None = None,
) -> list[int]:
    """Return the token ids of a conversation up to and including the generation prompt, then those of `prefill`.

    A template that rejects the system role, such as Gemma's, gets the system prompt in the first user message. Without
    a chat template the contents are joined by blank lines; there `tools` and `chat_template_kwargs` have no place.

    Raises:
        InputError: the chat template rejects the conversation.
    """
    if tokenizer.chat_template is None:
        text = "\n\n".join(message.get("content") or "" for message in messages) + "\n"
        return tokenizer(text + prefill)["input_ids"]
    _, text = _rendered(tokenizer, messages, tools, chat_template_kwargs)
    return tokenizer(text + prefill, add_special_tokens=False)["input_ids"]


def accepted_messages(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    tools: list | None = None,
    chat_template_kwargs: dict | None = None,
) -> list[Message]:
    """Return the messages as the chat template accepts them: as they are, or with the system prompt in the user's.

    Without a chat template they are as they are.

    Raises:
        InputError: it accepts neither.
    """
    if tokenizer.chat_template is None:
        return messages
    return _rendered(tokenizer, messages, tools, chat_template_kwargs)[0]


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], tools: list | None, variables: dict | None
) -> tuple[list[Message], str]:
    """Return the messages as the chat template accepts them, and the text that it makes of them."""
    options = {"tools": tools, "tokenize": False, "add_generation_prompt": True} | (variables or {})
    try:
        return messages, tokenizer.apply_chat_template(messages, **options)
    except TemplateError as error:
        folded = fold_system_into_user(messages)
        if folded != messages:
            return _rendered(tokenizer, folded, tools, variables)
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(
            f"the tokenizer's chat template rejects a conversation of the roles {roles}: {first_line(error)}"
        ) from error


def fold_system_into_user(messages: list[Message]) -> list[Message]:
    """Return the messages with the system prompt in the first user message, unchanged if either is absent."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    first = next((index for index, message in enumerate(rest) if message["role"] == "user"), None)
    if not system or first is None:
        return messages
    content = "\n\n".join([*system, rest[first]["content"]])
    return [*rest[:first], rest[first] | {"content": content}, *rest[first + 1 :]]
