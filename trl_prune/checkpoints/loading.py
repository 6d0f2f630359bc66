"""Load a checkpoint's model, tokenizer and config with transformers."""

from pathlib import Path
from typing import TYPE_CHECKING

from trl_prune.errors import InputError, first_line


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_model(folder: Path, dtype: str, device: str | None = None, offload: bool = False) -> "PreTrainedModel":
    """Return a checkpoint's causal LM in eval mode, on the accelerator where there is one.

    Args:
        folder: the checkpoint.
        dtype: dtype of the weights in memory, or `auto` for the stored one.
        device: the device to load to; the accelerator, or else the CPU, where None.
        offload: spread the model over all accelerators, CPU memory and disk (accelerate's `device_map="auto"`).
    """
    from transformers import AutoModelForCausalLM

    if offload:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map="auto").eval()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model.to(device or best_device()).eval()


def best_device() -> str:
    """Return `cuda` where there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(folder: Path | str) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a checkpoint's folder or hub id, with a padding token.

    Raises:
        InputError: the checkpoint has no readable tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder} has no tokenizer that can be read: {first_line(error)}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(folder: Path) -> "PreTrainedConfig":
    """Return a checkpoint's config.

    Raises:
        InputError: config.json cannot be read, or names a model type transformers does not know.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as error:  # each config class raises errors of its own
        raise InputError(f"{folder / 'config.json'} cannot be used: {first_line(error)}") from error
