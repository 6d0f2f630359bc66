"""Prepared rows, a tiny teacher and its cache's spec, and the teacher's own states to compare with."""

import torch

from tests.conftest import tiny_model, tiny_tokenizer
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.codecs import Hidden, Sampled, TopK
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.sequences import row_keys
from trl_prune.losses.positions import MASKED


CODECS = [Sampled(draws=20), TopK(k=5), Hidden()]


def prepared_rows(count=13, seed=0):
    """Rows of random length; the first third of each is masked, as a prompt is."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(3, 30, (1,), generator=generator))
        ids = torch.randint(0, 200, (length,), generator=generator).tolist()
        prompt_length = length // 3
        rows.append({"input_ids": ids, "labels": [MASKED] * prompt_length + ids[prompt_length:]})
    return rows


class CountingLoader:
    """Loads a teacher and counts how often."""

    def __init__(self, family="llama", dtype=torch.float64, **changes):
        self.model, self.loads = tiny_model(family, **changes).to(dtype), 0

    def __call__(self):
        self.loads += 1
        return self.model


def teacher(loader=None, fingerprint="tiny"):
    return LazyTeacher(loader or CountingLoader(), tiny_tokenizer(), fingerprint)


def cache_spec(rows, codec, loader=None, **settings):
    return CacheSpec(rows, teacher(loader), codec, **({"batch_size": 4, "shard_tokens": 60} | settings))


def read_files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def dataset_keys(rows):
    return torch.cat([row_keys(row) for row in rows])


def online_states(model, rows):
    """The final states that predict the learned tokens, from one forward pass per row."""
    states = []
    with torch.inference_mode():
        for row in rows:
            output = model.base_model(torch.tensor([row["input_ids"]]), use_cache=False).last_hidden_state[0]
            states.append(output[:-1][torch.tensor(row["labels"])[1:] != MASKED])
    return torch.cat(states)
