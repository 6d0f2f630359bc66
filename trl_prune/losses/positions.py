"""Which positions of a batch are learned."""

from torch import Tensor


# The label of a token that is not learned, transformers' and TRL's own.
MASKED = -100


def learned_positions(labels: Tensor) -> Tensor:
    """Return where the next token is learned, `(batch, tokens - 1)` bool.

    Args:
        labels: `(batch, tokens)`, a token's own id where it is learned; not shifted.
    """
    return labels[:, 1:] != MASKED
