"""Time and memory of scoring every axis in one pass, compared with a plain forward pass and with other methods.

usage: python benchmarks/scoring.py [MODEL] (default: the quickstart's)

All methods run on the same batches. CPU seconds: one process runs the methods in turn for several rounds and takes the
minimum, so that other load on the machine affects all alike and matters least. Memory: each method runs once in a
separate process; reported are the peak and its difference from the memory with the model loaded. OptiPFair is measured
if it is installed.
"""

import importlib.util
import os
import subprocess
import sys
import threading
import time

import torch

from trl_prune.checkpoints import load_model, load_tokenizer, locate
from trl_prune.data.batches import calibration_batches
from trl_prune.data.starter import starter_rows
from trl_prune.pruning.importance.layers import score_layers
from trl_prune.pruning.importance.scores import score
from trl_prune.smollm2 import smollm2


TEXTS, BATCH, ROUNDS = 8, 8, 3


def backbone(model, batches):
    """Run the decoder only: the lower limit."""
    for batch in batches:
        model.get_decoder()(**batch, use_cache=False)


def full_model(model, batches):
    """Run the decoder and the LM head."""
    for batch in batches:
        model(**batch, use_cache=False)


def layers(model, batches):
    """Score all runs of blocks by distance."""
    score_layers(model, batches)


def all_axes(model, batches):
    """Score layers, heads, KV heads, neurons and hidden channels."""
    score(model, batches)


def output_hidden_states(model, batches):
    """Score layers as scripts do that request every hidden state from transformers, which computes logits as well."""
    total, count = 0, 0
    for batch in batches:
        states = torch.stack(model(**batch, output_hidden_states=True, use_cache=False).hidden_states)
        unit = torch.nn.functional.normalize(states.float(), dim=-1)
        cosine = torch.einsum("lbtd,mbtd->btlm", unit, unit).clamp(-1, 1)[batch["attention_mask"].bool()]
        total, count = total + (cosine.arccos() / torch.pi).sum(0), count + len(cosine)
    return total / count


def optipfair_layers(model, batches):
    """Score layers by OptiPFair's block influence."""
    from optipfair import analyze_layer_importance

    analyze_layer_importance(model, batches, show_progress=False)


def optipfair_neurons(model, batches):
    """Score neurons as OptiPFair does before it prunes."""
    from optipfair.pruning import mlp_glu

    handles = mlp_glu.setup_mlp_hooks_for_importance(model, next(model.parameters()).device)
    for batch in batches:
        model(**batch)
    mlp_glu.get_activation_norms()
    for handle in handles:
        handle.remove()


METHODS = {
    "backbone": backbone,
    "ours, all axes": all_axes,
    "ours, layers": layers,
    "whole model": full_model,
    "`output_hidden_states`, layers": output_hidden_states,
    "OptiPFair, layers": optipfair_layers,
    "OptiPFair, neurons": optipfair_neurons,
}


def private_memory():
    """Return the process's private memory in MB: memory-mapped weights count only once they are copied."""
    with open("/proc/self/statm") as file:
        total, shared = (int(field) for field in file.read().split()[1:3])
    return (total - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20


class PeakMemory(threading.Thread):
    """Samples memory from a thread: ru_maxrss would include the peak of loading the model."""

    def __init__(self):
        super().__init__(daemon=True)
        self.megabytes, self.done = 0.0, False

    def run(self):
        """Sample every millisecond."""
        while not self.done:
            self.megabytes = max(self.megabytes, private_memory())
            time.sleep(0.001)


def load(name):
    """Return the model, copied out of the memory-mapped file, and the batches."""
    from datasets import Dataset

    folder = locate(name) if name else smollm2()
    model, tokenizer = load_model(folder, "float32"), load_tokenizer(folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model, calibration_batches(Dataset.from_list(starter_rows()[:TEXTS]), tokenizer, BATCH, 512)


@torch.inference_mode()
def measure_memory(name, method):
    """Print the memory with the model loaded and the peak of a first pass, in MB."""
    model, batches = load(name)
    before = private_memory()
    peak = PeakMemory()
    peak.start()
    METHODS[method](model, batches)
    peak.done = True
    peak.join()
    print(f"{before:.0f} {peak.megabytes:.0f}")


@torch.inference_mode()
def measure_time(name, *methods):
    """Print the CPU seconds of each method, the minimum over rounds in which the methods take turns."""
    model, batches = load(name)
    seconds = {method: [] for method in methods}
    for method in methods:
        METHODS[method](model, batches[-1:])
    for _ in range(ROUNDS):
        for method in methods:
            start = time.process_time()
            METHODS[method](model, batches)
            seconds[method].append(time.process_time() - start)
    print(*(f"{min(seconds[method]):.2f}" for method in methods))


def run_in_subprocess(*arguments):
    """Return the numbers on the last line that this script prints when run with these arguments."""
    process = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in process.stdout.splitlines()[-1].split()]


def main(name=""):
    """Measure every method and print the table."""
    has_optipfair = importlib.util.find_spec("optipfair") is not None
    methods = [method for method in METHODS if has_optipfair or "OptiPFair" not in method]
    seconds = dict(zip(methods, run_in_subprocess(name, "time", *methods), strict=True))
    memory = {method: run_in_subprocess(name, "memory", method) for method in methods}
    backbone_seconds, backbone_peak = seconds["backbone"], memory["backbone"][1]
    print(
        "| method | CPU seconds | x backbone | memory added, MB | peak, MB | x backbone |\n|---|---|---|---|---|---|"
    )
    for method, (before, peak) in memory.items():
        times = f"{seconds[method]:.2f} | {seconds[method] / backbone_seconds:.2f}"
        print(f"| {method} | {times} | {peak - before:.0f} | {peak:.0f} | {peak / backbone_peak:.2f} |")


if __name__ == "__main__":
    if sys.argv[2:3] in (["time"], ["memory"]):
        {"time": measure_time, "memory": measure_memory}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
    else:
        main(*sys.argv[1:])
