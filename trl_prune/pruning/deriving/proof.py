"""Prove a row on a tiny random model: what surgery writes equals the dense model with the units left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.checkpoints import load_config, model_class
from trl_prune.errors import InputError, first_line
from trl_prune.pruning.deriving.masking import units_masked
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, Family, family_of
from trl_prune.pruning.importance.skipped_layers import layers_skipped
from trl_prune.pruning.keep import Keep, axis_sizes
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut


# The blocks to keep of six: without the last, the first, one and two in the middle, most, every other one.
DEPTH_PLANS = ((0, 1, 2, 3, 4), (1, 2, 3, 4, 5), (0, 1, 3, 4, 5), (0, 1, 4, 5), (0, 5), (0, 1, 2), (1, 3, 5))
# Products of other shapes may round differently; a block too many or too few changes logits by far more.
ROUNDING = 1e-5
TOKENS = torch.arange(20)[None] + 5


class ProofError(Exception):
    """A pruned tiny model that differs from the dense one with the units left out."""


@dataclass(frozen=True)
class DepthProof:
    """What was proven of a type's depth cuts.

    Attributes:
        plans: the plans for which the pruned model equals the dense one with blocks skipped.
        refusals: why the config cannot express each of the others.
    """

    plans: tuple[tuple[int, ...], ...]
    refusals: tuple[str, ...]


@torch.inference_mode()
def prove_depth(dense: PreTrainedModel, plans: Sequence[Sequence[int]] = DEPTH_PLANS) -> DepthProof:
    """Prune a tiny model in depth by several plans, and compare each with the dense model with those blocks skipped.

    Raises:
        ProofError: logits differ, a block does not matter in the tiny model, or generation with a cache differs.
        InputError: no plan can be expressed.
    """
    proven, refusals = [], []
    with TemporaryDirectory() as folder:
        source = Path(folder) / "dense"
        dense.save_pretrained(source)
        dense = loaded(source)
        for number, kept in enumerate(plans):
            try:
                prune_checkpoint(source, Path(folder) / str(number), {LAYERS: list(kept)}, {"path": "tiny"})
            except InputError as error:
                refusals.append(str(error))
                continue
            pruned = loaded(Path(folder) / str(number))
            with layers_skipped(dense, set(range(len(plans[0]) + 1)) - set(kept)):
                skipped = logits_of(dense)
            compare(logits_of(pruned), skipped, logits_of(dense))
            if not proven:
                check_generation(_caches_exactly(dense), pruned)
            proven.append(tuple(kept))
    if not proven:
        raise InputError(refusals[0])
    return DepthProof(tuple(proven), tuple(refusals))


@torch.inference_mode()
def prove_width(dense: PreTrainedModel) -> tuple[dict[str, str], bool]:
    """Prune a tiny model along each axis of its row but blocks, and compare with the dense model with units masked.

    Returns:
        for each axis that is not proven the reason, and whether the embeddings are scaled by sqrt(hidden_size).

    """
    family = family_of(dense.config.model_type)
    failures: dict[str, str] = {}
    scales_embedding = False
    with TemporaryDirectory() as folder:
        source = Path(folder) / "dense"
        dense.save_pretrained(source)
        dense = loaded(source)
        for axes in _cut_together(family):
            try:
                scale = _proven_scale(dense, Path(folder), axes)
                scales_embedding |= scale != 1
            except Exception as error:  # each model class raises errors of its own
                failures |= dict.fromkeys(axes, first_line(error))
        together = width_plans(family.axes - failures.keys() - {KV_HEADS}, axis_sizes(dense.config, family))
        if together:
            prune_checkpoint(source, Path(folder) / "together", together, {"path": "tiny"})
            failures |= _failures_in_generation(dense, Path(folder), together)
    return failures, scales_embedding


def _failures_in_generation(dense: PreTrainedModel, folder: Path, together: Keep) -> dict[str, str]:
    """Return the axes whose cut models generate otherwise with a cache, if that cut along all of them does."""
    try:
        _check_masked_generation(dense, loaded(folder / "together"), together)
    except ProofError as error:
        reason = str(error)
    else:
        return {}
    failing = set()
    for axes in _cut_together(family_of(dense.config.model_type)):
        if set(axes) <= together.keys():
            try:
                keep = {axis: together[axis] for axis in axes}
                _check_masked_generation(dense, loaded(folder / "-".join(axes)), keep)
            except ProofError:
                failing |= set(axes)
    return dict.fromkeys(failing or together, reason)


def _check_masked_generation(dense: PreTrainedModel, pruned: PreTrainedModel, keep: Keep) -> None:
    with units_masked(dense, Cut.of(dense.config, keep)):  # not all classes can generate with blocks skipped
        exact = _caches_exactly(dense)
    check_generation(exact, pruned)


def _cut_together(family: Family) -> list[tuple[str, ...]]:
    """Return the axes of a row but blocks, those together that can only be cut together."""
    tied = () if family.reads_head_dim else tuple(sorted(family.axes & {HEADS, HIDDEN}))
    groups = [(axis,) for axis in sorted(family.axes - {LAYERS, *tied})]
    return [*groups, tied] if tied else groups


def width_plans(axes: Iterable[str], sizes: Mapping[str, int]) -> Keep:
    """Return a plan that keeps about half of the units of each of some axes; KV groups go with their heads."""
    return {axis: kept for name in axes if name != LAYERS for axis, kept in width_plan(name, sizes).items()}


def width_plan(axis: str, sizes: Mapping[str, int]) -> Keep:
    """Return a plan that keeps about half of an axis's units, others in each block, heads equally of every group."""
    layers, size = sizes[LAYERS], sizes[axis]
    if axis == HIDDEN:
        return {axis: [unit for unit in range(size) if unit % 4 in (0, 3)]}
    if axis == HEADS and KV_HEADS in sizes:
        group = size // sizes[KV_HEADS]
        chosen = [
            [first + (layer + first // group) % group for first in range(0, size, group)] for layer in range(layers)
        ]
        return {axis: chosen if group > 1 else [sorted({layer % size, (layer + 1) % size}) for layer in range(layers)]}
    count = max(1, size // 2)
    return {axis: [sorted((layer + 2 * unit) % size for unit in range(count)) for layer in range(layers)]}


def _proven_scale(dense: PreTrainedModel, folder: Path, axes: Sequence[str]) -> float:
    """Cut the checkpoint `dense` of a folder along some axes at once, and compare with the dense model.

    Returns:
        The factor of the embeddings with which the masked dense model equals the pruned one.

    Raises:
        ProofError: no factor makes them equal.
    """
    family = family_of(dense.config.model_type)
    target, keep = folder / "-".join(axes), width_plans(axes, axis_sizes(dense.config, family))
    prune_checkpoint(folder / "dense", target, keep, {"path": "tiny"})
    cut, pruned = Cut.of(dense.config, keep), logits_of(loaded(target))
    scales = [1.0, (len(cut.keep[HIDDEN]) / cut.sizes[HIDDEN]) ** 0.5] if HIDDEN in axes else [1.0]
    for scale in scales:
        with units_masked(dense, cut, scale):
            masked = logits_of(dense)
        try:
            compare(pruned, masked, logits_of(dense))
        except ProofError:
            if scale == scales[-1]:
                raise
        else:
            return scale
    raise AssertionError("a scale returns or raises")


@torch.inference_mode()
def prove_together(dense: PreTrainedModel) -> Keep:
    """Prune a tiny model along all axes of its row at once, and compare with the dense model without all of it.

    Returns:
        The plan: about half of the units of each axis, and the first choice of blocks that the config can express.

    Raises:
        ProofError: logits differ, or generation with a cache differs from generation without one.
        InputError: no plan can be expressed.
    """
    family = family_of(dense.config.model_type)
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "dense", Path(folder) / "pruned"
        dense.save_pretrained(source)
        dense = loaded(source)
        widths = width_plans(family.axes - {LAYERS, KV_HEADS}, axis_sizes(dense.config, family))
        cut = _first_cut(source, target, dense, widths)
        pruned = loaded(target)
        scale = (
            (len(cut.keep[HIDDEN]) / cut.sizes[HIDDEN]) ** 0.5 if HIDDEN in widths and family.scales_embedding else 1
        )
        removed = set(range(cut.sizes[LAYERS])) - set(cut.keep[LAYERS])
        with layers_skipped(dense, removed), units_masked(dense, cut, scale):
            masked = logits_of(dense)
        compare(logits_of(pruned), masked, logits_of(dense))
        _check_masked_generation(dense, pruned, widths)
    return cut.keep


def _first_cut(source: Path, target: Path, dense: PreTrainedModel, widths: Keep) -> Cut:
    """Cut a checkpoint with the first choice of blocks that its config can express."""
    for kept in DEPTH_PLANS[1:]:
        keep = widths | {LAYERS: list(kept)}
        try:
            prune_checkpoint(source, target, keep, {"path": "tiny"})
        except InputError as error:
            refusal = error
        else:
            return Cut.of(dense.config, keep)
    raise refusal


def loaded(folder: Path) -> PreTrainedModel:
    """Return a tiny checkpoint's model in float32 with eager attention."""
    auto_class = model_class(load_config(folder))
    return auto_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def logits_of(model: PreTrainedModel) -> Tensor:
    """Return a model's logits for a short text."""
    return model(TOKENS, use_cache=False).logits


def compare(pruned: Tensor, expected: Tensor, dense: Tensor) -> None:
    """Compare logits of the pruned model with what they must be, and that with the dense model's.

    Raises:
        ProofError: they differ, or what must be is no different from the dense model.
    """
    difference = (pruned - expected).abs().max().item()
    if not difference <= ROUNDING * max(1.0, expected.abs().max().item()):
        raise ProofError(f"the pruned model differs from the dense one without its units by {difference:.2g}")
    if torch.allclose(expected, dense, atol=1e-4):
        raise ProofError("the units that were left out make no difference in the tiny model")


def check_generation(exact: bool, pruned: PreTrainedModel) -> None:
    """Check that a pruned model generates the same with a cache and without one, if the dense model does.

    Args:
        exact: whether the dense model does, without what the pruned model lacks.
        pruned: the pruned model.

    Raises:
        ProofError: it does not.
    """
    if exact and not _caches_exactly(pruned):
        raise ProofError("generation with a cache differs from generation without one")


def _caches_exactly(model: PreTrainedModel) -> bool:
    """Return whether a model generates the same with a cache and without; some classes cannot from one so tiny."""
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 2}
    try:
        texts = [model.generate(TOKENS[:, :12], use_cache=use_cache, **options) for use_cache in (True, False)]
    except (ValueError, RuntimeError):
        return False
    return torch.equal(*texts)
