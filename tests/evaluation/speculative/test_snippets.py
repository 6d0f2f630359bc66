"""The snippets run, and say what they should."""

import json
import shlex

import pytest

from tests.conftest import save_tiny
from trl_prune.evaluation.speculative.snippets import transformers_snippet, vllm_snippet


@pytest.mark.filterwarnings("ignore")
def test_the_transformers_snippet_runs(dense, tmp_path, capsys):
    draft = save_tiny(tmp_path / "draft", num_hidden_layers=2)
    exec(compile(transformers_snippet(str(dense), str(draft), 3), "snippet", "exec"), {})
    assert capsys.readouterr().out


def test_the_vllm_command_names_draft_and_length():
    words = shlex.split(vllm_snippet("owner/name", "a folder/draft", 3))
    assert words[:3] == ["vllm", "serve", "owner/name"]
    assert json.loads(words[4]) == {"method": "draft_model", "model": "a folder/draft", "num_speculative_tokens": 3}
