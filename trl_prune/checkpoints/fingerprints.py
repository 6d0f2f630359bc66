"""Hashes that change when a checkpoint, on disk or in memory, does."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from trl_prune.checkpoints.companions import companions
from trl_prune.checkpoints.reading import tensor_files


if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLE_BYTES = 1 << 16
SAMPLES_PER_FILE = 32
SAMPLES_PER_WEIGHT = 64


def fingerprint(folder: Path) -> str:
    """Return a hash that changes when a checkpoint does: of its small files, and of samples of each weight file.

    Reading all weights would cost minutes on a large model at every start, so the size of each file and blocks spread
    over it represent it; training or merging changes every tensor and so some block.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in companions(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    for path in sorted(set(tensor_files(folder).values())):
        digest.update(f"{path.name} {os.path.getsize(path)}".encode())
        digest.update(_sample_hash(path))
    return digest.hexdigest()[:16]


def _sample_hash(path: Path) -> bytes:
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in range(SAMPLES_PER_FILE):
            file.seek(block * max(size - SAMPLE_BYTES, 0) // (SAMPLES_PER_FILE - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()


def weights_fingerprint(model: "PreTrainedModel") -> str:
    """Return a hash of values spread over every weight of a model in memory."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for weight in model.parameters():
        values = weight.detach().flatten()
        sampled = values[:: max(1, len(values) // SAMPLES_PER_WEIGHT)].float().cpu()
        digest.update(sampled.numpy().tobytes())
    return digest.hexdigest()[:16]
