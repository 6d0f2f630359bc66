"""Prove that a checkpoint on disk is whole: its tensors are those of its config, and its logits are numbers."""

from pathlib import Path
from typing import TYPE_CHECKING

from trl_prune.checkpoints.loading import load_config, load_model, model_class


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class DamagedCheckpointError(RuntimeError):
    """A checkpoint whose tensors do not match its config, or whose logits are wrong."""


def verify_loads(folder: Path) -> None:
    """Check every tensor's name and shape against the config, with transformers' loader, without allocating memory.

    Raises:
        DamagedCheckpointError: a tensor is missing, unexpected or of another shape.
    """
    auto_class = model_class(load_config(folder))
    try:
        try:
            _, loading_info = auto_class.from_pretrained(folder, device_map="meta", output_loading_info=True)
        except RuntimeError as error:
            if "set_data" not in str(error):
                raise
            # Classes that tie a bias (CTRL, XLNet) load into memory only.
            _, loading_info = auto_class.from_pretrained(folder, output_loading_info=True)
    except RuntimeError as error:
        raise DamagedCheckpointError(f"{folder} does not load: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading_info[problem]:
            raise DamagedCheckpointError(
                f"{folder} does not load completely: {problem} {sorted(loading_info[problem])[:5]}"
            )


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
        DamagedCheckpointError: they are not finite.
    """
    logits = probe_logits(load_model(folder, dtype, "cpu"), tokens)
    if not logits.isfinite().all():
        raise DamagedCheckpointError(f"{folder} gives logits that are not finite")
    return logits
