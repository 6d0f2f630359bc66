"""The pass that lets a teacher encode once about every prepared row, into a `TeacherCache`.

Which sequences share a shard follows from the rows alone, and each draw from its own sequence, so shards may be
written by any number of processes, in any order, and a broken pass goes on with the shards that are missing.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare
from trl_prune.data.teacher_cache.cache import (
    CHECKSUMS,
    ENTRY_STARTS,
    FORMAT,
    HEAD,
    KEYS,
    MARKER,
    POSITION_STARTS,
    TeacherCache,
    checksum,
    read_facts,
    shard_path,
)
from trl_prune.data.teacher_cache.codecs import Arrays, settings_of
from trl_prune.data.teacher_cache.encoding import CacheSpec, TeacherEncoder, save_tensors
from trl_prune.data.teacher_cache.sequences import (
    SequencePlace,
    places_of,
    tokenizer_fingerprint,
)
from trl_prune.errors import InputError


def write_cache(folder: Path, work: CacheSpec, share: ProcessShare = SINGLE_PROCESS) -> TeacherCache:
    """Write what a teacher says about prepared rows, or what of it is missing, and return the cache.

    Args:
        folder: where it goes.
        work: rows, teacher and tier.
        share: which shards this process writes; the folder must be one for all processes.

    Raises:
        InputError: no row teaches anything, the folder holds another cache, or the model's logits are not its head's.
    """
    write_shards(folder, work, share)
    share.wait()
    return TeacherCache.open(folder)


def write_shards(folder: Path, work: CacheSpec, share: ProcessShare) -> None:
    """Write one process's share of a cache, and what of the whole the first process writes.

    Raises:
        InputError: as `write_cache`.
    """
    places = places_of(work.rows)
    if not places:
        raise InputError("no row has a token to learn, so there is nothing for the teacher to say")
    shards = planned_shards(places, work.shard_tokens)
    plan = plan_hash(places, work)
    check_folder(folder, plan)
    mine = list(range(len(shards))[share.rank :: share.processes])
    wanted = [number for number in mine if not shard_path(folder, number).is_file()]
    leads = share.rank == 0
    if wanted or (leads and not (folder / MARKER).is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        encoder = TeacherEncoder(work)
        if leads:
            encoder.write_index(folder, shards, plan)
        for number in share.progress(wanted):
            write_shard(shard_path(folder, number), encoder.encode_shard(shards[number]), plan)


def planned_shards(places: list[SequencePlace], shard_tokens: int) -> list[list[SequencePlace]]:
    """Return runs of sequences, each closed by the one that fills it."""
    shards, tokens = [[]], 0
    for place in places:
        if tokens >= shard_tokens:
            shards.append([])
            tokens = 0
        shards[-1].append(place)
        tokens += place.tokens
    return shards


def plan_hash(places: list[SequencePlace], work: CacheSpec) -> str:
    """Return a hash of all that decides a cache's content."""
    told = [
        FORMAT,
        settings_of(work.codec),
        work.teacher.fingerprint,
        tokenizer_fingerprint(work.teacher.tokenizer),
        work.vocab_size,
        work.shard_tokens,
    ]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(np.array([place.key for place in places], dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def check_folder(folder: Path, plan: str) -> None:
    """Check that a folder is free or holds a part of this very cache.

    Raises:
        InputError: it holds something else.
    """
    if (folder / MARKER).is_file():
        if read_facts(folder).plan != plan:
            raise InputError(
                f"{folder} holds a teacher cache of another teacher, tokenizer, tier or dataset; name a new folder"
            )
    elif folder.is_dir() and any(not entry.name.startswith((".", "shard-", HEAD)) for entry in folder.iterdir()):
        raise InputError(f"{folder} is not empty and no teacher cache; name a new folder")


def write_shard(path: Path, content: tuple[list[SequencePlace], list[Arrays]], plan: str) -> None:
    """Write a shard, whole or not at all."""
    places, parts = content
    tensors = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
    tensors[KEYS] = torch.tensor([place.key for place in places], dtype=torch.int64)
    tensors[POSITION_STARTS] = _starts([place.positions for place in places])
    if "entries" in parts[0]:
        tensors[ENTRY_STARTS] = _starts([len(part["entries"]) for part in parts])
    tensors[CHECKSUMS] = torch.tensor([checksum(part) for part in parts], dtype=torch.int64)
    save_tensors(tensors, path, plan)


def _starts(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)
