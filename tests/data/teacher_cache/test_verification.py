"""A cache is proved by its teacher, and disproved by another or by a shift."""

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.data.teacher_cache.test_cache import CODECS, Loader, prepared_rows, work
from trl_prune.data.teacher_cache.cache import TeacherCache, checksum, shard_path
from trl_prune.data.teacher_cache.codecs import TopK
from trl_prune.data.teacher_cache.verification import verify
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError


@pytest.mark.parametrize("codec", CODECS)
def test_alignment_is_proved_with_the_teacher(tmp_path, codec):
    rows, loader = prepared_rows(), Loader(dtype=torch.float32)
    cache = write_cache(tmp_path / "cache", work(rows, codec, loader))
    verify(cache, rows, loader.model)
    verify(cache, rows, loader.model.bfloat16(), count=2)
    with pytest.raises(InputError, match="does not say what this teacher says about row 0"):
        verify(cache, rows, Loader(seed=1, dtype=torch.float32).model)


def test_a_shift_by_one_position_is_noticed(tmp_path):
    rows, loader = prepared_rows(), Loader(dtype=torch.float32)
    write_cache(tmp_path / "cache", work(rows, TopK(), loader, shard_tokens=10**6))
    path = shard_path(tmp_path / "cache", 0)
    tensors = load_file(path)
    for name in ("ids", "log_probs", "tail"):
        tensors[name] = tensors[name].roll(1, 0)
    starts = tensors["position_starts"].tolist()
    parts = [
        {name: tensors[name][start:end] for name in ("ids", "log_probs", "tail")} for start, end in pairwise(starts)
    ]
    tensors["checksums"] = torch.tensor([checksum(part) for part in parts])
    cache_plan = json.loads((tmp_path / "cache" / "cache.json").read_text())["plan"]
    save_file(tensors, path, metadata={"plan": cache_plan})
    with pytest.raises(InputError, match="out of step"):
        verify(TeacherCache.open(tmp_path / "cache"), rows, loader.model)
