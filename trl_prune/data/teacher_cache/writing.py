"""Write a `TeacherCache`: one pass in which the teacher encodes its predictions for every prepared row.

The rows alone determine which sequences share a shard, and each sequence has its own random numbers. So any number of
processes may write the shards in any order, and an interrupted pass resumes with the missing ones.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from trl_prune.checkpoints import atomic_file, weights_fingerprint, write_json
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare
from trl_prune.data.teacher_cache.cache import HEAD_FILE, TeacherCache
from trl_prune.data.teacher_cache.codecs import Arrays, Hidden, codec_settings
from trl_prune.data.teacher_cache.encoding import CacheSpec, TeacherEncoder
from trl_prune.data.teacher_cache.metadata import FORMAT, METADATA_FILE, CacheMetadata, read_metadata
from trl_prune.data.teacher_cache.sequences import SequenceSpan, distinct_sequences, tokenizer_fingerprint
from trl_prune.data.teacher_cache.shards import (
    CHECKSUMS,
    ENTRY_STARTS,
    KEYS,
    POSITION_STARTS,
    checksum,
    shard_path,
)
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import LMHead


def write_cache(folder: Path, spec: CacheSpec, share: ProcessShare = SINGLE_PROCESS) -> TeacherCache:
    """Write a teacher's predictions for prepared rows, or what is missing of them, and return the cache.

    Args:
        folder: the cache's folder.
        spec: rows, teacher and codec.
        share: the shards that this process writes; all processes must share one folder.

    Raises:
        InputError: no row has a learned token, the folder holds another cache, or the model's logits are not its head
            applied to its final states.
    """
    write_shards(folder, spec, share)
    share.wait_for_everyone()
    return TeacherCache.open(folder)


def write_shards(folder: Path, spec: CacheSpec, share: ProcessShare) -> None:
    """Write one process's share of the shards; the main process writes metadata and head too.

    Raises:
        InputError: as `write_cache`.
    """
    spans = distinct_sequences(spec.rows)
    if not spans:
        raise InputError("no row has a token to learn, so there is no prediction of the teacher to cache")
    shards = plan_shards(spans, spec.shard_tokens)
    plan = plan_hash(spans, spec)
    check_folder(folder, plan)
    share_indices = range(len(shards))[share.process_index :: share.num_processes]
    missing = [index for index in share_indices if not shard_path(folder, index).is_file()]
    is_main_process = share.process_index == 0
    if missing or (is_main_process and not (folder / METADATA_FILE).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        encoder = TeacherEncoder(spec)
        if is_main_process:
            write_metadata(folder, encoder, shards, plan)
        for index in share.progress(missing):
            write_shard(shard_path(folder, index), shards[index], encoder.encode_shard(shards[index]), plan)


def plan_shards(spans: list[SequenceSpan], shard_tokens: int) -> list[list[SequenceSpan]]:
    """Group consecutive sequences into shards; a sequence starts a new shard once the last has `shard_tokens`."""
    shards, tokens = [[]], 0
    for span in spans:
        if tokens >= shard_tokens:
            shards.append([])
            tokens = 0
        shards[-1].append(span)
        tokens += span.num_tokens
    return shards


def plan_hash(spans: list[SequenceSpan], spec: CacheSpec) -> str:
    """Return a hash of everything that determines a cache's content."""
    settings = [
        FORMAT,
        codec_settings(spec.codec),
        spec.teacher.fingerprint,
        tokenizer_fingerprint(spec.teacher.tokenizer),
        spec.vocab_size,
        spec.shard_tokens,
    ]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(np.array([span.key for span in spans], dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def check_folder(folder: Path, plan: str) -> None:
    """Check that a folder is empty or holds a part of the cache with this plan hash.

    Raises:
        InputError: it holds something else.
    """
    if (folder / METADATA_FILE).is_file():
        if read_metadata(folder).plan != plan:
            raise InputError(
                f"{folder} holds a teacher cache of another teacher, tokenizer, tier or dataset; name a new folder"
            )
    elif folder.is_dir() and any(not entry.name.startswith((".", "shard-", HEAD_FILE)) for entry in folder.iterdir()):
        raise InputError(f"{folder} is not empty and not a teacher cache; name a new folder")


def write_metadata(folder: Path, encoder: TeacherEncoder, shards: list[list[SequenceSpan]], plan: str) -> None:
    """Write `cache.json`, preceded by the LM head if the tier uses it."""
    spec = encoder.spec
    if isinstance(spec.codec, Hidden):
        write_head(folder / HEAD_FILE, encoder.head)
    spans = [span for shard in shards for span in shard]
    metadata = CacheMetadata(
        settings=codec_settings(spec.codec),
        plan=plan,
        teacher=[spec.teacher.fingerprint, weights_fingerprint(encoder.model)],
        tokenizer=tokenizer_fingerprint(spec.teacher.tokenizer),
        vocab_size=len(encoder.head.weight),
        num_hidden_layers=encoder.model.config.get_text_config().num_hidden_layers,
        sequences=len(spans),
        tokens=sum(span.num_tokens for span in spans),
        positions=sum(span.num_positions for span in spans),
        shards=len(shards),
    )
    write_json(folder / METADATA_FILE, asdict(metadata))


def write_shard(path: Path, spans: list[SequenceSpan], sequences: list[Arrays], plan: str) -> None:
    """Write a shard atomically.

    Args:
        path: the file.
        spans: the shard's sequences.
        sequences: the encoded arrays of each.
        plan: the cache's plan hash.
    """
    tensors = {name: torch.cat([arrays[name] for arrays in sequences]).contiguous() for name in sequences[0]}
    tensors[KEYS] = torch.tensor([span.key for span in spans], dtype=torch.int64)
    tensors[POSITION_STARTS] = _starts([span.num_positions for span in spans])
    if "entries" in sequences[0]:
        tensors[ENTRY_STARTS] = _starts([len(arrays["entries"]) for arrays in sequences])
    tensors[CHECKSUMS] = torch.tensor([checksum(arrays) for arrays in sequences], dtype=torch.int64)
    save_tensors(tensors, path, plan)


def _starts(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def write_head(path: Path, head: LMHead) -> None:
    """Write an LM head."""
    tensors = {
        "weight": head.weight,
        "bias": head.bias,
        "scale": torch.tensor(head.scale, dtype=torch.float64),
        "softcap": None if head.softcap is None else torch.tensor(head.softcap, dtype=torch.float64),
    }
    present = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if tensor is not None}
    save_tensors(present, path, plan="")


def save_tensors(tensors: dict[str, Tensor], path: Path, plan: str) -> None:
    """Write tensors to a safetensors file atomically, with the plan hash in its metadata."""
    with atomic_file(path) as partial:
        save_file(tensors, partial, metadata={"plan": plan})
        partial.chmod(0o644)  # safetensors makes its files readable by the owner only
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
