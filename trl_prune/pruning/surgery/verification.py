"""Verify a written checkpoint: load it with transformers, and optionally run it beside the dense model."""

from pathlib import Path

import torch

from trl_prune.checkpoints import load_model
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.keep import Keep


class DamagedCheckpointError(RuntimeError):
    """A checkpoint whose tensors do not match its config, or whose logits are wrong."""


def verify_loads(folder: Path) -> None:
    """Check every tensor's name and shape against the config, with transformers' loader, without allocating memory.

    Raises:
        DamagedCheckpointError: a tensor is missing, unexpected or of another shape.
    """
    from transformers import AutoModelForCausalLM

    try:
        _, loading_info = AutoModelForCausalLM.from_pretrained(folder, device_map="meta", output_loading_info=True)
    except RuntimeError as error:
        raise DamagedCheckpointError(f"{folder} does not load: {error}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading_info[problem]:
            raise DamagedCheckpointError(
                f"{folder} does not load completely: {problem} {sorted(loading_info[problem])[:5]}"
            )


@torch.inference_mode()
def verify_logits(source: Path, folder: Path, keep: Keep, exact: bool = True, tokens: int = 32) -> None:
    """Run the pruned model; after a pure depth cut, compare it with the dense model with those blocks skipped.

    Args:
        source: the checkpoint that was cut.
        folder: the pruned checkpoint.
        keep: the plan.
        exact: whether to compare with the dense model after a pure depth cut; repairs make them differ.
        tokens: number of tokens to run.

    Raises:
        DamagedCheckpointError: logits that are not finite, or that differ.
    """
    pruned = load_model(folder, "float32", "cpu")
    ids = torch.arange(tokens)[None] % pruned.config.vocab_size
    logits = pruned(ids, use_cache=False).logits
    if not logits.isfinite().all():
        raise DamagedCheckpointError(f"{folder} gives logits that are not finite")
    if keep.keys() - {LAYERS} or not exact:
        return
    dense = load_model(source, "float32", "cpu")
    removed = set(range(dense.config.num_hidden_layers)) - set(keep[LAYERS])
    with layers_skipped(dense, removed):
        difference = (dense(ids, use_cache=False).logits - logits).abs().max().item()
    if difference > 0:
        raise DamagedCheckpointError(f"{folder} differs from the dense model without its blocks by {difference:g}")
