"""Writing a checkpoint's tensors as safetensors shards, one at a time in memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from trl_prune.checkpoints import INDEX, write_json


# Shards smaller than this would only make many files.
SMALLEST_SHARD_BYTES = 256 * 2**20


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int | None = None) -> None:
    """Write named tensors as `model.safetensors`, or as shards with an index where they are more than one shard's.

    A shard is handed to the safetensors library as it is: tensors that are views of a memory-mapped file cost no
    memory of their own.

    Args:
        folder: where the files go.
        tensors: names and tensors, made as they are asked for.
        max_shard_bytes: the size at which a new shard begins; where left out, that of the largest tensor so far.
    """
    shards: list[list[str]] = []
    total = 0
    for shard in _shards(tensors, max_shard_bytes):
        total += _bytes(shard.values())
        save_file(shard, folder / f"shard-{len(shards)}.part", metadata={"format": "pt"})
        shards.append(sorted(shard))
        shard.clear()
    _name_shards(folder, shards, total)


def _shards(tensors: Iterable[tuple[str, Tensor]], max_shard_bytes: int | None) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    largest = max_shard_bytes or SMALLEST_SHARD_BYTES
    for name, tensor in tensors:
        if shard and _bytes(shard.values()) + tensor.nbytes > largest:
            yield shard
            shard = {}
        if max_shard_bytes is None:
            largest = max(largest, tensor.nbytes)
        shard[name] = tensor.contiguous()
    yield shard


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _name_shards(folder: Path, shards: list[list[str]], total: int) -> None:
    if len(shards) == 1:
        (folder / "shard-0.part").replace(folder / "model.safetensors")
        return
    weight_map = {}
    for number, names in enumerate(shards):
        name = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}.part").replace(folder / name)
        weight_map |= dict.fromkeys(names, name)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
