"""Surgery on a synthetic sharded checkpoint, compared with copying the kept bytes and with mergekit's passthrough.

    python benchmarks/surgery.py --folder /somewhere/with/20GB [--gigabytes 4]

Every method runs in a separate process. Anonymous memory is sampled from /proc/<pid>/status (RssAnon), 100 times per
second: pages of memory-mapped files can be dropped by the kernel and are not counted. Seconds are wall seconds of the
best of four runs: the source is in the page cache in all of them; each ends with an fsync of the written files.
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


HIDDEN_SIZE, INTERMEDIATE_SIZE, VOCABULARY = 2048, 8192, 32768
SHARD_BYTES = 5 * 10**8
MEGABYTE, ROUNDS = 2**20, 4


def make_checkpoint(folder: Path, gigabytes: float) -> None:
    """Write a Llama checkpoint of about the given size in bfloat16, in shards of 500 MB."""
    block = {
        "self_attn.q_proj": (HIDDEN_SIZE, HIDDEN_SIZE),
        "self_attn.k_proj": (HIDDEN_SIZE // 4, HIDDEN_SIZE),
        "self_attn.v_proj": (HIDDEN_SIZE // 4, HIDDEN_SIZE),
        "self_attn.o_proj": (HIDDEN_SIZE, HIDDEN_SIZE),
        "mlp.gate_proj": (INTERMEDIATE_SIZE, HIDDEN_SIZE),
        "mlp.up_proj": (INTERMEDIATE_SIZE, HIDDEN_SIZE),
        "mlp.down_proj": (HIDDEN_SIZE, INTERMEDIATE_SIZE),
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
        hidden_size=HIDDEN_SIZE, intermediate_size=INTERMEDIATE_SIZE, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=VOCABULARY, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    shards: list[dict[str, tuple]] = [{}]
    for name, shape in shapes.items():
        if 2 * sum(torch.Size(other).numel() for other in shards[-1].values()) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    weight_map = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: torch.randn(shape).bfloat16() for name, shape in shard.items()}, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    write_json(folder / INDEX, {"metadata": {}, "weight_map": weight_map})


def plan(folder: Path, kind: str) -> dict[str, list]:
    """Return a plan that keeps three of four layers (`depth`), or three of four channels and neurons (`width`)."""
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    if kind == "depth":
        return {LAYERS: [layer for layer in range(layers) if layer % 4 != 2]}
    neurons = [index for index in range(INTERMEDIATE_SIZE) if index % 4 != 2]
    return {HIDDEN: [index for index in range(HIDDEN_SIZE) if index % 4 != 2], NEURONS: [neurons] * layers}


def prune(source: Path, target: Path, kind: str) -> None:
    """Prune with trl-prune."""
    prune_checkpoint(source, target, plan(source, kind), {"path": str(source)})


def copy_kept(source: Path, target: Path, kind: str) -> None:
    """Write only the kept bytes, file by file: read, `index_select` along cut dimensions, write."""
    from trl_prune.checkpoints import load_config

    cut = Cut.of(load_config(source), plan(source, kind))
    target.mkdir()
    files = tensor_files(source)
    for path in sorted(set(files.values())):
        with safe_open(path, "pt") as weights, (target / path.name).open("wb") as out:
            for name in sorted(name for name, file in files.items() if file == path):
                if cut.new_name(name) is not None:
                    tensor = weights.get_tensor(name)
                    for dim, indices in enumerate(cut.kept_indices(name, tensor.shape)):
                        tensor = tensor if indices is None else tensor.index_select(dim, indices)
                    out.write(memoryview(tensor.contiguous().view(torch.uint8).flatten().numpy()))


def passthrough(source: Path, target: Path, kind: str) -> None:  # noqa: ARG001
    """Keep the same blocks with mergekit's passthrough."""
    slices = [
        {"sources": [{"model": str(source.resolve()), "layer_range": [layer, layer + 1]}]}
        for layer in plan(source, "depth")[LAYERS]
    ]
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    recipe = MergeConfiguration.model_validate({"slices": slices, "merge_method": "passthrough", "dtype": "bfloat16"})
    run_merge(recipe, str(target), MergeOptions(lazy_unpickle=True, quiet=True, write_model_card=False))


METHODS: dict[str, tuple[Callable, str]] = {
    "depth: copy the kept bytes": (copy_kept, "depth"),
    "depth: prune_checkpoint": (prune, "depth"),
    "depth: mergekit passthrough": (passthrough, "depth"),
    "width: index_select and write": (copy_kept, "width"),
    "width: prune_checkpoint": (prune, "width"),
}


def run_method(method: str, source: Path, target: Path) -> None:
    """Run one method, flush what it wrote and print seconds and the memory of imports as JSON."""
    function, kind = METHODS[method]
    if function is passthrough:
        import mergekit.merge  # noqa: F401
    torch.set_num_threads(1)
    imports = _anonymous_bytes(os.getpid())
    start = time.perf_counter()
    function(source, target, kind)
    for path in target.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    print(json.dumps({"seconds": time.perf_counter() - start, "imports": imports}))


def measure(method: str, source: Path, target: Path) -> dict:
    """Return seconds, peak anonymous memory and written bytes of one method."""
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, __file__, "--child", method, "--folder", str(source), "--target", str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    samples: list[int] = []
    sampler = threading.Thread(target=_sample_memory, args=(process, samples))
    sampler.start()
    result = json.loads(process.communicate()[0].splitlines()[-1])
    sampler.join()
    written = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    shutil.rmtree(target)
    return result | {"peak": max(samples), "written": written}


def _sample_memory(process: subprocess.Popen, samples: list[int]) -> None:
    while process.poll() is None:
        samples.append(sum(_anonymous_bytes(pid) for pid in _process_tree(process.pid)))
        time.sleep(0.01)


def _process_tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [pid, *(inner for child in children.read_text().split() for inner in _process_tree(int(child)))]
    except OSError:
        return []


def _anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def main() -> None:
    """Write the checkpoint unless it exists, measure every method and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=4)
    parser.add_argument("--child")
    parser.add_argument("--target", type=Path)
    args = parser.parse_args()
    if args.child:
        run_method(args.child, args.folder, args.target)
        return
    source = args.folder / "dense"
    if not source.exists():
        make_checkpoint(source, args.gigabytes)
    with safe_open(next(iter(sorted(source.glob("*.safetensors")))), "pt") as weights:
        largest = max(weights.get_tensor(name).nbytes for name in weights.keys())  # noqa: SIM118
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    print(f"source {size / 1e9:.2f} GB, largest tensor {largest / MEGABYTE:.0f} MB\n")
    print("| method | seconds | x plain copy | GB written | peak anonymous MB | of which imports |")
    print("|---|---|---|---|---|---|")
    copy_seconds: dict[str, float] = {}
    for method in METHODS:
        runs = [measure(method, source, args.folder / "target") for _ in range(ROUNDS)]
        best = min(runs, key=lambda run: run["seconds"])
        limit = copy_seconds.setdefault(method.split(":")[0], best["seconds"])
        print(
            f"| {method} | {best['seconds']:.2f} | {best['seconds'] / limit:.2f}x | {best['written'] / 1e9:.2f} "
            f"| {best['peak'] / MEGABYTE:.0f} | {best['imports'] / MEGABYTE:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
