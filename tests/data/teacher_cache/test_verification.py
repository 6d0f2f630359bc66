"""Verification passes with the teacher that wrote the cache, and fails with another one or shifted positions."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.data.teacher_cache.cases import CODECS, CountingLoader, cache_spec, prepared_rows
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import TopK
from trl_prune.data.teacher_cache.shards import checksum, shard_path
from trl_prune.data.teacher_cache.verification import verify
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError


@pytest.mark.parametrize("codec", CODECS)
def test_only_the_teacher_of_the_cache_passes(tmp_path, codec):
    rows, loader = prepared_rows(), CountingLoader(dtype=torch.float32)
    cache = write_cache(tmp_path / "cache", cache_spec(rows, codec, loader))
    verify(cache, rows, loader.model)
    verify(cache, rows, loader.model.bfloat16(), count=2)
    with pytest.raises(InputError, match="differs from this teacher's predictions on row 0"):
        verify(cache, rows, CountingLoader(seed=1, dtype=torch.float32).model)


def test_a_shift_by_one_position_is_detected(tmp_path):
    rows, loader = prepared_rows(), CountingLoader(dtype=torch.float32)
    write_cache(tmp_path / "cache", cache_spec(rows, TopK(), loader, shard_tokens=10**6))
    path = shard_path(tmp_path / "cache", 0)
    tensors = load_file(path)
    names = ("ids", "log_probs", "tail")
    for name in names:
        tensors[name] = tensors[name].roll(1, 0)
    starts = tensors["position_starts"].tolist()
    sequences = [{name: tensors[name][start:end] for name in names} for start, end in pairwise(starts)]
    tensors["checksums"] = torch.tensor([checksum(arrays) for arrays in sequences])
    plan = json.loads((tmp_path / "cache" / "cache.json").read_text())["plan"]
    save_file(tensors, path, metadata={"plan": plan})
    with pytest.raises(InputError, match="its positions are shifted"):
        verify(TeacherCache.open(tmp_path / "cache"), rows, loader.model)
