"""Hashes that change when a checkpoint, on disk or in memory, does."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedModel
from trl_prune.checkpoints.companions import companions
from trl_prune.checkpoints.reading import tensor_files


SAMPLE_BYTES = 1 << 16


SAMPLES_PER_FILE = 32


def fingerprint(folder: Path) -> str:
    """Return a hash that changes when a checkpoint does: its small files, and per weight file its size and samples.

    Reading whole weights would cost minutes on a large model at every start, so blocks spread over each file stand
    for it; training or merging changes every tensor and so some block.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in companions(folder):
        digest.update(path.name.encode() + path.read_bytes())
    for path in sorted(set(tensor_files(folder).values())):
        digest.update(f"{path.name} {os.path.getsize(path)}".encode())
        digest.update(_sampled(path))
    return digest.hexdigest()[:16]


def _sampled(path: Path) -> bytes:
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in range(SAMPLES_PER_FILE):
            stream.seek(block * max(size - SAMPLE_BYTES, 0) // (SAMPLES_PER_FILE - 1))
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.digest()


def weights_fingerprint(model: "PreTrainedModel") -> str:
    """Return a hash of values spread over every weight of a model in memory."""
    digest = hashlib.sha256(model.config.to_json_string().encode())
    for weight in model.parameters():
        values = weight.detach().flatten()
        spread = values[:: max(1, len(values) // 64)].float().cpu()
        digest.update(spread.numpy().tobytes())
    return digest.hexdigest()[:16]
