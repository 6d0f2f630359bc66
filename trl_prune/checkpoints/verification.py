"""Prove that a checkpoint on disk is whole: its tensors are those of its config, and its logits are numbers."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trl_prune.checkpoints.companions import GENERATION, changed_companions
from trl_prune.checkpoints.loading import load_config, load_model, model_class
from trl_prune.checkpoints.reading import CONFIG, read_header, tensor_files
from trl_prune.errors import InputError, first_line


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

# Names in a sentence.
MAX_NAMES = 5
logger = logging.getLogger(__name__)


class DamagedCheckpointError(RuntimeError):
    """A checkpoint whose tensors do not match its config, or whose logits are wrong."""


def prove_source(folder: Path) -> frozenset[str]:
    """Check that transformers finds all weights of a checkpoint's model in its files, before anything is made of them.

    No memory is allocated, and a checkpoint that has not changed since is not looked at again.

    Returns:
        The names of tensors in its files that the model does not use, such as a value head beside it: transformers
        warns of them, and they are left out of what is made of the checkpoint.

    Raises:
        InputError: transformers cannot load it, lacks weights or finds them of another shape; the sentence names it.
    """
    files = {folder / CONFIG, folder / GENERATION, *tensor_files(folder).values()}
    found = [file for file in sorted(files) if file.is_file()]
    state = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in found)
    return _proven(folder, state)


@lru_cache(maxsize=64)
def _proven(folder: Path, state: tuple) -> frozenset[str]:  # noqa: ARG001
    try:
        found = _loading_info(folder, ignore_mismatched_sizes=True)
    except ImportError as error:
        raise InputError(f"{folder} needs a package that is missing here: {first_line(error)}") from error
    except Exception as error:  # each class and quantiser raises errors of its own
        raise InputError(f"{folder} cannot be loaded by transformers: {first_line(error)}") from error
    if found["mismatched_keys"]:
        raise InputError(_mismatched(folder, sorted(found["mismatched_keys"])))
    if found["missing_keys"]:
        raise InputError(_missing(folder, sorted(found["missing_keys"])))
    unused = _stored_names(folder, found["unexpected_keys"])
    if unused:
        logger.warning("%s has tensors that its model does not use and that are left out: %s", folder, _names(unused))
    return unused


def _loading_info(folder: Path, **options: object) -> dict[str, set]:
    """Return what transformers' loader says of a checkpoint's tensors, without allocating memory."""
    config = load_config(folder)
    auto_class = model_class(config)
    options |= {"output_loading_info": True}
    try:
        if getattr(config.get_text_config(), "quantization_config", None) or hasattr(config, "quantization_config"):
            return auto_class.from_pretrained(folder, device_map="meta", **options)[1]
        return _loaded_on_meta(folder, config, auto_class, options)[1]
    except RuntimeError as error:
        if "set_data" not in str(error):
            raise
        # Classes that tie a bias (CTRL, XLNet) load into memory only.
        return auto_class.from_pretrained(folder, **options)[1]


def _loaded_on_meta(folder: Path, config: "PreTrainedConfig", auto_class: type, options: dict) -> tuple:
    """Load tensors of the stored names and shapes without their values: for `device_map="meta"` all would be read."""
    import torch
    from transformers import GenerationConfig
    from transformers.utils import GENERATION_CONFIG_NAME

    with torch.device("meta"):
        own_class = type(auto_class.from_config(config))
        headers = [read_header(path) for path in sorted(set(tensor_files(folder).values()))]
        state = {name: torch.empty(entry["shape"]) for header in headers for name, entry in header.items()}
    if (folder / GENERATION_CONFIG_NAME).is_file():
        GenerationConfig.from_pretrained(folder)
    return own_class.from_pretrained(None, config=config, state_dict=state, device_map="meta", **options)


def _mismatched(folder: Path, mismatched: list[tuple]) -> str:
    name, stored, expected = mismatched[0]
    sizes = f"{name} is {tuple(stored)} in the files of {folder} and {tuple(expected)} by its {CONFIG}"
    if tuple(stored)[1:] == tuple(expected)[1:] and expected[0] == load_config(folder).get_text_config().vocab_size:
        return f"{sizes}: set its vocab_size to {stored[0]}"
    return sizes


def _missing(folder: Path, missing: list[str]) -> str:
    lacks = f"{folder} lacks {_names(missing)}, which transformers would fill with random numbers"
    if all("head" in name or name.startswith("embed_out") for name in missing):
        return (
            f"{lacks}: it is a model without a language-model head, such as a backbone, a classifier or a reward "
            "model; wanted: a causal LM"
        )
    return lacks


def _stored_names(folder: Path, unexpected: set[str]) -> frozenset[str]:
    """Return the names in the files of tensors by the names that the loader gives them, with its own prefixes.

    Raises:
        InputError: one is not found, such as a tensor that the loader makes of several.
    """
    stored, found = list(tensor_files(folder)), set()
    for name in sorted(unexpected):
        same = [other for other in stored if f".{name}".endswith(f".{other}") or f".{other}".endswith(f".{name}")]
        if not same:
            raise InputError(f"{folder} has tensors for {name}, which its model does not use")
        found.update(same)
    return frozenset(found)


def _names(names: object) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return f"{', '.join(shown[:MAX_NAMES])}{more}"


def verify_loads(folder: Path) -> None:
    """Check every tensor's name and shape against the config, with transformers' loader, without allocating memory.

    Raises:
        DamagedCheckpointError: a tensor is missing, unexpected or of another shape.
    """
    try:
        found = _loading_info(folder)
    except RuntimeError as error:
        raise DamagedCheckpointError(f"{folder} does not load: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[problem]:
            raise DamagedCheckpointError(f"{folder} does not load completely: {problem} {sorted(found[problem])[:5]}")


def verify_companions(source: Path, folder: Path) -> None:
    """Check that a checkpoint has the tokenizer, processor and other companions of the one that it was made from.

    Raises:
        DamagedCheckpointError: one is missing or changed.
    """
    changed = changed_companions(source, folder)
    if changed:
        raise DamagedCheckpointError(f"{folder} has lost or changed {_names(changed)} of {source}")


def probe_logits(model: "PreTrainedModel", tokens: int = 32) -> "Tensor":
    """Return a model's logits on the first ids of its vocabulary, `(1, tokens, vocab_size)`."""
    import torch

    ids = torch.arange(tokens, device=model.device)[None] % model.config.get_text_config().vocab_size
    with torch.inference_mode():
        return model(ids, use_cache=False).logits


def verify_runs(folder: Path, dtype: str, tokens: int = 32) -> "Tensor":
    """Run a checkpoint on the CPU, check that its logits are finite, and return them as `probe_logits` does.

    Args:
        folder: the checkpoint.
        dtype: dtype of the weights in memory, or `auto` for the stored one.
        tokens: number of tokens to run.

    Raises:
        DamagedCheckpointError: they, or weights, are not finite.
    """
    try:
        logits = probe_logits(load_model(folder, dtype, "cpu"), tokens)
    except InputError as error:
        raise DamagedCheckpointError(f"{folder} gives logits that are not finite: {error}") from error
    if not logits.isfinite().all():
        raise DamagedCheckpointError(f"{folder} gives logits that are not finite")
    return logits
