"""Divergences of a student's distribution from a teacher's, each with its gradient.

A divergence is a function of `Pair` that returns its values, `(n,)`, and its gradient with respect to the student's
logits, `(n, V)`. It may overwrite the teacher's tensors, never the student's. To add one: a function, and an entry in
`DIVERGENCES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trl_prune.errors import InputError


@dataclass
class Pair:
    """Two distributions over the same ids at n positions.

    Attributes:
        p: the student's probabilities, `(n, V)`.
        log_p: their logarithms.
        q: the teacher's probabilities, `(n, V)`.
        log_q: their logarithms.
        shift: how much larger the student's log-partition is than the teacher's, `(n,)`; the student's logits less the
            teacher's are `log_p - log_q + shift`.
    """

    p: Tensor
    log_p: Tensor
    q: Tensor
    log_q: Tensor
    shift: Tensor


Divergence = Callable[[Pair], tuple[Tensor, Tensor]]


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the dot product of each row, `(n,)`, on CPUs without a product of the rows' size."""
    if a.device.type == "cpu":  # a batched product of single rows is several times slower than their dot products
        return torch.stack([torch.dot(x, y) for x, y in zip(a, b, strict=True)])
    return (a * b).sum(1)


def forward_kl(pair: Pair) -> tuple[Tensor, Tensor]:
    """KL(teacher || student), the best of those compared in arXiv 2407.14679 (tables 15 and 16)."""
    values = row_dot(pair.q, pair.log_q.sub_(pair.log_p))
    return values, torch.sub(pair.p, pair.q, out=pair.q)


def reverse_kl(pair: Pair) -> tuple[Tensor, Tensor]:
    """KL(student || teacher)."""
    ratio = torch.sub(pair.log_p, pair.log_q, out=pair.log_q)
    values = row_dot(pair.p, ratio)
    return values, ratio.sub_(values[:, None]).mul_(pair.p)


def generalised_jsd(pair: Pair, beta: float) -> tuple[Tensor, Tensor]:
    """`beta KL(teacher || m) + (1 - beta) KL(student || m)` with `m = beta teacher + (1 - beta) student`.

    Generalised Jensen-Shannon divergence (arXiv 2306.13649, section 2.1); its limits beta = 0 and 1 are the forward
    and reverse KL, which are entries of their own.
    """
    # Where both probabilities are below what float32 holds, the mixture's logarithm is as low as theirs, not -inf.
    log_m = torch.lerp(pair.p, pair.q, beta).clamp_min_(torch.finfo(pair.p.dtype).tiny).log_()
    values = beta * row_dot(pair.q, pair.log_q.sub_(log_m))
    ratio = torch.sub(pair.log_p, log_m, out=log_m)
    mean = row_dot(pair.p, ratio)
    gradient = ratio.sub_(mean[:, None]).mul_(pair.p).mul_(1 - beta)
    return values.add_(mean, alpha=1 - beta), gradient


def mse(pair: Pair) -> tuple[Tensor, Tensor]:
    """Mean over the vocabulary of the squared difference of logits."""
    gap = torch.sub(pair.log_p, pair.log_q, out=pair.log_q).add_(pair.shift[:, None])
    return row_dot(gap, gap) / gap.shape[1], gap.mul_(2 / gap.shape[1])


def cosine(pair: Pair) -> tuple[Tensor, Tensor]:
    """One minus the cosine between the two vectors of probabilities."""
    p_norm, q_norm = pair.p.norm(dim=1), pair.q.norm(dim=1)
    similarity = row_dot(pair.p, pair.q) / (p_norm * q_norm)
    slope = pair.q.div_((p_norm * q_norm)[:, None]).addcmul_(pair.p, (similarity / p_norm**2)[:, None], value=-1)
    mean = row_dot(pair.p, slope)
    return 1 - similarity, slope.sub_(mean[:, None]).mul_(pair.p).neg_()


DIVERGENCES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": generalised_jsd,
    "mse": mse,
    "cosine": cosine,
}
# Of logits or of whole vectors: sums over the other ids do not stand for them.
WHOLE_VOCABULARY = ("mse", "cosine")


def divergence_of(name: str, beta: float = 0.5) -> Divergence:
    """Return the divergence of a name.

    Args:
        name: a key of `DIVERGENCES`.
        beta: the teacher's share in the mixture of `jsd`, between 0 and 1.

    Raises:
        InputError: no such divergence, or a share outside of (0, 1).
    """
    if name not in DIVERGENCES:
        raise InputError(f"divergence is {name!r}; allowed: {', '.join(DIVERGENCES)}")
    if name != "jsd":
        return DIVERGENCES[name]
    if not 0 < beta < 1:
        raise InputError(f"jsd_beta is {beta}; wanted: a share between 0 (forward_kl) and 1 (reverse_kl)")
    return partial(generalised_jsd, beta=beta)
