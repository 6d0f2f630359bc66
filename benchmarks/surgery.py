"""Surgery on a synthetic sharded checkpoint, beside copying the bytes it keeps and beside mergekit's passthrough.

    python benchmarks/surgery.py --folder /somewhere/with/20GB [--gigabytes 4]

Every way runs in a process of its own. Anonymous memory is sampled from /proc/<pid>/status (RssAnon), 100 times a
second: pages of memory-mapped files are the kernel's to drop and are not counted. Seconds are wall seconds of the
best of four runs: the source is in the page cache for all alike; each ends with an fsync of what it wrote.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import LlamaConfig

from trl_prune.checkpoints import INDEX, tensor_files, write_json
from trl_prune.pruning.families import HIDDEN, LAYERS, NEURONS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import Cut


HIDDEN_SIZE, NEURONS_A_BLOCK, VOCABULARY = 2048, 8192, 32768
SHARD_BYTES = 5 * 10**8
MEGABYTE, ROUNDS = 2**20, 4


def make(folder: Path, gigabytes: float) -> None:
    """Write a Llama checkpoint of about this size in bfloat16, in shards of 500 MB."""
    block = {
        "self_attn.q_proj": (HIDDEN_SIZE, HIDDEN_SIZE),
        "self_attn.k_proj": (HIDDEN_SIZE // 4, HIDDEN_SIZE),
        "self_attn.v_proj": (HIDDEN_SIZE // 4, HIDDEN_SIZE),
        "self_attn.o_proj": (HIDDEN_SIZE, HIDDEN_SIZE),
        "mlp.gate_proj": (NEURONS_A_BLOCK, HIDDEN_SIZE),
        "mlp.up_proj": (NEURONS_A_BLOCK, HIDDEN_SIZE),
        "mlp.down_proj": (HIDDEN_SIZE, NEURONS_A_BLOCK),
        "input_layernorm": (HIDDEN_SIZE,),
        "post_attention_layernorm": (HIDDEN_SIZE,),
    }
    block_bytes = 2 * sum(torch.Size(shape).numel() for shape in block.values())
    layers = round((gigabytes * 1e9 - 4 * VOCABULARY * HIDDEN_SIZE) / block_bytes)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN_SIZE), "lm_head.weight": (VOCABULARY, HIDDEN_SIZE)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    shapes["model.norm.weight"] = (HIDDEN_SIZE,)
    folder.mkdir(parents=True)
    LlamaConfig(
        hidden_size=HIDDEN_SIZE, intermediate_size=NEURONS_A_BLOCK, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=VOCABULARY, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    shards: list[dict[str, tuple]] = [{}]
    for name, shape in shapes.items():
        if 2 * sum(torch.Size(held).numel() for held in shards[-1].values()) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    weight_map = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: torch.randn(shape).bfloat16() for name, shape in shard.items()}, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    write_json(folder / INDEX, {"metadata": {}, "weight_map": weight_map})


def plan(folder: Path, way: str) -> dict[str, list]:
    """Return what stays: three layers of four, or three channels and neurons of four."""
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    if way == "depth":
        return {LAYERS: [layer for layer in range(layers) if layer % 4 != 2]}
    neurons = [index for index in range(NEURONS_A_BLOCK) if index % 4 != 2]
    return {HIDDEN: [index for index in range(HIDDEN_SIZE) if index % 4 != 2], NEURONS: [neurons] * layers}


def prune(source: Path, target: Path, way: str) -> None:
    """Our way."""
    prune_checkpoint(source, target, plan(source, way), {"path": str(source)})


def floor(source: Path, target: Path, way: str) -> None:
    """Write the kept bytes file by file with nothing around it: read, `index_select` where width goes, write."""
    from trl_prune.checkpoints import load_config

    cut = Cut.of(load_config(source), plan(source, way))
    target.mkdir()
    files = tensor_files(source)
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as stored, (target / path.name).open("wb") as out:
            for name in sorted(name for name, file in files.items() if file == path):
                if cut.name(name) is not None:
                    tensor = stored.get_tensor(name)
                    for dim, rows in enumerate(cut.rows(name, tensor.shape)):
                        tensor = tensor if rows is None else tensor.index_select(dim, rows)
                    out.write(memoryview(tensor.contiguous().view(torch.uint8).flatten().numpy()))


def passthrough(source: Path, target: Path, way: str) -> None:  # noqa: ARG001
    """Take the same blocks by passthrough."""
    slices = [
        {"sources": [{"model": str(source.resolve()), "layer_range": [layer, layer + 1]}]}
        for layer in plan(source, "depth")[LAYERS]
    ]
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    recipe = MergeConfiguration.model_validate({"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"})
    run_merge(recipe, str(target), MergeOptions(lazy_unpickle=True, quiet=True, write_model_card=False))


WAYS: dict[str, tuple[Callable, str]] = {
    "depth: copy the kept bytes": (floor, "depth"),
    "depth: prune_checkpoint": (prune, "depth"),
    "depth: mergekit passthrough": (passthrough, "depth"),
    "width: index_select and write": (floor, "width"),
    "width: prune_checkpoint": (prune, "width"),
}


def child(way: str, source: Path, target: Path) -> None:
    """Do one way and flush what it wrote."""
    work, kind = WAYS[way]
    if work is passthrough:
        import mergekit.merge  # noqa: F401
    torch.set_num_threads(1)
    imports = _anonymous(os.getpid())
    start = time.perf_counter()
    work(source, target, kind)
    for path in target.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    print(json.dumps({"seconds": time.perf_counter() - start, "imports": imports}))


def measure(way: str, source: Path, target: Path) -> dict:
    """Return seconds and the peak of anonymous memory of one way."""
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, __file__, "--child", way, "--folder", str(source), "--target", str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen: list[int] = []
    watcher = threading.Thread(target=_watch, args=(process, seen))
    watcher.start()
    told = json.loads(process.communicate()[0].splitlines()[-1])
    watcher.join()
    written = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    shutil.rmtree(target)
    return told | {"peak": max(seen), "written": written}


def _watch(process: subprocess.Popen, seen: list[int]) -> None:
    while process.poll() is None:
        seen.append(sum(_anonymous(pid) for pid in _family(process.pid)))
        time.sleep(0.01)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [pid, *(inner for child in children.read_text().split() for inner in _family(int(child)))]
    except OSError:
        return []


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def main() -> None:
    """Make the checkpoint where it is not there yet, measure every way and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--gigabytes", type=float, default=4)
    options.add_argument("--child")
    options.add_argument("--target", type=Path)
    given = options.parse_args()
    if given.child:
        child(given.child, given.folder, given.target)
        return
    source = given.folder / "dense"
    if not source.exists():
        make(source, given.gigabytes)
    with safe_open(next(iter(sorted(source.glob("*.safetensors")))), "pt") as stored:
        largest = max(stored.get_tensor(name).nbytes for name in stored.keys())  # noqa: SIM118
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"source {size / 1e9:.2f} GB, largest tensor {largest / MEGABYTE:.0f} MB\n")
    print("| way | seconds | over its floor | GB written | peak anonymous MB | of which imports |")
    print("|---|---|---|---|---|---|")
    bases: dict[str, float] = {}
    for way in WAYS:
        runs = [measure(way, source, given.folder / "target") for _ in range(ROUNDS)]
        told = min(runs, key=lambda run: run["seconds"])
        base = bases.setdefault(way.split(":")[0], told["seconds"])
        print(
            f"| {way} | {told['seconds']:.2f} | {told['seconds'] / base:.2f}x | {told['written'] / 1e9:.2f} "
            f"| {told['peak'] / MEGABYTE:.0f} | {told['imports'] / MEGABYTE:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
