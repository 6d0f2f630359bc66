import copy

import pytest

from tests.conftest import VOCABULARY, save_tiny
from trl_prune.checkpoints import load_tokenizer
from trl_prune.data.normal_rows import RowFault
from trl_prune.data.tokenizer_checks import KnownTokens, check_padding, check_tokenizer
from trl_prune.errors import InputError


@pytest.fixture
def larger(tokenizer):
    """A tokenizer with a token that the model has not."""
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["<new>"])
    return changed


def test_a_token_without_a_row_in_the_embedding_is_found_where_a_row_has_it(larger, tokenizer):
    known = KnownTokens(lambda: larger, VOCABULARY)
    for row in (
        {"text": "new"},
        {"messages": [{"role": "user", "content": "new"}]},
        {"prompt": "a", "completion": "b"},
    ):
        assert known(row) is row
    message = {"role": "user", "content": "a <new> one"}
    for row, column in (
        ({"text": "a <new> one"}, "text"),
        ({"prompt": "a", "completion": "<new>"}, "completion"),
        ({"messages": [message]}, "messages"),
        ({"prompt": [message], "completion": [message]}, "prompt"),
    ):
        with pytest.raises(RowFault, match=f"column {column} is a text with '<new>', a token of the id {VOCABULARY}"):
            known(row)
        assert KnownTokens(lambda: tokenizer, VOCABULARY)(row) is row


def test_tokens_that_are_added_to_every_text_must_be_known(larger, tokenizer, tmp_path):
    check_tokenizer(tokenizer, tmp_path, VOCABULARY)
    check_tokenizer(larger, tmp_path, VOCABULARY)
    larger.pad_token = "<new>"
    with pytest.raises(
        InputError, match=f"whose pad_token '<new>' has the id {VOCABULARY}, and the model's embedding"
    ):
        check_tokenizer(larger, tmp_path, VOCABULARY)


def test_tokens_that_the_chat_template_writes_must_be_known(larger, tmp_path):
    larger.chat_template += "{% if enable_thinking %}<new>{% endif %}"
    check_tokenizer(larger, tmp_path, VOCABULARY)
    with pytest.raises(InputError, match=f"a chat template that writes '<new>', a token of the id {VOCABULARY}"):
        check_tokenizer(larger, tmp_path, VOCABULARY, {"enable_thinking": True})


def test_without_padding_and_end_nothing_can_be_batched(tokenizer):
    check_padding(tokenizer, "recover")
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = bare.eos_token = None
    with pytest.raises(InputError, match="recover needs a padding or an end-of-sequence token, and the tokenizer of"):
        check_padding(bare, "recover")


def test_a_damaged_or_missing_vocabulary_is_one_sentence(tmp_path):
    folder = save_tiny(tmp_path / "llama")
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {')
    with pytest.raises(InputError, match="has no tokenizer that can be read"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer that can be read|has a tokenizer without a vocabulary"):
        check_tokenizer(load_tokenizer(folder), folder, VOCABULARY)
