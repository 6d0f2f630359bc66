"""How many times as fast a model without some of its blocks is, beside what its operations and bytes allow.

    python benchmarks/speed.py [--model FOLDER] [--layers 24] [--dtype float32] [--seconds 120] [--batch_sizes 1 8]

The dense model (SmolLM2-135M by default) and the same with its first blocks only: for speed it does not matter which
are gone. Both are timed in turn, a prompt of 512 tokens and 32 generated ones, by the wall clock and in CPU seconds.
The share of the machine's limit is that of the dense model: bytes read a second against a large matrix times a vector,
operations a second against products of matrices of the prompt's shape, timed in the same turns. Peak memory is what
loading a model and both calls add to a process of its own.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel

from trl_prune import prune
from trl_prune.checkpoints import load_config, load_model
from trl_prune.evaluation.efficiency import FLOP_TOKENS, Work, count_work
from trl_prune.evaluation.speed import DECODE, DECODE_PROMPT_TOKENS, DECODE_TOKENS, PREFILL, speed_calls
from trl_prune.evaluation.timing import interleaved_seconds, repeat_until_narrow, speed_up
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.smollm2 import smollm2


MATRIX_ROWS, MATRIX_COLUMNS = 65_536, 2_048
CONTEXT = DECODE_PROMPT_TOKENS + DECODE_TOKENS / 2


def with_cpu_seconds(call: Callable[[], object], seconds: list[float]) -> Callable[[], None]:
    """Return a call that also appends its CPU seconds to a list."""

    def timed() -> None:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)

    return timed


def compare(name: str, batch_size: int, models: list[PreTrainedModel], work: list[Work], seconds: float) -> str:
    """Return a row of the table of gains."""
    cpu_seconds = [], []
    calls = [
        with_cpu_seconds(speed_calls(model, batch_size)[name], each)
        for model, each in zip(models, cpu_seconds, strict=True)
    ]
    timed = repeat_until_narrow(*calls, seconds)
    wall = speed_up(timed["base"], timed["other"])
    cpu = speed_up(*(each[1:] for each in cpu_seconds))  # the first is the warm-up
    costs = [one.prefill_flops if name == PREFILL else decode_bytes(one, batch_size, 1) for one in work]
    allowed = costs[0] / costs[1]
    repeats = len(timed["base"])
    return (
        f"| {name}, batch {batch_size} | {wall} | {cpu} | {allowed:.2f}x | {wall.value / allowed:.2f} "
        f"| {cpu.value / allowed:.2f} | {repeats} |"
    )


def decode_bytes(work: Work, batch_size: int, value_bytes: int) -> float:
    """Return the bytes that are read to generate a token of every text of a batch."""
    return value_bytes * (work.decode_weights + batch_size * work.cache_values * CONTEXT)


def limits(model: PreTrainedModel, work: Work) -> list[str]:
    """Return rows with the dense model's bytes and operations a second, as a share of what plain products reach."""
    dtype, width = model.dtype, model.config.hidden_size
    matrix, vector = torch.ones(MATRIX_ROWS, MATRIX_COLUMNS, dtype=dtype), torch.ones(MATRIX_COLUMNS, dtype=dtype)
    prompt, weight = torch.ones(FLOP_TOKENS, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    calls = speed_calls(model)
    calls |= {"matrix and vector": lambda: matrix @ vector, "matrices": lambda: [prompt @ weight.T for _ in range(20)]}
    best = {name: min(values) for name, values in interleaved_seconds(calls, repeats=6).items()}
    read = decode_bytes(work, 1, dtype.itemsize) * DECODE_TOKENS / best[DECODE]
    readable = matrix.nbytes / best["matrix and vector"]
    done = work.prefill_flops * FLOP_TOKENS / best[PREFILL]
    doable = 20 * 2 * FLOP_TOKENS * width * 4 * width / best["matrices"]
    return [
        f"| decode | {read / 1e9:.1f} GB/s | {readable / 1e9:.1f} GB/s | {read / readable:.2f} |",
        f"| prefill | {done / 1e9:.0f} GFLOP/s | {doable / 1e9:.0f} GFLOP/s | {done / doable:.2f} |",
    ]


def added_memory(folder: Path, dtype: str) -> float:
    """Return the megabytes that loading a model and both calls add to this process at most."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.inference_mode():
        for call in speed_calls(load_model(folder, dtype, "cpu")).values():
            call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    asked = arguments()
    dense, keep = asked.model or smollm2(), {LAYERS: list(range(asked.layers))}
    work = [count_work(meta_model(load_config(dense), of)) for of in (None, keep)]
    print(f"dense: {work[0]}\n{asked.layers} blocks: {work[1]}\n{asked.dtype}, {torch.get_num_threads()} threads")
    with TemporaryDirectory() as output:
        folders = [dense, prune(dense, Path(output) / "small", keep=keep)]
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            memory = pool.starmap(added_memory, [(folder, asked.dtype) for folder in folders], chunksize=1)
        print(f"peak memory added: {memory[0]:,.0f} MB dense, {memory[1]:,.0f} MB small", flush=True)
        models = [load_model(folder, asked.dtype, "cpu") for folder in folders]
    print("| what | gain | CPU seconds | allowed | gain / allowed | CPU | repeats |\n|---|---|---|---|---|---|---|")
    with torch.inference_mode():
        print(compare(PREFILL, 1, models, work, asked.seconds), flush=True)
        for batch_size in asked.batch_sizes:
            print(compare(DECODE, batch_size, models, work, asked.seconds), flush=True)
        print("| dense | reached | plain products | share |\n|---|---|---|---|")
        print("\n".join(limits(models[0], work[0])))


if __name__ == "__main__":
    main()
