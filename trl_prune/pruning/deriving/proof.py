"""Prove a row on a tiny random model: what surgery writes equals the dense model with the units left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trl_prune.checkpoints import load_config, model_class
from trl_prune.errors import InputError, first_line
from trl_prune.pruning.deriving.masking import units_masked
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS, family_of
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
                check_generation(dense, pruned)
            proven.append(tuple(kept))
    if not proven:
        raise InputError(refusals[0])
    return DepthProof(tuple(proven), tuple(refusals))


@torch.inference_mode()
def prove_width(dense: PreTrainedModel) -> tuple[dict[str, str], bool]:
    """Prune a tiny model along each axis of its row but blocks, and compare with the dense model with units masked.

    Returns:
        for each axis that is not proven the reason, and whether the embeddings are scaled by sqrt(hidden_size).

    Raises:
        ProofError: cut along all proven axes, the model generates something else with a cache than without one.
    """
    family = family_of(dense.config.model_type)
    failures: dict[str, str] = {}
    scales_embedding = False
    with TemporaryDirectory() as folder:
        source = Path(folder) / "dense"
        dense.save_pretrained(source)
        dense = loaded(source)
        sizes = axis_sizes(dense.config, family)
        for axis in sorted(family.axes - {LAYERS}):
            keep = width_plan(axis, sizes)
            try:
                cut = Cut.of(dense.config, keep)
                prune_checkpoint(source, Path(folder) / axis, keep, {"path": "tiny"})
                scale = _matching_scale(dense, loaded(Path(folder) / axis), cut, axis)
                scales_embedding |= scale != 1
            except Exception as error:  # each model class raises errors of its own
                failures[axis] = first_line(error)
        proven = family.axes - failures.keys() - {LAYERS, KV_HEADS}
        together = {axis: kept for name in proven for axis, kept in width_plan(name, sizes).items()}
        if together:
            prune_checkpoint(source, Path(folder) / "together", together, {"path": "tiny"})
            check_generation(dense, loaded(Path(folder) / "together"))
    return failures, scales_embedding


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


def _matching_scale(dense: PreTrainedModel, pruned: PreTrainedModel, cut: Cut, axis: str) -> float:
    """Return the factor of the embeddings with which the masked dense model equals the pruned one."""
    scales = [1.0]
    if axis == HIDDEN:
        scales.append((len(cut.keep[HIDDEN]) / cut.sizes[HIDDEN]) ** 0.5)
    masked_axis = HEADS if axis == KV_HEADS else axis  # a KV group goes with its heads
    for scale in scales:
        with units_masked(dense, cut, masked_axis, scale):
            masked = logits_of(dense)
        try:
            compare(logits_of(pruned), masked, logits_of(dense))
        except ProofError:
            if scale == scales[-1]:
                raise
        else:
            return scale
    raise AssertionError("a scale returns or raises")


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


def check_generation(dense: PreTrainedModel, pruned: PreTrainedModel) -> None:
    """Check that a pruned model generates the same with a cache and without one, if the dense model does.

    Raises:
        ProofError: it does not.
    """
    try:
        exact = _caches_exactly(dense)
    except (ValueError, RuntimeError):
        return  # some classes cannot generate from a model as tiny as this
    if exact and not _caches_exactly(pruned):
        raise ProofError("generation with a cache differs from generation without one")


def _caches_exactly(model: PreTrainedModel) -> bool:
    options = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False, "pad_token_id": 2}
    cached, uncached = (model.generate(TOKENS[:, :12], use_cache=use_cache, **options) for use_cache in (True, False))
    return torch.equal(cached, uncached)
