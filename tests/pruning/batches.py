"""Batches of texts of different lengths, padded on either side."""

import torch

from tests.conftest import VOCABULARY
from trl_prune.pruning.importance.forward import Batch


LENGTHS = (17, 9, 12, 5)


def batch(lengths: tuple[int, ...] = LENGTHS, side: str = "right", width: int | None = None) -> Batch:
    """Return one batch; texts of the same length are the same text."""
    width = width or max(lengths)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens = (torch.arange(length) * 7 + length) % VOCABULARY
        columns = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, columns], mask[row, columns] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}
