"""Merge removed heads into kept ones (Minitron, arXiv 2407.14679, section 2.3).

With a KV group's `L` heads sorted by importance, the best first, and `K` of them kept, for `i` in `[2K - L + 1, K]`

    head_i  <-  head_i + scale * (head_i - head_{2K - i + 1})

so that the worst kept head is paired with the best removed one, and so on outwards; it needs `L <= 2K`. The paper's
sign moves a head away from the removed one; a negative `scale` moves it towards it. A head is its rows of the matrices
that read the residual stream: queries, and, with one KV head per query head, also keys and values.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.pruning.families import HEADS, HIDDEN, KV_HEADS, LAYERS
from trl_prune.pruning.keep import Keep
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.cut import Cut


class HeadMerge:
    """Adds to each kept head its difference from the removed head that it is paired with.

    Args:
        cut: the plan applied to the dense model.
        partners: for each dense layer the partner of each kept head: a removed head, or the head itself.
        record: the repair's entry in the provenance.
    """

    def __init__(self, cut: Cut, partners: Sequence[list[int]], record: dict):
        self.cut, self.partners, self.record = cut, partners, record

    @cached_property
    def partner_cut(self) -> Cut:
        """The same plan with the partners in place of the kept heads."""
        keep: Keep = self.cut.keep | {HEADS: self.partners}
        if self.cut.sizes.get(KV_HEADS) == self.cut.sizes[HEADS]:
            keep |= {KV_HEADS: self.partners}
        return replace(self.cut, keep=keep)

    def apply(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:
        """Return a weight or bias of queries (keys, values) with its heads merged, any other tensor unchanged."""
        if not self._outputs_heads(name):
            return tensor
        partner = self.partner_cut.cut_tensor(name, dense)
        return (tensor.float() + self.record["scale"] * (tensor.float() - partner.float())).to(tensor.dtype)

    def _outputs_heads(self, name: str) -> bool:
        axes = self.cut.family.dim_axes(name)
        if self.cut.layer_of(name) is None or not any({HEADS, KV_HEADS} & set(parts) for parts in axes):
            return False
        input_dim = 0 if self.cut.family.transposed else -1
        return name.endswith(".bias") or (len(axes) == 2 and axes[input_dim] == (HIDDEN,))


def partners(scores: Tensor, kept: Sequence[int], group_size: int) -> list[int]:
    """Return the partner of each kept head of one block: a removed head of its KV group, or the head itself.

    Args:
        scores: importance of each of the block's heads, `(heads,)`.
        kept: indices of the kept heads.
        group_size: number of query heads per KV head.
    """
    partner = {head: head for head in kept}
    for start in range(0, len(scores), group_size):
        ranked = sorted(range(start, start + group_size), key=lambda head: -float(scores[head]))
        kept_in_group = [head for head in ranked if head in partner]
        removed_in_group = [head for head in ranked if head not in partner]
        partner |= dict(zip(reversed(kept_in_group), removed_in_group, strict=False))
    return [partner[head] for head in kept]


def check(source: Path, cut: Cut, *, scale: float) -> None:  # noqa: ARG001
    """Check that the plan removes heads, and no more of a KV group than it keeps.

    Raises:
        InputError: it removes none, more than it keeps, or whole groups.
    """
    if HEADS not in cut.keep:
        raise InputError(f"head_merge repairs cuts of {HEADS}; the plan cuts {', '.join(cut.keep)}")
    group_size = _group_size(cut)
    kept = len(cut.keep[HEADS][0]) * group_size // cut.sizes[HEADS]  # the same in every group, if no group is removed
    if _removes_groups(cut):
        raise InputError(
            "head_merge pairs each removed head with a kept one of its group; the plan removes whole groups"
        )
    if group_size > 2 * kept:
        raise InputError(
            f"head_merge pairs each removed head with a kept one; the plan keeps {kept} of {group_size} per group"
        )


def _is_multi_head(cut: Cut) -> bool:
    return cut.sizes.get(KV_HEADS, cut.sizes[HEADS]) == cut.sizes[HEADS]


def _group_size(cut: Cut) -> int:
    """Return the number of heads that may be paired with each other; in multi-head attention all of them."""
    return cut.sizes[HEADS] if _is_multi_head(cut) else cut.sizes[HEADS] // cut.sizes[KV_HEADS]


def _removes_groups(cut: Cut) -> bool:
    return not _is_multi_head(cut) and len(cut.keep[KV_HEADS][0]) < cut.sizes[KV_HEADS]


def build(source: Path, cut: Cut, calibration: Calibration, *, scale: float = 1.0) -> HeadMerge:  # noqa: ARG001
    """Return the repair.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan applied to the dense model.
        calibration: its `head_scores` rank the heads.
        scale: factor of the difference to add; 1 is the paper's, a negative one moves towards the removed head.

    Raises:
        InputError: the calibration has no scores of the heads.
    """
    scores = calibration.head_scores
    expected = (cut.sizes[LAYERS], cut.sizes[HEADS])
    if scores is None or tuple(scores.shape) != expected:
        actual = "none" if scores is None else f"shape {tuple(scores.shape)}"
        raise InputError(f"head_merge ranks heads by importance: it requires scores of shape {expected}, got {actual}")
    pairs = [partners(scores[layer], kept, _group_size(cut)) for layer, kept in enumerate(cut.keep[HEADS])]
    return HeadMerge(cut, pairs, {"repair": "head_merge", "scale": scale})
