"""Scoring every axis in one pass, against one plain forward pass of the backbone and against other ways.

usage: python benchmarks/scoring.py [MODEL] (default: the quickstart's)

All on the same batches. CPU seconds: one process runs the ways in turn, several rounds, and the least tells, so that
what else the machine does hits all alike and counts least. Memory: each way in a process of its own, its first pass,
the peak as a whole and above what the loaded model takes. OptiPFair is measured where it is installed.
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
    """Only the decoder: the limit."""
    for batch in batches:
        model.get_decoder()(**batch, use_cache=False)


def whole_model(model, batches):
    """The decoder and the LM head."""
    for batch in batches:
        model(**batch, use_cache=False)


def layers(model, batches):
    """Distances of all runs of blocks."""
    score_layers(model, batches)


def all_axes(model, batches):
    """Layers, heads, groups, neurons, hidden channels."""
    score(model, batches)


def hidden_states_kept(model, batches):
    """Layers only, as scripts do that ask transformers for every hidden state, with the head's logits."""
    total, count = 0, 0
    for batch in batches:
        states = torch.stack(model(**batch, output_hidden_states=True, use_cache=False).hidden_states)
        unit = torch.nn.functional.normalize(states.float(), dim=-1)
        cosine = torch.einsum("lbtd,mbtd->btlm", unit, unit).clamp(-1, 1)[batch["attention_mask"].bool()]
        total, count = total + (cosine.arccos() / torch.pi).sum(0), count + len(cosine)
    return total / count


def optipfair_layers(model, batches):
    """OptiPFair's block influence, layers only."""
    from optipfair import analyze_layer_importance

    analyze_layer_importance(model, batches, show_progress=False)


def optipfair_neurons(model, batches):
    """What OptiPFair runs to score neurons (its pruning left out)."""
    from optipfair.pruning import mlp_glu

    handles = mlp_glu.setup_mlp_hooks_for_importance(model, next(model.parameters()).device)
    for batch in batches:
        model(**batch)
    mlp_glu.get_activation_norms()
    for handle in handles:
        handle.remove()


WAYS = {
    "backbone": backbone,
    "ours, all axes": all_axes,
    "ours, layers": layers,
    "whole model": whole_model,
    "`output_hidden_states`, layers": hidden_states_kept,
    "OptiPFair, layers": optipfair_layers,
    "OptiPFair, neurons": optipfair_neurons,
}


def resident():
    """Return the process's memory that is its own, in MB: mapped weights count only once they are copied."""
    with open("/proc/self/statm") as file:
        total, shared = (int(word) for word in file.read().split()[1:3])
    return (total - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Peak(threading.Thread):
    """Watches memory from a thread: ru_maxrss would remember what loading the model took."""

    def __init__(self):
        super().__init__(daemon=True)
        self.top, self.done = 0.0, False

    def run(self):
        """Look every millisecond."""
        while not self.done:
            self.top = max(self.top, resident())
            time.sleep(0.001)


def prepared(name):
    """Return the model, in memory of its own as on any machine that runs it, and the batches."""
    from datasets import Dataset

    folder = locate(name) if name else smollm2()
    model, tokenizer = load_model(folder, "float32"), load_tokenizer(folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model, calibration_batches(Dataset.from_list(starter_rows()[:TEXTS]), tokenizer, BATCH, 512)


@torch.inference_mode()
def measure_memory(name, way):
    """Print the memory with the model loaded and the peak of a first pass, in MB."""
    model, batches = prepared(name)
    before = resident()
    peak = Peak()
    peak.start()
    WAYS[way](model, batches)
    peak.done = True
    peak.join()
    print(f"{before:.0f} {peak.top:.0f}")


@torch.inference_mode()
def measure_time(name, *ways):
    """Print each way's CPU seconds, the least of rounds in which the ways take turns."""
    model, batches = prepared(name)
    seconds = {way: [] for way in ways}
    for way in ways:
        WAYS[way](model, batches[-1:])
    for _ in range(ROUNDS):
        for way in ways:
            start = time.process_time()
            WAYS[way](model, batches)
            seconds[way].append(time.process_time() - start)
    print(*(f"{min(seconds[way]):.2f}" for way in ways))


def in_a_process(*arguments):
    """Return the numbers that this script prints, run with these arguments."""
    told = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in told.stdout.splitlines()[-1].split()]


def main(name=""):
    """Measure every way and print the table."""
    installed = importlib.util.find_spec("optipfair") is not None
    ways = list(WAYS) if installed else [way for way in WAYS if "OptiPFair" not in way]
    seconds = dict(zip(ways, in_a_process(name, "time", *ways), strict=True))
    memory = {way: in_a_process(name, "memory", way) for way in ways}
    floor, top = seconds["backbone"], memory["backbone"][1]
    print("| way | CPU seconds | x backbone | memory added, MB | peak, MB | x backbone |\n|---|---|---|---|---|---|")
    for way, (before, peak) in memory.items():
        time_told = f"{seconds[way]:.2f} | {seconds[way] / floor:.2f}"
        print(f"| {way} | {time_told} | {peak - before:.0f} | {peak:.0f} | {peak / top:.2f} |")


if __name__ == "__main__":
    if sys.argv[2:3] in (["time"], ["memory"]):
        {"time": measure_time, "memory": measure_memory}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
    else:
        main(*sys.argv[1:])
