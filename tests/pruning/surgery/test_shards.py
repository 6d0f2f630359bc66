"""Shards: complete files, a correct index, and never more than one shard in memory."""

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from trl_prune.checkpoints import INDEX, check_weights, tensor_files
from trl_prune.pruning.surgery import shards
from trl_prune.pruning.surgery.shards import write_shards


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(40, 200))
def test_written_tensors_are_read_back(tmp_path_factory, lengths, max_shard_bytes):
    folder = tmp_path_factory.mktemp("shards")
    tensors = {f"tensor{number:02d}": torch.randn(length) for number, length in enumerate(lengths)}
    write_shards(folder, iter(tensors.items()), max_shard_bytes)
    check_weights(folder)
    files = tensor_files(folder)
    assert files.keys() == tensors.keys()
    for name, path in files.items():
        assert torch.equal(load_file(path)[name], tensors[name])
    for path in set(files.values()):
        sizes = [tensors[name].nbytes for name in files if files[name] == path]
        assert len(sizes) == 1 or sum(sizes) <= max_shard_bytes


def test_one_shard_has_no_index(tmp_path):
    write_shards(tmp_path, iter({"tensor": torch.ones(3)}.items()))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_shards_are_no_larger_than_the_largest_tensor(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MIN_SHARD_BYTES", 40)
    lengths = [5, 5, 25, 5, 20, 5]
    write_shards(tmp_path, iter({f"t{number}": torch.ones(length) for number, length in enumerate(lengths)}.items()))
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 4 * sum(lengths)
    assert all(
        sum(load_file(path)[name].nbytes for name in load_file(path)) <= 100 for path in tmp_path.glob("*.safetensors")
    )


SCRIPT = """
import json, sys, threading
from pathlib import Path
import torch
from trl_prune.checkpoints import load_config
from trl_prune.pruning.families import HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint

def anonymous_memory():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

source, target, axis = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
keeps = {
    "depth": {LAYERS: list(range(0, 12, 2))},
    "width": {HIDDEN: list(range(0, 512, 2)), NEURONS: [list(range(0, 4096, 2))] * 12},
}
torch.set_num_threads(1)
load_config(source)  # keeps its imports out of the measurement
before, peak, running = anonymous_memory(), 0, True

def watch():
    global peak
    while running:
        peak = max(peak, anonymous_memory())

watcher = threading.Thread(target=watch)
watcher.start()
prune_checkpoint(source, target, keeps[axis], {"path": "dense"})
running = False
watcher.join()
print(peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("axis", ["depth", "width"])
def test_surgery_holds_one_shard_not_the_checkpoint(axis, tmp_path, monkeypatch):
    """A checkpoint of 400 MB in shards of 34 MB: memory stays near one shard and one cut tensor."""
    from transformers import LlamaConfig

    from trl_prune.pruning.surgery.cut import meta_model

    config = LlamaConfig(
        hidden_size=512, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=8, vocab_size=16384,
        tie_word_embeddings=True,
    )  # fmt: skip
    dense = tmp_path / "dense"
    config.save_pretrained(dense)
    shapes = {name: weight.shape for name, weight in meta_model(config).named_parameters()}
    write_shards(dense, ((name, torch.zeros(shape)) for name, shape in shapes.items()), 34 * 2**20)
    script = tmp_path / "script.py"
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    script.write_text("import trl_prune.pruning.surgery.shards as s\ns.MIN_SHARD_BYTES = 34 * 2**20\n" + SCRIPT)
    process = subprocess.run(
        [sys.executable, script, dense, tmp_path / "pruned", axis], capture_output=True, text=True, check=True
    )
    assert float(process.stdout.splitlines()[-1]) < 34 + 17 + 40  # MB: a shard, a cut tensor, the interpreter
