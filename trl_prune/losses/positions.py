"""Which positions of a batch contribute to the loss."""

from torch import Tensor


# The label of a token without a loss, as in transformers and TRL.
MASKED = -100
# The key of a batch's mask of the positions that count, `(rows, tokens)` bool; without it every token counts.
COUNTED = "counted"


def learned_positions(labels: Tensor) -> Tensor:
    """Return the mask of positions whose next token has a label, `(batch, tokens - 1)` bool.

    Args:
        labels: `(batch, tokens)`, each token's id or `MASKED`; not shifted.
    """
    return labels[:, 1:] != MASKED
