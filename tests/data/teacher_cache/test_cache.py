import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import tiny_model, tiny_tokenizer
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.cache import TeacherCache, shard_path
from trl_prune.data.teacher_cache.codecs import Hidden, Sampled, TopK
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.sequences import MASKED, row_keys
from trl_prune.data.teacher_cache.verification import verify
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError
from trl_prune.losses.lm_head import lm_head


CODECS = [Sampled(draws=20), TopK(k=5), Hidden()]


def prepared_rows(count=13, seed=0):
    """Rows of random length, the first tokens of each masked, as a prompt is."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(3, 30, (1,), generator=generator))
        ids = torch.randint(0, 200, (length,), generator=generator).tolist()
        prompt = length // 3
        rows.append({"input_ids": ids, "labels": [MASKED] * prompt + ids[prompt:]})
    return rows


class Loader:
    """A teacher that counts how often it was loaded."""

    def __init__(self, family="llama", dtype=torch.float64, **changes):
        self.model, self.loads = tiny_model(family, **changes).to(dtype), 0

    def __call__(self):
        self.loads += 1
        return self.model


def teacher(loader=None, mark="tiny"):
    return LazyTeacher(loader or Loader(), tiny_tokenizer(), mark)


def work(rows, codec, loader=None, **more):
    return CacheSpec(rows, teacher(loader), codec, **({"batch_size": 4, "shard_tokens": 60} | more))


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def keys_of(rows):
    return torch.cat([row_keys(row) for row in rows])


def online(model, rows):
    """Return the final states that predict the learned tokens, each row read by itself."""
    states = []
    with torch.inference_mode():
        for row in rows:
            out = model.base_model(torch.tensor([row["input_ids"]]), use_cache=False).last_hidden_state[0]
            states.append(out[:-1][torch.tensor(row["labels"])[1:] != MASKED])
    return torch.cat(states)


@pytest.mark.parametrize("family", ["llama", "cohere"])
def test_hidden_is_what_the_teacher_says_online(tmp_path, family):
    rows, loader = prepared_rows(), Loader(family)
    cache = write_cache(tmp_path / "cache", work(rows, Hidden(), loader))
    told = cache.targets(keys_of(rows))
    assert torch.equal(told.hidden, online(loader.model, rows).bfloat16().double())


@pytest.mark.parametrize("family", ["gemma2", "granite", "gpt2"])
def test_hidden_brings_the_teachers_own_head(tmp_path, family):
    rows, loader = prepared_rows(), Loader(family, dtype=torch.float32)
    cache = write_cache(tmp_path / "cache", work(rows, Hidden(), loader))
    told = cache.targets(keys_of(rows))
    torch.testing.assert_close(told.hidden, online(loader.model, rows), atol=2**-7, rtol=2**-7)
    wanted = lm_head(loader.model)
    assert torch.equal(told.head.weight, wanted.weight)
    assert (told.head.bias, told.head.scale, told.head.softcap) == (wanted.bias, wanted.scale, wanted.softcap)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_top_of_all_ids_is_what_the_teacher_says_online(tmp_path, temperature):
    rows, loader = prepared_rows(), Loader()
    vocabulary = loader.model.config.vocab_size
    cache = write_cache(tmp_path / "cache", work(rows, TopK(vocabulary, temperature), loader))
    told = cache.targets(keys_of(rows))
    wanted = (lm_head(loader.model).logits(online(loader.model, rows)) / temperature).softmax(-1)
    dense = torch.zeros_like(wanted).scatter_add_(1, told.ids, told.probs)
    torch.testing.assert_close(dense, wanted, atol=1e-6, rtol=5e-3)
    assert (told.tail == 0).all()


def test_a_sample_is_near_what_the_teacher_says_online(tmp_path):
    rows, loader = prepared_rows(), Loader()
    cache = write_cache(tmp_path / "cache", work(rows, Sampled(50), loader))
    told = cache.targets(keys_of(rows))
    wanted = lm_head(loader.model).logits(online(loader.model, rows)).softmax(-1)
    dense = torch.zeros_like(wanted).scatter_add_(1, told.ids, told.probs)
    assert ((dense - wanted).abs() < 1 / 50).all()
    torch.testing.assert_close(told.probs.sum(-1), torch.ones(len(told.probs)))


@pytest.mark.parametrize("codec", CODECS)
def test_targets_come_in_the_order_asked_for(tmp_path, codec):
    rows = prepared_rows()
    cache = write_cache(tmp_path / "cache", work(rows, codec))
    one, two = cache.targets(row_keys(rows[5])), cache.targets(row_keys(rows[1]))
    both = cache.targets(keys_of([rows[5], rows[1]]))
    name = "hidden" if codec.tier == "hidden" else "probs"
    width = getattr(both, name).shape[1]
    parts = [
        torch.nn.functional.pad(getattr(part, name), (0, width - getattr(part, name).shape[1])) for part in (one, two)
    ]
    assert torch.equal(getattr(both, name), torch.cat(parts))


@pytest.mark.parametrize("codec", CODECS)
def test_the_batch_size_changes_no_byte(tmp_path, codec):
    """In float64, where the rounding that depends on a batch's shape lies far below what is written."""
    rows, loader = prepared_rows(), Loader()
    for size in (1, 3, 13):
        write_cache(tmp_path / str(size), work(rows, codec, loader, batch_size=size))
    assert files(tmp_path / "1") == files(tmp_path / "3") == files(tmp_path / "13")


