"""Divergences between a student's and a teacher's distributions, each with its gradient.

A divergence is a function of a `DistributionPair` that returns its values, `(n,)`, and the gradient of their sum with
respect to the student's logits, `(n, V)`. It may overwrite the teacher's tensors, never the student's. To add one: a
function, and an entry in `DIVERGENCES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trl_prune.errors import InputError


@dataclass
class DistributionPair:
    """The student's and the teacher's distributions over the same ids at n positions.

    Attributes:
        p: the student's probabilities, `(n, V)`.
        log_p: their logarithms.
        q: the teacher's probabilities, `(n, V)`.
        log_q: their logarithms.
        shift: the student's log-partition minus the teacher's, `(n,)`: the student's logits minus the teacher's are
            `log_p - log_q + shift`.
    """

    p: Tensor
    log_p: Tensor
    q: Tensor
    log_q: Tensor
    shift: Tensor


Divergence = Callable[[DistributionPair], tuple[Tensor, Tensor]]


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the dot product of each row, `(n,)`, on CPUs without a temporary of the size of `a`."""
    if a.device.type == "cpu":  # a batched matrix product of single rows is several times slower than dot products
        return torch.stack([torch.dot(x, y) for x, y in zip(a, b, strict=True)])
    return (a * b).sum(1)


def forward_kl(pair: DistributionPair) -> tuple[Tensor, Tensor]:
    """KL(teacher || student), the best divergence in arXiv 2407.14679 (tables 15 and 16)."""
    values = row_dot(pair.q, pair.log_q.sub_(pair.log_p))
    return values, torch.sub(pair.p, pair.q, out=pair.q)


def reverse_kl(pair: DistributionPair) -> tuple[Tensor, Tensor]:
    """KL(student || teacher)."""
    log_ratio = torch.sub(pair.log_p, pair.log_q, out=pair.log_q)
    values = row_dot(pair.p, log_ratio)
    return values, log_ratio.sub_(values[:, None]).mul_(pair.p)


def generalised_jsd(pair: DistributionPair, beta: float) -> tuple[Tensor, Tensor]:
    """`beta KL(teacher || m) + (1 - beta) KL(student || m)` with `m = beta teacher + (1 - beta) student`.

    Generalised Jensen-Shannon divergence (arXiv 2306.13649, section 2.1). Its limits at beta = 0 and 1 are the forward
    and the reverse KL, which have their own entries.
    """
    # Where both probabilities underflow float32, log m is clamped to the least of their logarithms instead of -inf.
    log_m = torch.lerp(pair.p, pair.q, beta).clamp_min_(torch.finfo(pair.p.dtype).tiny).log_()
    values = beta * row_dot(pair.q, pair.log_q.sub_(log_m))
    log_ratio = torch.sub(pair.log_p, log_m, out=log_m)
    mean = row_dot(pair.p, log_ratio)
    gradient = log_ratio.sub_(mean[:, None]).mul_(pair.p).mul_(1 - beta)
    return values.add_(mean, alpha=1 - beta), gradient


def mse(pair: DistributionPair) -> tuple[Tensor, Tensor]:
    """Squared difference of the logits, averaged over the vocabulary."""
    difference = torch.sub(pair.log_p, pair.log_q, out=pair.log_q).add_(pair.shift[:, None])
    vocab_size = difference.shape[1]
    return row_dot(difference, difference) / vocab_size, difference.mul_(2 / vocab_size)


def cosine(pair: DistributionPair) -> tuple[Tensor, Tensor]:
    """One minus the cosine similarity of the two vectors of probabilities."""
    p_norm, q_norm = pair.p.norm(dim=1), pair.q.norm(dim=1)
    similarity = row_dot(pair.p, pair.q) / (p_norm * q_norm)
    # d similarity / d p, then through the softmax.
    gradient = pair.q.div_((p_norm * q_norm)[:, None]).addcmul_(pair.p, (similarity / p_norm**2)[:, None], value=-1)
    mean = row_dot(pair.p, gradient)
    return 1 - similarity, gradient.sub_(mean[:, None]).mul_(pair.p).neg_()


DIVERGENCES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": generalised_jsd,
    "mse": mse,
    "cosine": cosine,
}
# These depend on each id's logit or probability, so that a top k with the mass of all others does not determine them.
FULL_VOCABULARY = ("mse", "cosine")


def get_divergence(name: str, beta: float = 0.5) -> Divergence:
    """Return a divergence by name.

    Args:
        name: a key of `DIVERGENCES`.
        beta: the teacher's weight in the mixture of `jsd`, between 0 and 1.

    Raises:
        InputError: an unknown name, or `beta` outside of (0, 1).
    """
    if name not in DIVERGENCES:
        raise InputError(f"divergence is {name!r}; allowed: {', '.join(DIVERGENCES)}")
    if name != "jsd":
        return DIVERGENCES[name]
    if not 0 < beta < 1:
        raise InputError(f"jsd_beta is {beta}; wanted: a weight between 0 (forward_kl) and 1 (reverse_kl)")
    return partial(generalised_jsd, beta=beta)
