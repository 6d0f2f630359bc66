"""Conversations rendered as prompts."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from trl_prune.data.formats import Message
from trl_prune.data.rendering import rendered


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
    _, text = rendered(tokenizer, messages, tools, chat_template_kwargs, add_generation_prompt=True)
    return tokenizer(text + prefill, add_special_tokens=False)["input_ids"]
