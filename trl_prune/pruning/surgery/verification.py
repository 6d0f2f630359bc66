"""Verify a pruned checkpoint: run it, beside the dense model where that must give the same logits."""

from pathlib import Path

from trl_prune.checkpoints import DamagedCheckpointError, load_model, num_blocks, probe_logits, verify_runs
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.keep import Keep


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
    logits = verify_runs(folder, "float32", tokens)
    if keep.keys() - {LAYERS} or not exact:
        return
    dense = load_model(source, "float32", "cpu")
    removed = set(range(num_blocks(dense.config.get_text_config()))) - set(keep[LAYERS])
    with layers_skipped(dense, removed):
        difference = (probe_logits(dense, tokens) - logits).abs().max().item()
    if difference > 0:
        raise DamagedCheckpointError(f"{folder} differs from the dense model without its blocks by {difference:g}")
