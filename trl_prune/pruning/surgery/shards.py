"""Write a checkpoint's tensors as safetensors shards, holding one shard in memory at a time."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from trl_prune.checkpoints import INDEX, write_json


# Smaller shards would only mean more files.
MIN_SHARD_BYTES = 256 * 2**20


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int | None = None) -> None:
    """Write named tensors as `model.safetensors`, or as several shards with an index.

    Tensors are passed to safetensors without a copy: views of a memory-mapped file need no memory.

    Args:
        folder: the folder to write to.
        tensors: names and tensors; a generator keeps only one shard in memory.
        max_shard_bytes: the size at which a new shard begins; by default that of the largest tensor so far.
    """
    names_of_shards: list[list[str]] = []
    total_bytes = 0
    for shard in _shards(tensors, max_shard_bytes):
        total_bytes += _bytes(shard.values())
        save_file(shard, folder / f"shard-{len(names_of_shards)}.part", metadata={"format": "pt"})
        names_of_shards.append(sorted(shard))
        shard.clear()
    _rename_shards(folder, names_of_shards, total_bytes)


def peak_bytes(stored: Iterable[int]) -> int:
    """Return the memory in bytes that cutting a checkpoint needs: one shard, the largest tensor and its cut copy.

    Args:
        stored: the bytes of each of its tensors.
    """
    largest = max(stored)
    return max(MIN_SHARD_BYTES, largest) + 2 * largest


def _shards(tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int | None) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    limit = max_shard_bytes or MIN_SHARD_BYTES
    for name, tensor in tensors:
        if shard and _bytes(shard.values()) + tensor.nbytes > limit:
            yield shard
            shard = {}
        if max_shard_bytes is None:
            limit = max(limit, tensor.nbytes)
        shard[name] = tensor.contiguous()
    yield shard


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _rename_shards(folder: Path, names_of_shards: list[list[str]], total_bytes: int) -> None:
    """Give the shards their final names, which hold the number of shards, and write the index."""
    if len(names_of_shards) == 1:
        (folder / "shard-0.part").replace(folder / "model.safetensors")
        return
    weight_map = {}
    for number, names in enumerate(names_of_shards):
        file = f"model-{number + 1:05d}-of-{len(names_of_shards):05d}.safetensors"
        (folder / f"shard-{number}.part").replace(folder / file)
        weight_map |= dict.fromkeys(names, file)
    write_json(folder / INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map})
