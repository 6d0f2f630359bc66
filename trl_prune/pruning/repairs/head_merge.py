"""Heads that go leave their residual in heads that stay (Minitron, arXiv 2407.14679, section 2.3).

With a KV group's `L` heads sorted by importance, the best first, and `K` of them kept, for `i` in `[2K - L + 1, K]`

    head_i  <-  head_i + scale * (head_i - head_{2K - i + 1})

so that the worst kept head meets the best removed one, and so on outwards; it needs `L <= 2K`. The paper's sign moves
a head away from the one that goes; a negative `scale` moves it towards it. A head is its rows of the matrices that
read the stream: queries, and with as many KV heads as heads also keys and values.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from trl_prune.errors import InputError
from trl_prune.pruning.families import GROUPS, HEADS, HIDDEN, LAYERS
from trl_prune.pruning.keep import Keep
from trl_prune.pruning.repairs.calibration import Calibration
from trl_prune.pruning.surgery.cut import Cut


class HeadMerge:
    """Adds to each kept head its difference from its partner among the removed.

    Args:
        cut: the plan at work.
        partners: for each dense block the partner of each kept head: a removed head, or itself.
        record: what the provenance says.
    """

    def __init__(self, cut: Cut, partners: Sequence[list[int]], record: dict):
        self.cut, self.partners, self.record = cut, partners, record

    @cached_property
    def other(self) -> Cut:
        """The same plan with the partners in the place of the kept heads."""
        keep: Keep = self.cut.keep | {HEADS: self.partners}
        if self.cut.sizes.get(GROUPS) == self.cut.sizes[HEADS]:
            keep |= {GROUPS: self.partners}
        return replace(self.cut, keep=keep)

    def tensor(self, name: str, tensor: Tensor, dense: Tensor) -> Tensor:
        """Return a matrix or bias of queries (keys, values) with its heads merged, anything else as it is."""
        if not self._makes_heads(name):
            return tensor
        other = self.other.tensor(name, dense)
        return (tensor.float() + self.record["scale"] * (tensor.float() - other.float())).to(tensor.dtype)

    def _makes_heads(self, name: str) -> bool:
        axes = self.cut.family.axis_dims(name)
        if self.cut.layer_of(name) is None or not any({HEADS, GROUPS} & set(parts) for parts in axes):
            return False
        reads = 0 if self.cut.family.transposed else -1
        return name.endswith(".bias") or (len(axes) == 2 and axes[reads] == (HIDDEN,))


def partners(scores: Tensor, kept: Sequence[int], group: int) -> list[int]:
    """Return the partner of each kept head of one block: a removed head of its KV group, or itself.

    Args:
        scores: importance of each of the block's heads.
        kept: the heads that stay.
        group: how many heads share a KV head.
    """
    partner = {head: head for head in kept}
    for start in range(0, len(scores), group):
        ranked = sorted(range(start, start + group), key=lambda head: -float(scores[head]))
        stay = [head for head in ranked if head in partner]
        gone = [head for head in ranked if head not in partner]
        partner |= dict(zip(reversed(stay), gone, strict=False))
    return [partner[head] for head in kept]


def check(source: Path, cut: Cut, *, scale: float) -> None:  # noqa: ARG001
    """Check that heads go, and no more of a group than stay.

    Raises:
        InputError: they do not, or more do.
    """
    if HEADS not in cut.keep:
        raise InputError(f"head_merge repairs cuts of {HEADS}; the plan cuts {', '.join(cut.keep)}")
    each = _group(cut)
    left = len(cut.keep[HEADS][0]) * each // cut.sizes[HEADS]  # as many of every group, where no group goes
    if _groups_go(cut):
        raise InputError("head_merge gives each removed head a kept one of its group; the plan removes whole groups")
    if each > 2 * left:
        raise InputError(
            f"head_merge gives each removed head one that stays; the plan leaves {left} of {each} a group"
        )


def _is_multi_head(cut: Cut) -> bool:
    return cut.sizes.get(GROUPS, cut.sizes[HEADS]) == cut.sizes[HEADS]


def _group(cut: Cut) -> int:
    return cut.sizes[HEADS] if _is_multi_head(cut) else cut.sizes[HEADS] // cut.sizes[GROUPS]


def _groups_go(cut: Cut) -> bool:
    return not _is_multi_head(cut) and len(cut.keep[GROUPS][0]) < cut.sizes[GROUPS]


def build(source: Path, cut: Cut, calibration: Calibration, *, scale: float = 1.0) -> HeadMerge:  # noqa: ARG001
    """Return the repair.

    Args:
        source: the dense checkpoint's folder.
        cut: the plan at work.
        calibration: its `head_scores` rank the heads.
        scale: how much of the difference to add; 1 is the paper's, a negative one moves towards the removed head.

    Raises:
        InputError: no scores of the heads.
    """
    scores = calibration.head_scores
    wanted = (cut.sizes[LAYERS], cut.sizes[HEADS])
    if scores is None or tuple(scores.shape) != wanted:
        told = "none" if scores is None else f"shape {tuple(scores.shape)}"
        raise InputError(f"head_merge ranks heads by their importance: wanted scores of shape {wanted}, got {told}")
    paired = [partners(scores[layer], kept, _group(cut)) for layer, kept in enumerate(cut.keep[HEADS])]
    return HeadMerge(cut, paired, {"repair": "head_merge", "scale": scale})