@pytest.mark.parametrize("codec", CODECS)
def test_two_processes_write_what_one_writes(tmp_path, codec):
    rows, loader = prepared_rows(), Loader(dtype=torch.float32)
    write_cache(tmp_path / "one", work(rows, codec, loader))

    def the_other_process():
        told = ProcessShare(1, 2, wait=lambda: None)
        write_cache(tmp_path / "two", work(rows, codec, loader), told)

    write_cache(tmp_path / "two", work(rows, codec, loader), ProcessShare(0, 2, wait=the_other_process))
    assert files(tmp_path / "one") == files(tmp_path / "two")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("codec", CODECS)
def test_a_broken_pass_goes_on_and_ends_the_same(tmp_path, codec):
    rows, loader = prepared_rows(), Loader(dtype=torch.float32)
    whole = write_cache(tmp_path / "whole", work(rows, codec, loader))
    assert whole.facts.shards > 2

    def breaking(numbers):
        yield from numbers[:2]
        raise Killed

    with pytest.raises(Killed):
        write_cache(tmp_path / "broken", work(rows, codec, loader), ProcessShare(progress=breaking))
    with pytest.raises(InputError, match=f"is not finished: {whole.facts.shards - 2} of {whole.facts.shards} shards"):
        TeacherCache.open(tmp_path / "broken")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken").glob("shard-*")}
    write_cache(tmp_path / "broken", work(rows, codec, loader))
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_a_finished_cache_loads_no_teacher(tmp_path):
    rows, loader = prepared_rows(), Loader()
    write_cache(tmp_path / "cache", work(rows, Sampled(), loader))
    write_cache(tmp_path / "cache", work(rows, Sampled(), loader, batch_size=7))
    assert loader.loads == 1


def test_packed_and_padded_rows_share_a_cache(tmp_path):
    rows = prepared_rows(6)
    packed = [
        {
            "input_ids": rows[a]["input_ids"] + rows[b]["input_ids"],
            "labels": rows[a]["labels"] + rows[b]["labels"],
            "seq_lengths": [len(rows[a]["input_ids"]), len(rows[b]["input_ids"])],
        }
        for a, b in ((0, 1), (2, 3), (4, 5))
    ]
    one = write_cache(tmp_path / "packed", work(packed, Hidden()))
    other = write_cache(tmp_path / "padded", work(rows, Hidden()))
    assert torch.equal(one.targets(keys_of(packed)).hidden, other.targets(keys_of(rows)).hidden)
    assert files(tmp_path / "packed") == files(tmp_path / "padded")


def test_another_dataset_is_told_from_this_one(tmp_path):
    rows = prepared_rows()
    cache = write_cache(tmp_path / "cache", work(rows, Sampled()))
    changed = [dict(row) for row in rows]
    changed[3]["labels"] = [MASKED, *changed[3]["input_ids"][1:]]
    cache.check_rows(keys_of(rows))
    with pytest.raises(InputError, match="1 of 13 sequences are not in the teacher cache"):
        cache.check_rows(keys_of(changed))
    with pytest.raises(InputError, match="1 of 13"):
        cache.targets(keys_of(changed))


