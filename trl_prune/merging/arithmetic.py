"""Whether merged tensors are what the method's formula makes of the models' tensors."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trl_prune.checkpoints import DamagedCheckpointError
from trl_prune.merging.tensors import LERP_COSINE, cosine, gram, shared_names, tensors_side_by_side


# Tensors that are checked, drawn at random.
SAMPLED = 8
# mergekit computes in float32: the error of a value relative to itself, and to the tensor's largest.
RELATIVE, ABSOLUTE = 1e-4, 1e-5
# Methods whose result is, tensor by tensor, a sum of the models and the base with one factor each.
SUMS = ("linear", "slerp", "nuslerp", "multislerp", "karcher", "model_stock", "task_arithmetic")
Check = Callable[[Tensor, Sequence[Tensor]], bool]


@dataclass(frozen=True)
class Merged:
    """One run of mergekit.

    Attributes:
        folder: what it wrote.
        config: its configuration.
        models: the models' folders, in the configuration's order.
        base: the base's folder, where it is none of the models.
    """

    folder: Path
    config: Mapping[str, object]
    models: Sequence[Path]
    base: Path | None = None

    @property
    def method(self) -> str:
        """The merge method."""
        return str(self.config["merge_method"])

    @property
    def sources(self) -> list[Path]:
        """All folders that were read, the base last."""
        return [*self.models, *([] if self.base is None else [self.base])]


def verify_arithmetic(merged: Merged, seed: int = 0) -> dict[str, object]:
    """Check that all merged values are numbers, and some tensors against the method's formula.

    Where the formula is a sum with plain factors (`factors`), it is computed in float64; of other sums it is checked
    that the tensor is one; of other methods that a weight in which no model differs from the base stays as it is.

    Args:
        merged: what was merged, and from what.
        seed: seed of the draw of tensors.

    Returns:
        `checked`, the number of tensors; `of`, that of all; `how`: `formula`, `sum` or `unchanged`.

    Raises:
        DamagedCheckpointError: a tensor is not what it should be.
    """
    _verify_finite(merged.folder)
    how, holds = _check(merged)
    names = shared_names([merged.folder, *merged.sources])
    sampled = random.Random(seed).sample(names, min(SAMPLED, len(names)))
    for name, (result, *sources) in tensors_side_by_side([merged.folder, *merged.sources], sampled):
        if not holds(result, sources):
            raise DamagedCheckpointError(f"{merged.folder}: {name} is not what {merged.method} makes of the models'")
    return {"checked": len(sampled), "of": len(names), "how": how}


def _verify_finite(folder: Path) -> None:
    for name, (tensor,) in tensors_side_by_side([folder]):
        if not tensor.isfinite().all():
            raise DamagedCheckpointError(f"{folder}: {name} has values that are not finite")


def _check(merged: Merged) -> tuple[str, Check]:
    """Return how a method's results are checked, and the check."""
    if merged.method not in SUMS:
        return "unchanged", _is_unchanged
    if _is_plain(merged.config):
        return "formula", lambda result, sources: _is_close(result, _weighted(merged, sources), sources)
    return "sum", _is_sum


def _weighted(merged: Merged, sources: Sequence[Tensor]) -> Tensor:
    pairs = zip(factors(merged.config, sources), sources, strict=True)
    return sum(factor * source.double() for factor, source in pairs)


def _is_plain(config: Mapping[str, object]) -> bool:
    """Return whether a configuration has only numbers for parameters, and no other than the formulas read."""
    known = {"linear": {"weight"}, "slerp": {"t"}, "nuslerp": {"weight"}, "task_arithmetic": {"weight", "lambda"}}
    parameters = {**(config.get("parameters") or {})}
    own = [model.get("parameters") or {} for model in config["models"]]
    values = [value for found in (parameters, *own) for value in found.values()]
    names = set(parameters).union(*own)
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    has_base = "base_model" in config and config["merge_method"] in ("linear", "nuslerp")
    return is_number and not has_base and names == known.get(config["merge_method"])


def factors(config: Mapping[str, object], sources: Sequence[Tensor]) -> list[float]:
    """Return the factor of each source in a merged tensor, computed in float64.

    `linear` divides the weights by their sum; `task_arithmetic` is base + lambda * sum(weight * (model - base));
    `slerp` and `nuslerp` have sin((1 - t) a) / sin(a) and sin(t a) / sin(a) with the angle a between the flattened
    tensors, or 1 - t and t where the formula of mergekit is linear.

    Args:
        config: mergekit's configuration, with numbers for parameters.
        sources: the tensors of the models, the base last.
    """
    shared = config.get("parameters") or {}
    weights = [(model.get("parameters") or {}).get("weight", shared.get("weight")) for model in config["models"]]
    if config["merge_method"] == "linear":
        return [weight / sum(weights) for weight in weights]
    if config["merge_method"] == "task_arithmetic":
        scaled = [shared.get("lambda", 1.0) * weight for weight in weights]
        return [*scaled, 1 - sum(scaled)]
    is_slerp = config["merge_method"] == "slerp"
    t = shared["t"] if is_slerp else weights[1] / sum(weights)
    return list(_slerp_factors(cosine(gram(sources)), t, LERP_COSINE if is_slerp else 1 - 1e-12))


def _slerp_factors(between: float, t: float, lerp_cosine: float) -> tuple[float, float]:
    if abs(between) > lerp_cosine:
        return 1 - t, t
    angle = math.acos(max(-1.0, min(1.0, between)))
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _is_close(result: Tensor, expected: Tensor, sources: Sequence[Tensor]) -> bool:
    largest = max((source.abs().max().item() for source in sources if source.numel()), default=0.0)
    rounding = 2 * torch.finfo(result.dtype).eps
    return torch.allclose(result.double(), expected, rtol=max(RELATIVE, rounding), atol=ABSOLUTE * largest)


def _is_sum(result: Tensor, sources: Sequence[Tensor]) -> bool:
    """Return whether a tensor is a sum of others, up to rounding: what is left of its norm outside their span."""
    products = gram([*sources, result])
    inner, norm = products[:-1, -1], products[-1, -1]
    left = norm - inner @ torch.linalg.pinv(products[:-1, :-1], hermitian=True) @ inner
    tolerance = 2 * torch.finfo(result.dtype).eps + RELATIVE
    return left.item() <= tolerance**2 * norm.item()


def _is_unchanged(result: Tensor, sources: Sequence[Tensor]) -> bool:
    *models, base = sources
    same = torch.stack([model == base for model in models]).all(dim=0)
    return torch.equal(result[same], base[same])
