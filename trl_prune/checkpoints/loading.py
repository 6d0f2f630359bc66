"""Load a checkpoint's model, tokenizer and config with transformers."""

import inspect
import json
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from trl_prune.checkpoints.finiteness import check_finite
from trl_prune.checkpoints.precision import loading_dtype
from trl_prune.errors import InputError, first_line


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


# Characters of what transformers says of a tokenizer.
TOKENIZER_REASON = 240


def load_model(folder: Path, dtype: str, device: str | None = None, offload: bool = False) -> "PreTrainedModel":
    """Return a checkpoint's causal LM in eval mode, on the accelerator where there is one; with all its towers.

    Args:
        folder: the checkpoint.
        dtype: dtype of the weights in memory, or `auto` for the stored one, where the processor has it.
        device: the device to load to; the accelerator, or else the CPU, where None.
        offload: spread the model over all accelerators, CPU memory and disk (accelerate's `device_map="auto"`).

    Raises:
        InputError: a weight is NaN or infinite; of an offloaded model they are not looked at.
    """
    config, device = load_config(folder), device or best_device()
    auto_class = model_class(config)
    if dtype == "auto":
        dtype = loading_dtype(config, device)
    if offload:
        return auto_class.from_pretrained(folder, dtype=dtype, device_map="auto").eval()
    model = auto_class.from_pretrained(folder, dtype=dtype).to(device)
    check_finite(model.named_parameters(), folder)
    return model.eval()


def model_class(config: "PreTrainedConfig") -> type:
    """Return the auto class that loads all of a checkpoint: a causal LM's, or that of a model with other towers."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    has_towers = config.get_text_config() is not config
    is_multimodal = has_towers and config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return AutoModelForImageTextToText if is_multimodal else AutoModelForCausalLM


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
        # Said, because where nothing is said transformers asks on the terminal whether it may run a checkpoint's code.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a damaged tokenizer.json has an error of its library's own
        reason = shorten(str(error), TOKENIZER_REASON) or type(error).__name__  # whose first line may end in a colon
        raise InputError(f"{folder} has no tokenizer that can be read: {reason}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(folder: Path) -> "PreTrainedConfig":
    """Return a checkpoint's config.

    Raises:
        InputError: config.json cannot be read, names a model type that transformers does not know, or needs code of
            its own.
    """
    from transformers import AutoConfig

    _check_no_remote_code(folder / "config.json")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _check_kinds(config)
    except Exception as error:  # each config class raises errors of its own
        raise InputError(f"{folder / 'config.json'} cannot be used: {first_line(error)}") from error
    return config


def _check_kinds(config: "PreTrainedConfig") -> None:
    """Check what transformers itself takes as it stands: names of classes, the text tower and how it is quantised."""
    from transformers import PreTrainedConfig
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    names = config.architectures or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"architectures is {names!r}; wanted: a list of names")
    text = config.get_text_config()
    if not isinstance(text, PreTrainedConfig):
        raise TypeError(f"text_config is {text!r}; wanted: an object")
    quantised = getattr(text, "quantization_config", None) or getattr(config, "quantization_config", None)
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    # Bitsandbytes' configs may lack the method, and transformers knows two of its.
    if method is not None and not any(known.startswith(str(method)) for known in AUTO_QUANTIZATION_CONFIG_MAPPING):
        raise ValueError(f"quantization_config has the quant_method {method!r}, which transformers does not know")
    if not config.return_dict:
        raise ValueError("return_dict is false, with which transformers' own models do not run")


def _check_no_remote_code(path: Path) -> None:
    """Check that a model's classes are those of transformers; code in a checkpoint is never run."""
    from transformers import CONFIG_MAPPING

    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        code, model_type = values.get("auto_map"), values.get("model_type")
    except (OSError, ValueError, AttributeError):
        return  # transformers says what is wrong with it
    if isinstance(code, dict) and code and model_type not in CONFIG_MAPPING:
        raise InputError(
            f"{path} asks for code of its own ({next(iter(code.values()))}) for model type {model_type!r}, which is "
            f"not run; wanted: a model type of transformers"
        )
    kernel = _hub_kernel(values)
    if kernel is not None:
        raise InputError(f"{path} asks for code of the hub's ({kernel}), which is not run; leave that key out")


def _hub_kernel(values: object) -> str | None:
    """Return the hub id of a kernel that a config names as an implementation: transformers downloads and runs it."""
    if not isinstance(values, dict):
        return None
    named = [value for key, value in values.items() if key.endswith("_implementation") and "/" in str(value)]
    inner = map(_hub_kernel, values.values())
    return str(named[0]) if named else next((kernel for kernel in inner if kernel), None)


def cache_argument(model: "PreTrainedModel") -> str:
    """Return the name under which a model's forward pass takes its KV cache, which transformers 5.24 changed."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


# The key of the number of blocks, where num_hidden_layers counts something else: LongCat has two attentions a block.
BLOCK_COUNTS = {"longcat_flash": "num_layers"}


def num_blocks(config: "PreTrainedConfig") -> int:
    """Return the number of decoder blocks of a text tower's config."""
    return getattr(config, BLOCK_COUNTS.get(config.model_type, "num_hidden_layers"))
