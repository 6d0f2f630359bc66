"""Whether a tokenizer and a model fit together, before rows go through both."""

from collections.abc import Callable, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from trl_prune.data.normal_rows import RowFault
from trl_prune.data.rendering import rendered, row_conversation
from trl_prune.errors import InputError


# A conversation that every chat template takes.
QUESTION = [{"role": "user", "content": "a"}]
# The special tokens that a tokenizer or a trainer adds to every text, and pads with.
ADDED = ("bos_token", "eos_token", "pad_token")


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, folder: Path, embeddings: int, variables: Mapping[str, object] | None = None
) -> None:
    """Check that a tokenizer has a vocabulary, and that the model knows the tokens which it adds to any text.

    Args:
        tokenizer: the tokenizer.
        folder: its checkpoint, for the error.
        embeddings: the number of rows of the model's embedding.
        variables: those of the chat template.

    Raises:
        InputError: it has not, or the model does not.
    """
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise InputError(
            f"{folder} has a tokenizer without a vocabulary; wanted: a tokenizer.json, or its class's files"
        )
    for name in ADDED:
        token, index = getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")
        if index is not None and index >= embeddings:
            raise InputError(
                f"{folder} has a tokenizer whose {name} {token!r} has the id {index}, and the model's embedding has "
                f"{embeddings:,} rows; resize it with `resize_token_embeddings`, or name another {name}"
            )
    written = _template_text(tokenizer, variables)
    for token, index in unknown_tokens(tokenizer, embeddings).items():
        if token in written:
            raise InputError(
                f"{folder} has a chat template that writes {token!r}, a token of the id {index}, and the model's "
                f"embedding has {embeddings:,} rows; resize it with `resize_token_embeddings`, or use another template"
            )


def unknown_tokens(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> dict[str, int]:
    """Return the tokens of a tokenizer that have no row in a model's embedding, with their ids."""
    return {token: index for token, index in tokenizer.get_vocab().items() if index >= embeddings}


def _template_text(tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, object] | None) -> str:
    """Return what the chat template makes of a question; nothing where there is none, or where it refuses."""
    if tokenizer.chat_template is None:
        return ""
    try:
        return rendered(tokenizer, QUESTION, variables=variables, add_generation_prompt=True)[1]
    except InputError:  # rows that it refuses are named as they are read
        return ""


def check_padding(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Check that batches can be padded and answers ended.

    Args:
        tokenizer: the tokenizer.
        source: what needs it, for the error.

    Raises:
        InputError: there is no padding token, as where there is no end-of-sequence token to pad with.
    """
    if tokenizer.pad_token is None:
        raise InputError(
            f"{source} needs a padding or an end-of-sequence token, and the tokenizer of {tokenizer.name_or_path} has "
            "neither; set `eos_token` in its tokenizer_config.json"
        )


class KnownTokens:
    """Refuses normal rows with a token that has no row in the model's embedding.

    Some tokenizers have a few tokens that their model has not, which no text uses.

    Args:
        tokenizer: returns the tokenizer; called for the first row.
        embeddings: the number of rows of the model's embedding.
    """

    def __init__(self, tokenizer: Callable[[], PreTrainedTokenizerBase], embeddings: int):
        self._tokenizer, self._embeddings = tokenizer, embeddings
        self._unknown: dict[str, int] | None = None

    def __call__(self, row: dict) -> dict:
        """Return the row.

        Raises:
            RowFault: it has such a token.
        """
        if self._unknown is None:
            self._unknown = unknown_tokens(self._tokenizer(), self._embeddings)
        for token, index in self._unknown.items():
            column = next((column for column, text in _texts(row) if token in text), None)
            if column is not None:
                raise RowFault(
                    column,
                    f"a text with {token!r}, a token of the id {index}",
                    f"tokens that the model's embedding of {self._embeddings:,} rows has",
                )
        return row


def _texts(row: dict) -> list[tuple[str, str]]:
    messages = row_conversation(row)
    if messages is None:
        return [(name, row[name]) for name in ("prompt", "completion", "text") if row.get(name) is not None]
    column = "messages" if row.get("messages") is not None else "prompt"
    return [(column, message["content"]) for message in messages]
