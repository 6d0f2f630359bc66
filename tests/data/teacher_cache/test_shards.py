import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.data.teacher_cache.cases import CODECS, cache_spec, dataset_keys, prepared_rows
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import Sampled
from trl_prune.data.teacher_cache.shards import shard_path
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_fails_the_checksum(tmp_path, codec):
    rows = prepared_rows()
    write_cache(tmp_path / "cache", cache_spec(rows, codec))
    path = shard_path(tmp_path / "cache", 0)
    tensors = load_file(path)
    name = {"sampled": "entries", "topk": "tail", "hidden": "states"}[codec.tier]
    tensors[name].view(torch.uint8).flatten()[0] ^= 1
    plan = json.loads((tmp_path / "cache" / "cache.json").read_text())["plan"]
    save_file(tensors, path, metadata={"plan": plan})
    cache = TeacherCache.open(tmp_path / "cache")
    with pytest.raises(InputError, match="corrupt: sequence 0 does not match its checksum"):
        cache.targets(dataset_keys(rows))
    cache.targets(dataset_keys(rows[-1:]))


def test_truncated_shards_and_those_of_another_cache_are_refused(tmp_path):
    rows = prepared_rows()
    for name in ("truncated", "mixed"):
        write_cache(tmp_path / name, cache_spec(rows, Sampled()))
    truncated = shard_path(tmp_path / "truncated", 1)
    truncated.write_bytes(truncated.read_bytes()[:-3])
    with pytest.raises(InputError, match="is corrupt"):
        TeacherCache.open(tmp_path / "truncated")
    another = write_cache(tmp_path / "another", cache_spec(rows, Sampled(seed=1)))
    shard_path(tmp_path / "mixed", 1).write_bytes(shard_path(another.folder, 1).read_bytes())
    with pytest.raises(InputError, match="belongs to another cache"):
        TeacherCache.open(tmp_path / "mixed")
