"""Reference: the files of one uninterrupted process, byte for byte."""

import pytest
import torch

from tests.data.teacher_cache.cases import (
    CODECS,
    CountingLoader,
    cache_spec,
    dataset_keys,
    prepared_rows,
    read_files,
    teacher,
)
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import Hidden, Sampled, TopK
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED


@pytest.mark.parametrize("codec", CODECS)
def test_the_batch_size_changes_no_byte(tmp_path, codec):
    """In float64, whose rounding, which depends on a batch's shape, is far smaller than the stored precision."""
    rows, loader = prepared_rows(), CountingLoader()
    for batch_size in (1, 3, 13):
        write_cache(tmp_path / str(batch_size), cache_spec(rows, codec, loader, batch_size=batch_size))
    assert read_files(tmp_path / "1") == read_files(tmp_path / "3") == read_files(tmp_path / "13")


@pytest.mark.parametrize("codec", CODECS)
def test_two_processes_write_the_same_files_as_one(tmp_path, codec):
    rows, loader = prepared_rows(), CountingLoader(dtype=torch.float32)
    write_cache(tmp_path / "one", cache_spec(rows, codec, loader))

    def run_second_process():
        share = ProcessShare(1, 2, wait_for_everyone=lambda: None)
        write_cache(tmp_path / "two", cache_spec(rows, codec, loader), share)

    share = ProcessShare(0, 2, wait_for_everyone=run_second_process)
    write_cache(tmp_path / "two", cache_spec(rows, codec, loader), share)
    assert read_files(tmp_path / "one") == read_files(tmp_path / "two")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("codec", CODECS)
def test_an_interrupted_pass_resumes_and_writes_the_same_files(tmp_path, codec):
    rows, loader = prepared_rows(), CountingLoader(dtype=torch.float32)
    full = write_cache(tmp_path / "full", cache_spec(rows, codec, loader))
    num_shards = full.metadata.shards
    assert num_shards > 2

    def stop_after_two(indices):
        yield from indices[:2]
        raise Killed

    with pytest.raises(Killed):
        write_cache(tmp_path / "broken", cache_spec(rows, codec, loader), ProcessShare(progress=stop_after_two))
    with pytest.raises(InputError, match=f"is incomplete: {num_shards - 2} of {num_shards} shards"):
        TeacherCache.open(tmp_path / "broken")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken").glob("shard-*")}
    write_cache(tmp_path / "broken", cache_spec(rows, codec, loader))
    assert read_files(tmp_path / "broken") == read_files(tmp_path / "full")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_complete_cache_loads_no_teacher(tmp_path):
    rows, loader = prepared_rows(), CountingLoader()
    write_cache(tmp_path / "cache", cache_spec(rows, Sampled(), loader))
    write_cache(tmp_path / "cache", cache_spec(rows, Sampled(), loader, batch_size=7))
    assert loader.loads == 1


def test_packed_and_padded_rows_give_the_same_cache(tmp_path):
    rows = prepared_rows(6)
    packed_rows = [
        {
            "input_ids": rows[a]["input_ids"] + rows[b]["input_ids"],
            "labels": rows[a]["labels"] + rows[b]["labels"],
            "seq_lengths": [len(rows[a]["input_ids"]), len(rows[b]["input_ids"])],
        }
        for a, b in ((0, 1), (2, 3), (4, 5))
    ]
    packed = write_cache(tmp_path / "packed", cache_spec(packed_rows, Hidden()))
    padded = write_cache(tmp_path / "padded", cache_spec(rows, Hidden()))
    assert torch.equal(packed.targets(dataset_keys(packed_rows)).hidden, padded.targets(dataset_keys(rows)).hidden)
    assert read_files(tmp_path / "packed") == read_files(tmp_path / "padded")


def test_a_folder_with_other_content_is_refused(tmp_path):
    rows = prepared_rows()
    write_cache(tmp_path / "cache", cache_spec(rows, Sampled()))
    other_specs = [
        cache_spec(rows, Sampled(seed=1)),
        cache_spec(rows, TopK()),
        cache_spec(rows[:-1], Sampled()),
        CacheSpec(rows, teacher(fingerprint="another"), Sampled(), shard_tokens=60),
    ]
    for spec in other_specs:
        with pytest.raises(InputError, match="holds a teacher cache of another teacher, tokenizer, tier or dataset"):
            write_cache(tmp_path / "cache", spec)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a teacher cache"):
        write_cache(tmp_path / "full", cache_spec(rows, Sampled()))


def test_rows_without_a_learned_token_are_refused(tmp_path):
    loader = CountingLoader()
    rows = [{"input_ids": [1, 2], "labels": [MASKED] * 2}]
    with pytest.raises(InputError, match="no row has a token to learn"):
        write_cache(tmp_path / "cache", cache_spec(rows, Sampled(), loader))
    assert loader.loads == 0