def test_an_occupied_folder_is_not_mixed_with(tmp_path):
    rows = prepared_rows()
    write_cache(tmp_path / "cache", work(rows, Sampled()))
    others = [
        work(rows, Sampled(seed=1)),
        work(rows, TopK()),
        work(rows[:-1], Sampled()),
        CacheSpec(rows, teacher(mark="another"), Sampled(), shard_tokens=60),
    ]
    for other in others:
        with pytest.raises(InputError, match="holds a teacher cache of another teacher, tokenizer, tier or dataset"):
            write_cache(tmp_path / "cache", other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and no teacher cache"):
        write_cache(tmp_path / "full", work(rows, Sampled()))


@pytest.mark.parametrize(
    ("codec", "check", "message"),
    [
        (Sampled(), {"temperature": 2.0}, "temperature is 2.0, and the sampled cache .* serves 1.0 only"),
        (TopK(temperature=2.0), {}, "temperature is 1.0, and the topk cache .* serves 2.0 only"),
        (Hidden(), {"teacher": "another"}, "was written by another teacher"),
    ],
)
def test_what_the_cache_cannot_serve_is_refused(tmp_path, codec, check, message):
    cache = write_cache(tmp_path / "cache", work(prepared_rows(), codec))
    with pytest.raises(InputError, match=message):
        cache.check(**check)


def test_what_the_cache_can_serve_passes(tmp_path):
    cache = write_cache(tmp_path / "cache", work(prepared_rows(), Hidden()))
    cache.check(temperature=3.0, tokenizer=tiny_tokenizer(), teacher="tiny")
    other = tiny_tokenizer()
    other.add_tokens(["new"])
    with pytest.raises(InputError, match="with another tokenizer"):
        cache.check(tokenizer=other)


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_bit_is_noticed(tmp_path, codec):
    rows = prepared_rows()
    write_cache(tmp_path / "cache", work(rows, codec))
    path = shard_path(tmp_path / "cache", 0)
    tensors = load_file(path)
    name = {"sampled": "entries", "topk": "tail", "hidden": "states"}[codec.tier]
    tensors[name].view(torch.uint8).flatten()[0] ^= 1
    plan = json.loads((tmp_path / "cache" / "cache.json").read_text())["plan"]
    save_file(tensors, path, metadata={"plan": plan})
    cache = TeacherCache.open(tmp_path / "cache")
    with pytest.raises(InputError, match="corrupt: sequence 0 does not fit its checksum"):
        cache.targets(keys_of(rows))
    cache.targets(keys_of(rows[-1:]))


def test_broken_folders_are_told(tmp_path):
    rows = prepared_rows()
    with pytest.raises(InputError, match="is no teacher cache"):
        TeacherCache.open(tmp_path)
    for name in ("cut", "foreign", "old"):
        write_cache(tmp_path / name, work(rows, Sampled()))
    cut = shard_path(tmp_path / "cut", 1)
    cut.write_bytes(cut.read_bytes()[:-3])
    with pytest.raises(InputError, match="is corrupt"):
        TeacherCache.open(tmp_path / "cut")
    other = write_cache(tmp_path / "other", work(rows, Sampled(seed=1)))
    shard_path(tmp_path / "foreign", 1).write_bytes(shard_path(other.folder, 1).read_bytes())
    with pytest.raises(InputError, match="is of another cache"):
        TeacherCache.open(tmp_path / "foreign")
    marker = tmp_path / "old" / "cache.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"format": 0}))
    with pytest.raises(InputError, match="is of format 0; this version reads 1"):
        TeacherCache.open(tmp_path / "old")
    marker.write_text("{}")
    with pytest.raises(InputError, match="is no cache.json of this version"):
        TeacherCache.open(tmp_path / "old")


@pytest.mark.parametrize("codec", [Sampled(), TopK(k=200), Hidden()])
def test_ids_that_only_pad_the_teachers_vocabulary_are_left_out(tmp_path, codec):
    rows, loader = prepared_rows(), Loader()
    cache = write_cache(tmp_path / "cache", work(rows, codec, loader, vocab_size=200))
    assert cache.facts.vocab_size == 200
    told = cache.targets(keys_of(rows))
    wanted = lm_head(loader.model).logits(online(loader.model, rows))[:, :200].softmax(-1)
    if codec.tier == "hidden":
        assert len(told.head.weight) == 200
        got = (told.hidden @ told.head.weight.T).softmax(-1)
    else:
        assert int(told.ids.max()) < 200
        got = torch.zeros_like(wanted).scatter_add_(1, told.ids, told.probs)
    assert ((got - wanted).abs() < 0.02).all()
    verify(cache, rows, loader.model)


def test_rows_without_numbers_are_named(tmp_path):
    loader = Loader(dtype=torch.float32)
    rows = prepared_rows()
    rows[4]["input_ids"][0] = 250
    with torch.no_grad():
        loader.model.get_input_embeddings().weight[250] = torch.nan
    with pytest.raises(InputError, match="not finite on prepared rows 4$"):
        write_cache(tmp_path / "cache", work(rows, Sampled(), loader))


def test_rows_that_teach_nothing_are_refused(tmp_path):
    loader = Loader()
    with pytest.raises(InputError, match="no row has a token to learn"):
        write_cache(tmp_path / "cache", work([{"input_ids": [1, 2], "labels": [MASKED] * 2}], Sampled(), loader))
    assert loader.loads == 0
