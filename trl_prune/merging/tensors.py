"""The tensors of several checkpoints side by side, one name at a time."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from trl_prune.checkpoints import tensor_files


# mergekit's slerp interpolates linearly above this cosine.
LERP_COSINE = 0.9995
# Values that are converted to float64 at a time.
CHUNK = 1 << 20


def shared_names(folders: Sequence[Path]) -> list[str]:
    """Return the names of the tensors that all checkpoints store."""
    return sorted(set.intersection(*(set(tensor_files(folder)) for folder in folders)))


def tensors_side_by_side(
    folders: Sequence[Path], names: Collection[str] | None = None
) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield names and tensors of weights that all checkpoints store, read in turn from the memory-mapped files.

    Args:
        folders: the checkpoints.
        names: the tensors' names; all that they share if None.
    """
    files = [tensor_files(folder) for folder in folders]
    with ExitStack() as stack:
        opened: dict[Path, safe_open] = {}
        for name in shared_names(folders) if names is None else names:
            for path in (found[name] for found in files):
                if path not in opened:
                    opened[path] = stack.enter_context(safe_open(path, "pt"))
            yield name, [opened[found[name]].get_tensor(name) for found in files]


def gram(tensors: Sequence[Tensor]) -> Tensor:
    """Return the inner products of flattened tensors in float64, `(N, N)`, without a float64 copy of them."""
    flat = [tensor.flatten() for tensor in tensors]
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for start in range(0, len(flat[0]), CHUNK):
        rows = torch.stack([one[start : start + CHUNK].double() for one in flat])
        total += rows @ rows.T
    return total


def cosine(products: Tensor) -> float:
    """Return the cosine between two tensors from their inner products; a tensor of zeros has 0 with any other."""
    norm = (products[0, 0] * products[1, 1]).sqrt().item()
    return products[0, 1].item() / norm if norm > 0 else 0.0


def lerped(one: Path, other: Path) -> tuple[list[str], int]:
    """Return the tensors of two checkpoints that mergekit's slerp interpolates linearly, and the number of all."""
    cosines = {name: cosine(gram(pair)) for name, pair in tensors_side_by_side([one, other])}
    return [name for name, value in cosines.items() if abs(value) > LERP_COSINE], len(cosines)
